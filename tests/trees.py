"""Trees to author flists from, the truth about them by lstat, and the comparison of a flist with it."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import time
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.independent_reader import CHUNK, DefectError, Get, Kind, Node, read_content

AS_ROOT = os.geteuid() == 0
"""Whether `make_everything` makes devices, other owners' files and files that their owner cannot read."""

DIRECTORY_SIZE = 4096
LATEST = 2**32 - 1  # times in a flist are unsigned 32 bits
SECOND = 10**9
MODIFIED = 1_500_000_000 * SECOND + 123_456_789

BUILDER = 1000
STRANGER = (12345, 54321)

_KINDS: dict[int, Kind] = {
    stat.S_IFDIR: "dir",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block",
    stat.S_IFCHR: "char",
}

SIZES = (0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1, 6 * CHUNK + 7)

NAMES = (
    b"new\nline",
    b" spaces around ",
    b"-dash",
    b"--help",
    b"'single' \"double\"",
    b"back\\slash",
    b"$(dollar) `tick` ;|&*?[x]~#!%",
    b"not utf-8 \xff\xfe\x80",
    b"tab\t bell\a \x01\x7f",
    "Grüße, 世界 🎈".encode(),
    "e\N{COMBINING ACUTE ACCENT}".encode(),
    "\N{LATIN SMALL LETTER E WITH ACUTE}".encode(),
    b"...",
    b"n" * 255,
    "世".encode() * 85,
)

# Whole seconds in UTC; the last one is beyond what a flist can hold.
TIMES = {"1969": -86_400, "1970": 0, "1971": 31_536_000, "2100": 4_102_444_800, "2110": 4_417_977_600}

PASSWD = b"root:x:0:0:root:/root:/bin/sh\nbuilder:x:1000:1000:Builder:/home/builder:/bin/sh\n"
GROUP = b"root:x:0:\nmakers:x:1000:builder\n"


# Making


def make_everything(directory: Path) -> None:
    """Fill an empty directory with every kind of entry that a flist can hold; the same bytes each time.

    Whoever is not root gets a tree without what only root can make; `AS_ROOT` says so.
    """
    umask = os.umask(0o022)
    try:
        _make_content(directory)
    finally:
        os.umask(umask)
    directory.chmod(0o755)
    _settle_times(directory)
    _make_times(directory / "times")


def _make_content(directory: Path) -> None:
    for make in (_make_etc, _make_sizes, _make_sparse, _make_many, _make_deep, _make_names, _make_same):
        make(directory)
    for make in (_make_links, _make_modes, _make_specials):
        make(directory)
    if AS_ROOT:
        _make_devices(directory)
        _make_owners(directory)
    times = _below(directory, "times")
    for name in TIMES:
        _write(times / name, b"of %s\n" % name.encode())


def random_bytes(size: int, seed: str) -> bytes:
    """Bytes that do not compress and are the same each time."""
    return random.Random(seed).randbytes(size)


def _below(directory: Path, name: str) -> Path:
    (directory / name).mkdir()
    return directory / name


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _make_etc(directory: Path) -> None:
    etc = _below(directory, "etc")
    _write(etc / "passwd", PASSWD)
    _write(etc / "group", GROUP)


def _make_sizes(directory: Path) -> None:
    sizes = _below(directory, "sizes")
    for size in SIZES:
        _write(sizes / f"{size}", random_bytes(size, f"size {size}"))
    _write(sizes / "zeros", bytes(3 * CHUNK + 100))
    _write(sizes / "text", b"".join(b"line %d of a text\n" % number for number in range(50_000)))


def _make_sparse(directory: Path) -> None:
    """Holes at the start, in the middle (over whole chunks) and at the end."""
    with (directory / "sparse").open("wb") as file:
        for start in (CHUNK + 4096, 4 * CHUNK):
            file.seek(start)
            file.write(random_bytes(70_000, f"sparse {start}"))
        file.truncate(6 * CHUNK + 12_345)
    with (directory / "all-hole").open("wb") as file:
        file.truncate(CHUNK + 1)


def _make_many(directory: Path) -> None:
    many = _below(directory, "many")
    for number in range(5000):
        path = many / f"entry-{number:04}"
        if number % 50:
            path.touch()
        else:
            path.write_bytes(b"the content of %d\n" % number)


def _make_deep(directory: Path) -> None:
    bottom = directory.joinpath(*(f"level-{number}" for number in range(60)))
    bottom.mkdir(parents=True)
    _write(bottom / "bottom", b"down here\n")


def _make_names(directory: Path) -> None:
    names = _below(directory, "names")
    for name in NAMES:
        Path(os.fsdecode(os.fsencode(names) + b"/" + name)).write_bytes(b"this is " + name)
    odd = Path(os.fsdecode(os.fsencode(names) + b"/dir\xff\n "))
    odd.mkdir()
    _write(odd / "inside", b"a file in a directory with an odd name\n")


