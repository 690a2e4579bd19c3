"""Faults of a catalog: whatever hangs or crashes a reader, or makes it lose an entry.

What readers do with each is known from trials with 0-fs of 2017 and of 2018. In the root's record the name is
arbitrary: old flists have that of the package there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from flistfs.errors import FormatError
from flistfs.format.base import Codec, Fault
from flistfs.format.faults import file_fault, target_fault
from flistfs.format.zeroos.dialect import Dialect
from flistfs.format.zeroos.limits import READERS_LIMIT, entries_size
from flistfs.format.zeroos.records import (
    BLOCK_SIZE_UNIT,
    Directory,
    Entry,
    File,
    Link,
    Special,
    SpecialKind,
    SubDirectory,
    decode_head,
)
from flistfs.tree.names import join, place_fault
from flistfs.tree.node import Access
from flistfs.tree.owners import id_fault

ELSEWHERE: Final = "its record belongs to another path"
"""The fault of a directory's record under the key of another path."""

_DEVICE: Final = re.compile(rb"(\d{1,10}),(\d{1,10})")


class _Catalog(Protocol):
    def get(self, key: bytes) -> bytes | None: ...
    def has(self, key: bytes) -> bool: ...


class RecordFaults:
    """Finds faults in the records of directories."""

    def __init__(
        self,
        catalog: _Catalog,
        dialect: Dialect,
        codec: Codec,
        access: Callable[[bytes], Access | FormatError | None],
    ) -> None:
        """Check a catalog; `access` returns the access of an ACI's key there."""
        self._catalog = catalog
        self._dialect = dialect
        self._keys = dialect.keys
        self._codec = codec
        self._access = access
        self._of_accesses: dict[bytes, str | None] = {}  # by key: most entries share one

    def of(self, path: bytes, directory: Directory) -> Iterator[Fault]:
        """Yield the faults of one directory and its entries."""
        yield from (Fault(path, what) for what in self._of_directory(path, directory))
        names: set[bytes] = set()
        for entry in directory.entries:
            child = join(path, entry.name)
            yield from (Fault(child, what) for what in self._of_entry(child, entry))
            if entry.name in names:
                yield Fault(child, "its name occurs twice")
            names.add(entry.name)

    def _of_directory(self, path: bytes, directory: Directory) -> Iterator[str]:
        """Yield the faults of a directory's own fields in its record."""
        parent, _, name = path.rpartition(b"/")
        if directory.location != path:
            yield ELSEWHERE
        if path and directory.name != name:
            yield "its record has another name: its parent cannot be listed"
        # What its entries take is all but exact; only where that is much is the record fetched once more.
        if entries_size(directory.entries, self._dialect.block_bytes) > READERS_LIMIT // 2:
            size = len(self._catalog.get(self._keys.directory(path)) or b"")
            if size > READERS_LIMIT:
                most = f"{READERS_LIMIT:,}"
                yield f"its record has {size:,} bytes, over {most}: listing its parent crashes the mount"
        wanted = self._keys.directory(parent) if path or self._dialect.root_first else directory.parent
        if directory.parent != wanted:
            yield "its record names another parent"
        if (fault := self._of_access(directory.aclkey)) is not None:
            yield fault

    def _of_entry(self, path: bytes, entry: Entry) -> Iterator[str]:
        if (fault := place_fault(path, entry.name)) is not None:
            yield fault
        match entry.attributes:
            case SubDirectory(key=key):
                yield from self._of_subdirectory(path, key)
                if self._dialect.complete_entries:
                    yield from self._of_both(entry.aclkey, key)
                return  # owner and mode are in its own record
            case Special() as special:
                yield from _special_faults(special)
            case attributes:
                if (fault := self._of_content(attributes, entry.size)) is not None:
                    yield fault
        if (fault := self._of_access(entry.aclkey)) is not None:
            yield fault

    def _of_content(self, attributes: File | Link | None, size: int) -> str | None:
        match attributes:
            case None:
                return f"it has no attributes: {self._dialect.without_directory}"
            case File(blocks, block_size):
                return file_fault(size, blocks, block_size * BLOCK_SIZE_UNIT, self._codec)
            case Link(target):
                return target_fault(target)

    def _of_subdirectory(self, path: bytes, key: bytes) -> Iterator[str]:
        try:
            is_there = bool(key) and self._catalog.has(key)
        except FormatError:
            return  # reported when the walk comes to that record
        if not is_there:
            yield f"its directory is not in the flist: {self._dialect.without_directory}"
        elif key != self._keys.directory(path):
            yield "its key is that of another path"

    def _of_both(self, aclkey: bytes, key: bytes) -> Iterator[str]:
        """Yield what is wrong with an entry that is to say the same as the record of its directory."""
        if not aclkey:
            yield "its entry has no owner and mode: zflist crashes, and rfs 1.x shows 0444"
            return
        try:
            record = self._catalog.get(key)
            own = record if record is None else decode_head(record).aclkey
        except FormatError:
            return  # reported when the walk comes to that record
        if own is not None and own != aclkey and self._access(own) != self._access(aclkey):
            yield "its entry and record differ in owner or mode: 0-fs shows the record's, others the entry's"

    def _of_access(self, key: bytes) -> str | None:
        if key not in self._of_accesses:
            self._of_accesses[key] = _access_fault(self._access(key))
        return self._of_accesses[key]


def device_numbers(data: bytes) -> tuple[int, int] | None:
    """Return the numbers (major, minor) of a device; None if they are invalid."""
    match = _DEVICE.fullmatch(data)
    if match is None:
        return None
    major, minor = int(match[1]), int(match[2])
    # Linux has 12 bits for the major number and 20 for the minor one.
    return (major, minor) if major < 1 << 12 and minor < 1 << 20 else None


def _access_fault(access: Access | FormatError | None) -> str | None:
    if isinstance(access, FormatError):
        return f"its owner and mode cannot be read: {access}"
    if access is None:
        return "its owner and mode are not in the flist: readers show mode 0400"
    return id_fault(access)


def _special_faults(special: Special) -> Iterator[str]:
    if special.kind is SpecialKind.UNKNOWN:
        yield "it is a special file of an unknown kind"
    elif special.kind in {SpecialKind.CHAR, SpecialKind.BLOCK} and device_numbers(special.data) is None:
        yield "it is a device without valid numbers: it vanishes"
    elif special.kind is SpecialKind.SOCKET and device_numbers(special.data) is not None:
        yield "it is a device that is stored as a socket, as zflist does: readers show a socket, or nothing"
