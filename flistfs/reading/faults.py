"""What must not be in an flist: what hangs or kills a reader, or makes it lose an entry.

What readers do with each is known from trials with 0-fs of 2017 and of 2018. In the root's record the name is
free: old flists have that of the package there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from flistfs.errors import FormatError
from flistfs.format.zeroos.keys import directory_key
from flistfs.format.zeroos.limits import READERS_LIMIT, entries_size
from flistfs.format.zeroos.records import (
    BLOCK_SIZE_UNIT,
    Attributes,
    Directory,
    Entry,
    File,
    Link,
    Special,
    SpecialKind,
    SubDirectory,
)
from flistfs.reading.flist import Flist
from flistfs.tree.chunks import BlockRef
from flistfs.tree.names import MAX_TARGET, join, place_fault
from flistfs.tree.owners import id_fault

ROUTER: Final = b"router.yaml"
"""What stands for the path where the package's router is at fault."""

_BLOCK_NAME: Final = re.compile(rb"[0-9a-f]{64}")
_DEVICE: Final = re.compile(rb"(\d{1,10}),(\d{1,10})")


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong at a path."""

    path: bytes
    what: str


def package_faults(flist: Flist) -> Iterator[Fault]:
    """Say why readers would refuse the package for how it is packed or for its router, if they would."""
    yield from (Fault(b"", what) for what in flist.package_faults)
    try:
        flist.router()
    except FormatError as error:
        yield Fault(ROUTER, str(error))


def record_faults(flist: Flist, path: bytes, directory: Directory | FormatError) -> Iterator[Fault]:
    """Yield each fault of one directory and its entries, as `directories` gives it; asks for no block."""
    if isinstance(directory, FormatError):
        yield Fault(path, str(directory))
        return
    yield from (Fault(path, what) for what in directory_faults(flist, path, directory))
    names: set[bytes] = set()
    for entry in directory.entries:
        child = join(path, entry.name)
        yield from (Fault(child, what) for what in entry_faults(flist, path, entry))
        if entry.name in names:
            yield Fault(child, "its name is there twice")
        names.add(entry.name)


def directories(flist: Flist) -> Iterator[tuple[bytes, Directory | FormatError]]:
    """Walk all directories, parents first; a damaged record is yielded as its error, and passed over.

    A directory whose record is not there is passed over as well: its entry is at fault.
    """
    waiting = [b""]
    while waiting:
        path = waiting.pop()
        directory = _read(flist, path)
        if directory is None:
            continue
        yield path, directory
        if isinstance(directory, FormatError):
            continue
        names = {entry.name for entry in directory.entries if isinstance(entry.attributes, SubDirectory)}
        below = [(join(path, name), name) for name in sorted(names, reverse=True)]
        waiting += [child for child, name in below if place_fault(child, name) is None]


def _read(flist: Flist, path: bytes) -> Directory | FormatError | None:
    try:
        directory = flist.directory(path)
    except FormatError as error:
        return error
    if directory is None and not path:
        return FormatError("there is no root directory")
    return directory


def directory_faults(flist: Flist, path: bytes, directory: Directory) -> Iterator[str]:
    """Say what is wrong with what a directory's record says of the directory itself."""
    parent, _, name = path.rpartition(b"/")
    if directory.location != path:
        yield "its record says that it is elsewhere"
    if path and directory.name != name:
        yield "its record has another name: its parent cannot be listed"
    # What its entries take is all but exact; only where that is much is the record fetched for it once more.
    if entries_size(directory.entries) > READERS_LIMIT // 2:
        size = flist.record_size(path)
        if size > READERS_LIMIT:
            yield f"its record has {size:,} bytes, over {READERS_LIMIT:,}: listing its parent kills the mount"
    if path and directory.parent != directory_key(parent):
        yield "its record names another parent"
    yield from _aci_faults(flist, directory.aclkey)


def entry_faults(flist: Flist, parent: bytes, entry: Entry) -> Iterator[str]:
    """Say what is wrong with an entry of the directory at `parent`."""
    path = join(parent, entry.name)
    if (fault := place_fault(path, entry.name)) is not None:
        yield fault
    match entry.attributes:
        case SubDirectory(key=key):
            yield from _subdirectory_faults(flist, path, key)
            return  # owner and mode are in its own record
        case Special() as special:
            yield from _special_faults(special)
        case attributes:
            if (fault := content_fault(attributes, entry.size)) is not None:
                yield fault
    yield from _aci_faults(flist, entry.aclkey)


def content_fault(attributes: Attributes | None, size: int) -> str | None:
    """Say why a file cannot be read, a link not followed, or what is there not be mounted at all."""
    match attributes:
        case None:
            return "it has no attributes: the whole flist cannot be mounted"
        case File() as file:
            return _file_fault(file, size)
        case Link(target=target):
            if not target or b"\0" in target:
                return "its target is none that a link can have"
            if len(target) > MAX_TARGET:
                return f"its target has {len(target)} bytes, more than {MAX_TARGET}"
    return None


def _file_fault(file: File, size: int) -> str | None:
    if not size and not file.blocks:
        return None
    if not file.block_size:
        return "its block size is 0: reading it never ends"
    if not file.blocks:
        return f"it has {size} bytes but no blocks: reading it never ends"
    wanted = -(-size // (file.block_size * BLOCK_SIZE_UNIT))
    if len(file.blocks) != wanted:
        return f"it has {len(file.blocks)} blocks instead of the {wanted} that {size} bytes make"
    if any(not block.hash for block in file.blocks):
        return "it has a block with an empty hash: the whole flist cannot be mounted"
    if not all(map(is_block_name, file.blocks)):
        return "it has a block whose hash or key is no hash: reading it never ends"
    return None


def is_block_name(block: BlockRef) -> bool:
    """Say whether hash and key are what blocks have; no store is asked for others."""
    return bool(_BLOCK_NAME.fullmatch(block.hash) and _BLOCK_NAME.fullmatch(block.key))


def device_numbers(special: Special) -> tuple[int, int] | None:
    """Return the numbers (major, minor) of a device; None if it has none that a device can have."""
    match = _DEVICE.fullmatch(special.data)
    if match is None:
        return None
    major, minor = int(match[1]), int(match[2])
    # Linux has 12 bits for one and 20 for the other.
    return (major, minor) if major < 1 << 12 and minor < 1 << 20 else None


def _special_faults(special: Special) -> Iterator[str]:
    if special.kind is SpecialKind.UNKNOWN:
        yield "it is a special file of no known kind"
    elif special.kind in {SpecialKind.CHAR, SpecialKind.BLOCK} and device_numbers(special) is None:
        yield "it is a device without proper numbers: it vanishes"


def _subdirectory_faults(flist: Flist, path: bytes, key: bytes) -> Iterator[str]:
    try:
        is_there = bool(key) and flist.has(key)
    except FormatError:
        return  # the walk comes to that record, and says so
    if not is_there:
        yield "its directory is not in the flist: the whole flist cannot be mounted"
    elif key != directory_key(path):
        yield "its key is that of another path"


def _aci_faults(flist: Flist, key: bytes) -> Iterator[str]:
    try:
        aci = flist.aci_of(key)
    except FormatError as error:
        yield f"its owner and mode cannot be read: {error}"
        return
    if aci is None:
        yield "its owner and mode are not in the flist: readers show mode 0400"
    elif (fault := id_fault(aci)) is not None:
        yield fault