def _make_same(directory: Path) -> None:
    """Equal content three times over: twice as a file, once as another name of the first."""
    same = _below(directory, "same")
    content = random_bytes(CHUNK + 100_000, "same")
    first = _write(same / "first", content)
    _write(same / "copy", content)
    (same / "hard").hardlink_to(first)
    (directory / "hard-elsewhere").hardlink_to(first)


def _make_links(directory: Path) -> None:
    links = _below(directory, "links")
    targets = {
        "relative": "../etc/passwd",
        "absolute": "/etc/group",
        "dangling": "nowhere/at all",
        "directory": "../sizes",
        "self": "self",
        "long": "x" * 4095,
        "bytes": os.fsdecode(b"\xff\n\xfe"),
        "root": "/",
        "untidy": "./..//etc/./passwd/",
    }
    for name, target in targets.items():
        (links / name).symlink_to(target)


def _make_modes(directory: Path) -> None:
    """Modes of files and directories; 0755 and 0777 are among both so that ACIs could be mixed up."""
    modes = _below(directory, "modes")
    unreadable = (0o000, 0o111) if AS_ROOT else ()
    for mode in (*unreadable, 0o400, 0o644, 0o755, 0o777, 0o4755, 0o2755, 0o6755, 0o1644):
        _write(modes / f"file-{mode:04o}", b"mode %o\n" % mode).chmod(mode)
    for mode in (0o700, 0o755, 0o777, 0o1777, 0o2775, 0o775, 0o3770):
        _below(modes, f"dir-{mode:04o}").chmod(mode)
        _write(modes / f"dir-{mode:04o}" / "inside", b"in it\n")
    _below(modes, "dir-empty")


def _make_specials(directory: Path) -> None:
    specials = _below(directory, "specials")
    for name, kind in (("fifo", stat.S_IFIFO), ("socket", stat.S_IFSOCK)):
        os.mknod(specials / name, kind | 0o600)
        (specials / name).chmod(0o755 if name == "fifo" else 0o666)


def _make_devices(directory: Path) -> None:
    devices = _below(directory, "devices")
    for name, kind, major, minor in (
        ("null", stat.S_IFCHR, 1, 3),
        ("high-char", stat.S_IFCHR, 4095, 70_000),
        ("sda", stat.S_IFBLK, 8, 0),
        ("high-block", stat.S_IFBLK, 8, 300),
    ):
        os.mknod(devices / name, kind | 0o660, os.makedev(major, minor))


def _make_owners(directory: Path) -> None:
    owners = _below(directory, "owners")
    for name, owner in (("root", (0, 0)), ("builder", (BUILDER, BUILDER)), ("stranger", STRANGER)):
        path = _write(owners / name, b"mine: %s\n" % name.encode())
        os.chown(path, *owner)
        inside = _below(owners, f"{name}-dir")
        (inside / "link").symlink_to("..")
        for entry in (inside / "link", inside):
            os.chown(entry, *owner, follow_symlinks=False)
    mixed = _write(owners / "mixed-set-id", b"#!/bin/sh\n")
    os.chown(mixed, BUILDER, STRANGER[1])
    mixed.chmod(0o6711)  # a change of owner takes these bits away, so they come last


def _settle_times(directory: Path) -> None:
    """Give every entry a time of its own, the same on each run; a directory after all that is in it."""
    top = os.fsencode(directory)
    for path in reversed(list(_paths(top))):
        name = top + b"/" + path if path else top
        found = os.lstat(name)
        shared = found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode)
        moment = MODIFIED + (0 if shared else zlib.crc32(path) % 10**8) * SECOND
        os.utime(name, ns=(moment, moment), follow_symlinks=False)


def _make_times(times: Path) -> None:
    for name, seconds in TIMES.items():
        moment = seconds * SECOND + 999_999_999
        os.utime(times / name, ns=(moment, moment))
        assert (times / name).lstat().st_mtime_ns == moment, f"the file system cannot hold the time of {name}"


# The truth


@dataclass(frozen=True)
class Snap:
    """One entry as lstat and read tell it."""

    kind: Kind
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    nlink: int
    target: bytes | None = None
    device: tuple[int, int] | None = None
    sha256: str | None = None


def below(directory: Path) -> Iterator[Path]:
    """Walk all that is below a directory; unlike `Path.rglob` of Python 3.11, links are not looked behind."""
    for top, directories, files in os.walk(directory):
        yield from (Path(top, name) for name in (*directories, *files))


def snapshot(directory: Path) -> dict[bytes, Snap]:
    """Every entry of a tree by its path relative to it, the directory itself as b""."""
    top = os.fsencode(directory)
    return {path: _snap(top + b"/" + path if path else top) for path in _paths(top)}


def _paths(top: bytes) -> Iterator[bytes]:
    waiting = [b""]
    while waiting:
        below = waiting.pop()
        yield below
        with os.scandir(top + b"/" + below) as entries:
            for entry in entries:
                path = below + b"/" + entry.name if below else entry.name
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
                else:
                    yield path


