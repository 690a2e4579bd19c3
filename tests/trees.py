"""Trees to author flists from, the truth about them by lstat, and the comparison of a flist with it."""

from __future__ import annotations

import os
import random
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.independent_reader import CHUNK, Kind

AS_ROOT = os.geteuid() == 0
"""Whether `make_everything` makes devices, other owners' files and files that their owner cannot read."""

DIRECTORY_SIZE = 4096
LATEST = 2**32 - 1  # times in a flist are unsigned 32 bits
SECOND = 10**9
MODIFIED = 1_500_000_000 * SECOND + 123_456_789

BUILDER = 1000
STRANGER = (12345, 54321)

KINDS: dict[int, Kind] = {
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
    for path in reversed(list(paths_of(top))):
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


def paths_of(top: bytes) -> Iterator[bytes]:
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
