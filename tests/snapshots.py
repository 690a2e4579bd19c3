"""Trees as lstat and read tell them, and flists compared with them."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.both import read_file
from tests.independent_reader import DefectError, Get, Kind, Node
from tests.trees import DIRECTORY_SIZE, KINDS, LATEST, SECOND, paths_of


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
    return {path: _snap(top + b"/" + path if path else top) for path in paths_of(top)}


def _snap(path: bytes) -> Snap:
    found = os.lstat(path)
    kind = KINDS[stat.S_IFMT(found.st_mode)]
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
    only one side has, `content` that of a file's bytes. `fast` is `read_file`'s.
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
        lines = read_file(node, get, fast=fast).splitlines()
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
        digest = hashlib.sha256(read_file(node, get, fast=fast)).hexdigest()
    except DefectError as defect:
        digest = str(defect)
    if digest != snap.sha256:
        yield Difference(path, "content", digest, snap.sha256)