def _snap(path: bytes) -> Snap:
    found = os.lstat(path)
    kind = _KINDS[stat.S_IFMT(found.st_mode)]
    return Snap(
        kind=kind,
        mode=stat.S_IMODE(found.st_mode),
        uid=found.st_uid,
        gid=found.st_gid,
        size=found.st_size,
        mtime_ns=found.st_mtime_ns,
        nlink=found.st_nlink,
        target=os.readlink(path) if kind == "link" else None,  # noqa: PTH115  Path would tidy the target up
        device=(os.major(found.st_rdev), os.minor(found.st_rdev)) if kind in {"block", "char"} else None,
        sha256=_digest(path) if kind == "file" else None,
    )


def _digest(path: bytes) -> str:
    with Path(os.fsdecode(path)).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Comparing


Ignored = Collection[str | tuple[bytes, str]]


@dataclass(frozen=True)
class Difference:
    """What a flist has otherwise than the tree it was made from."""

    path: bytes
    field: str
    got: object
    wanted: object

    def __str__(self) -> str:
        return f"{self.path!r}: {self.field} is {self.got!r}, wanted {self.wanted!r}"


def assert_flist_equals(
    nodes: Mapping[bytes, Node],
    snap: Mapping[bytes, Snap],
    get: Get,
    *,
    ignore: Ignored = (),
    fast: bool = False,
) -> None:
    """Every field and byte of the flist is what the format can hold of the snapshot.

    `ignore` holds names of fields, or pairs of a path and a field; `presence` is the field of an entry that
    only one side has, `content` that of a file's bytes. `fast` is `read_content`'s.
    """
    found = [each for each in differences(nodes, snap, get, fast=fast) if not _is_ignored(each, ignore)]
    if found:
        shown = "\n".join(f"  {each}" for each in found[:40])
        more = f"\n  and {len(found) - 40} more" if len(found) > 40 else ""
        raise AssertionError(f"the flist differs from the tree in {len(found)} places:\n{shown}{more}")


def _is_ignored(difference: Difference, ignore: Ignored) -> bool:
    return difference.field in ignore or (difference.path, difference.field) in ignore


def differences(
    nodes: Mapping[bytes, Node], snap: Mapping[bytes, Snap], get: Get, *, fast: bool = False
) -> Iterator[Difference]:
    """What `assert_flist_equals` complains of, in the order of the paths."""
    users, groups = (_accounts(nodes, get, file, fast=fast) for file in (b"etc/passwd", b"etc/group"))
    for path in sorted(nodes.keys() | snap.keys()):
        if path not in nodes or path not in snap:
            yield Difference(path, "presence", path in nodes, path in snap)
            continue
        got = nodes[path]
        for field, value in _wanted(snap[path], users, groups).items():
            if getattr(got, field) != value:
                yield Difference(path, field, getattr(got, field), value)
        if not 0 < got.ctime <= time.time() + 86_400:
            yield Difference(path, "ctime", got.ctime, "some time up to now")
        yield from _content_differences(path, got, snap[path], get, fast=fast)


def _wanted(snap: Snap, users: Mapping[int, bytes], groups: Mapping[int, bytes]) -> dict[str, object]:
    """The fields of the node that a snapshot's entry becomes: what the format cannot hold is rounded off."""
    sizes = {"dir": DIRECTORY_SIZE, "file": snap.size, "link": len(snap.target or b"")}
    return {
        "kind": snap.kind,
        "mode": 0o777 if snap.kind == "link" else snap.mode,
        "uid": snap.uid,
        "gid": snap.gid,
        "uname": _account_name(snap.uid, users),
        "gname": _account_name(snap.gid, groups),
        "size": sizes.get(snap.kind, 0),
        "mtime": min(max(snap.mtime_ns // SECOND, 0), LATEST),
        "target": snap.target,
        "device": snap.device,
    }


def _account_name(number: int, names: Mapping[int, bytes]) -> bytes:
    """The tree's own name for an account; where it has none, root for 0 and else the number."""
    return names.get(number, b"root" if number == 0 else b"%d" % number)


def _accounts(nodes: Mapping[bytes, Node], get: Get, path: bytes, *, fast: bool) -> dict[int, bytes]:
    """Names by number from the flist's own passwd or group; the first of several names counts."""
    node = nodes.get(path)
    if node is None or node.kind != "file":
        return {}
    try:
        lines = read_content(node, get, fast=fast).splitlines()
    except DefectError:
        return {}  # reported as a difference of the file's content
    names: dict[int, bytes] = {}
    for fields in (line.split(b":") for line in lines):
        if len(fields) > 2 and fields[2].isdigit():
            names.setdefault(int(fields[2]), fields[0])
    return names


def _content_differences(
    path: bytes, node: Node, snap: Snap, get: Get, *, fast: bool
) -> Iterator[Difference]:
    if node.kind != "file" or snap.kind != "file":
        return
    try:
        digest = hashlib.sha256(read_content(node, get, fast=fast)).hexdigest()
    except DefectError as defect:
        digest = str(defect)
    if digest != snap.sha256:
        yield Difference(path, "content", digest, snap.sha256)
