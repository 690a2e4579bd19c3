"""Faults of a catalog: whatever hangs or crashes a reader, or makes it lose an entry.

What readers do with each is known from trials with 0-fs of 2017 and of 2018. In the root's record the name is
arbitrary: old flists have that of the package there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol, TypeAlias

from flistfs.errors import FormatError
from flistfs.format.base import Codec, Fault
from flistfs.format.faults import Defect, LostRecordError, file_fault, target_fault
from flistfs.format.zeroos.acis import aci_of
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
)
from flistfs.tree.names import join, place_fault, printable
from flistfs.tree.node import Access
from flistfs.tree.owners import id_fault

ELSEWHERE: Final = "its record belongs to another path"
"""The fault of a directory's record under the key of another path."""

_DEVICE: Final = re.compile(rb"(\d{1,10}),(\d{1,10})")

# What is wrong, and as which defect readers take it, if they differ in what they make of it.
_What: TypeAlias = tuple[str, Defect | None]


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
        head: Callable[[bytes], Directory | None],
    ) -> None:
        """Check a catalog; `access` returns the access of an ACI's key there, `head` that of a record."""
        self._catalog = catalog
        self._dialect = dialect
        self._keys = dialect.keys
        self._codec = codec
        self._access = access
        self._head = head
        self._of_accesses: dict[bytes, _What | None] = {}  # by key: most entries share one
        self._shared: dict[bytes, bool] = {}

    def of(self, path: bytes, directory: Directory) -> Iterator[Fault]:
        """Yield the faults of one directory and its entries."""
        yield from (self._fault(path, *what) for what in self._of_directory(path, directory))
        names: set[bytes] = set()
        for entry in directory.entries:
            child = join(path, entry.name)
            yield from (self._fault(child, *what) for what in self._of_entry(child, entry))
            if entry.name in names:
                yield Fault(child, "its name occurs twice")
            names.add(entry.name)

    def read_past(self, path: bytes, directory: Directory) -> Iterator[Fault]:
        """Yield those that reading goes past. Every walk looks for them: 5 % of it, where `of` takes 40."""
        found = [self._fault(path, *what) for what in self._of_shared(directory)]
        for entry in directory.entries:
            attributes = entry.attributes
            whats: Iterable[_What] = ()
            if isinstance(attributes, File):
                if entry.size > len(attributes.blocks) * attributes.block_size * BLOCK_SIZE_UNIT:
                    whats = self._of_content(attributes, entry.size)
            elif isinstance(attributes, SubDirectory):
                if entry.aclkey:
                    whats = self._of_both(entry.aclkey, attributes.key)
            elif isinstance(attributes, Special):
                whats = _of_special(attributes)
            found += [self._fault(join(path, entry.name), *what) for what in whats]
        return (fault for fault in found if fault.is_read_past)

    def of_lost(self, path: bytes, error: LostRecordError) -> Fault:
        """Return the fault of a directory whose record is lost."""
        return self._fault(path, str(error), Defect.LOST_RECORD)

    def _fault(self, path: bytes, what: str, defect: Defect | None = None) -> Fault:
        if defect is None:
            return Fault(path, what)
        consequence = self._dialect.consequences.get(defect)
        said = what if consequence is None else f"{what}: {consequence}"
        return Fault(path, said, defect in self._dialect.read_past)

    def _of_directory(self, path: bytes, directory: Directory) -> Iterator[_What]:
        """Yield the faults of a directory's own fields in its record, and of all its entries together."""
        parent, _, name = path.rpartition(b"/")
        if directory.location != path:
            yield ELSEWHERE, None
        if path and directory.name != name:
            yield f"its record has another name ({printable(directory.name)})", Defect.OTHER_NAME
        # What its entries take is all but exact; only where that is much is the record fetched once more.
        if entries_size(directory.entries, self._dialect.block_bytes) > READERS_LIMIT // 2:
            size = len(self._catalog.get(self._keys.directory(path)) or b"")
            if size > READERS_LIMIT:
                yield f"its record has {size:,} bytes, over {READERS_LIMIT:,}", Defect.LARGE_RECORD
        wanted = self._keys.directory(parent) if path or self._dialect.root_first else directory.parent
        if directory.parent != wanted:
            yield "its record names another parent", None
        yield from self._of_access(directory.aclkey)
        if self._dialect.specials_last and (behind := _behind_special(directory)):
            yield f"of its entries {behind:,} come after a special file", Defect.BEHIND_SPECIAL
        yield from self._of_shared(directory)

    def _of_shared(self, directory: Directory) -> Iterator[_What]:
        shared = {key for key in {entry.aclkey for entry in directory.entries} if self._is_shared(key)}
        if shared:
            count = sum(entry.aclkey in shared for entry in directory.entries)
            yield f"of its entries {count:,} may have the mode of others", Defect.SHARED_ACCESS

    def _of_entry(self, path: bytes, entry: Entry) -> Iterator[_What]:
        if (fault := place_fault(path, entry.name)) is not None:
            yield fault, Defect.INVALID_NAME if b"/" in entry.name else None
        match entry.attributes:
            case SubDirectory(key=key):
                yield from self._of_subdirectory(path, key)
                if self._dialect.complete_entries:
                    yield from self._of_both(entry.aclkey, key)
                return  # owner and mode are in its own record
            case Special() as special:
                yield from _of_special(special)
            case attributes:
                yield from self._of_content(attributes, entry.size)
        yield from self._of_access(entry.aclkey)

    def _of_content(self, attributes: File | Link | None, size: int) -> Iterator[_What]:
        match attributes:
            case None:
                yield "it has no attributes", Defect.NO_ATTRIBUTES
            case File(blocks, block_size):
                fault = file_fault(size, blocks, block_size * BLOCK_SIZE_UNIT, self._codec)
                if fault is not None:
                    yield fault.what, fault.defect
            case Link(target):
                if (what := target_fault(target)) is not None:
                    yield what, None

    def _of_subdirectory(self, path: bytes, key: bytes) -> Iterator[_What]:
        try:
            is_there = bool(key) and self._catalog.has(key)
        except FormatError:
            return  # reported when the walk comes to that record
        if not is_there:
            yield "its directory is not in the flist", Defect.NO_DIRECTORY
        elif key != self._keys.directory(path):
            yield "its key is that of another path", None

    def _of_both(self, aclkey: bytes, key: bytes) -> Iterator[_What]:
        """Yield what is wrong with an entry that is to say the same as the record of its directory."""
        if not aclkey:
            yield "its entry has no owner and mode: zflist crashes, and rfs 1.x shows 0444", None
            return
        try:
            head = self._head(key)
        except FormatError:
            return  # reported when the walk comes to that record
        own = aclkey if head is None else head.aclkey
        if own != aclkey and self._access(own) != self._access(aclkey):
            yield "its entry and record differ in owner or mode", Defect.TWO_ACCESSES

    def _of_access(self, key: bytes) -> Iterator[_What]:
        if key not in self._of_accesses:
            self._of_accesses[key] = _access_fault(self._access(key))
        if (what := self._of_accesses[key]) is not None:
            yield what

    def _is_shared(self, key: bytes) -> bool:
        """Return whether ACIs of other modes had the same key, of which only the first was stored."""
        if key not in self._shared:
            access = self._access(key)
            self._shared[key] = isinstance(access, Access) and self._keys.is_ambiguous(
                key, aci_of(access, typed=True)
            )
        return self._shared[key]


def device_numbers(data: bytes) -> tuple[int, int] | None:
    """Return the numbers (major, minor) of a device; None if they are invalid."""
    match = _DEVICE.fullmatch(data)
    if match is None:
        return None
    major, minor = int(match[1]), int(match[2])
    # Linux has 12 bits for the major number and 20 for the minor one.
    return (major, minor) if major < 1 << 12 and minor < 1 << 20 else None


def _access_fault(access: Access | FormatError | None) -> _What | None:
    if isinstance(access, FormatError):
        return f"its owner and mode cannot be read: {access}", None
    if access is None:
        return "its owner and mode are not in the flist", Defect.NO_ACCESS
    fault = id_fault(access)
    return None if fault is None else (fault, None)


def _of_special(special: Special) -> Iterator[_What]:
    if special.kind is SpecialKind.UNKNOWN:
        yield "it is a special file of an unknown kind", None
    elif special.kind in {SpecialKind.CHAR, SpecialKind.BLOCK} and device_numbers(special.data) is None:
        yield "it is a device without valid numbers: it vanishes", None
    elif special.kind is SpecialKind.SOCKET and device_numbers(special.data) is not None:
        yield "it is a device that is stored as a socket", Defect.DEVICE_AS_SOCKET


def _behind_special(directory: Directory) -> int:
    """Count the entries that come after a special file, and are none."""
    behind = 0
    after = False
    for entry in directory.entries:
        if isinstance(entry.attributes, Special):
            after = True
        elif after:
            behind += 1
    return behind
