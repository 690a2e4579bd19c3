"""A catalog of generation 1 or 2 as a tree. Listing a directory reads one record, not the catalog."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

from flistfs.errors import FormatError
from flistfs.format.base import Codec, Fault
from flistfs.format.faults import ALL_FAULTS, LostRecordError, damaged
from flistfs.format.zeroos.acis import access_of
from flistfs.format.zeroos.dialect import Dialect
from flistfs.format.zeroos.faults import ELSEWHERE, RecordFaults, device_numbers
from flistfs.format.zeroos.package import ROUTER_FILE
from flistfs.format.zeroos.records import (
    BLOCK_SIZE_UNIT,
    Directory,
    Entry,
    File,
    Link,
    Special,
    SpecialKind,
    SubDirectory,
    decode_aci,
    decode_directory,
    decode_head,
)
from flistfs.tree.names import join
from flistfs.tree.node import Access, Kind, Node
from flistfs.util.closing import Closing
from flistfs.util.scratch import Scratch

if TYPE_CHECKING:
    from flistfs.format.router import Router

_NO_METADATA: Final[Mapping[str, bytes]] = MappingProxyType({})

# Some 300 bytes each.
_KEPT_HEADS: Final = 10_000

_KINDS: Final = {
    SpecialKind.SOCKET: Kind.SOCKET,
    SpecialKind.BLOCK: Kind.BLOCK,
    SpecialKind.CHAR: Kind.CHAR,
    SpecialKind.FIFO: Kind.FIFO,
}


class Catalog(Protocol):
    """The database of records inside an flist."""

    @property
    def estimated_records(self) -> int:
        """The approximate number of records."""

    def get(self, key: bytes) -> bytes | None:
        """Return a record; None if there is none. Raises FormatError if the catalog is damaged there."""

    def has(self, key: bytes) -> bool:
        """Return whether there is a record, in time independent of its size; raises as `get`."""

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all records with their keys. Raises FormatError where the catalog is damaged."""

    def close(self) -> None:
        """Close it."""


class CatalogReader(Closing):
    """A `TreeReader` of a catalog and its router."""

    def __init__(
        self,
        catalog: Catalog,
        scratch: Scratch,
        dialect: Dialect,
        codec: Codec,
        package_faults: Sequence[str],
        metadata: Mapping[str, bytes] = _NO_METADATA,
    ) -> None:
        """Read a catalog in `scratch`, with its router; `close` closes both."""
        self.package_faults = package_faults
        self.metadata = metadata
        self._catalog = catalog
        self._scratch = scratch
        self._keys = dialect.keys
        self._byte_ranges = dialect.byte_ranges
        self._directory_key_size = len(dialect.keys.directory(b""))
        self._accesses: dict[bytes, Access | FormatError | None] = {}
        self._faults = RecordFaults(catalog, dialect, codec, self._access, self._head)
        # Those that were looked at for faults, until the walk comes to their directories.
        self._heads: dict[bytes, Directory | None] = {}
        # Looking for faults after a listing, or the other way round, decodes a record once.
        self._latest: tuple[bytes, Directory] | None = None

    @property
    def estimated_directories(self) -> int:
        """The approximate number of directories: ACIs are few."""
        return self._catalog.estimated_records

    def router(self) -> Router | None:
        """Return what the router.yaml says, if there is one; see `TreeReader`."""
        # Listing entries needs no router.
        from flistfs.format.router import MAX_SIZE, as_taken_in_bytes, parse_router  # noqa: PLC0415

        path: Path = self._scratch.path / ROUTER_FILE
        try:
            with path.open("rb") as file:
                router = parse_router(file.read(MAX_SIZE + 1))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FormatError(f"router.yaml cannot be read: {error.strerror}") from error
        return as_taken_in_bytes(router) if self._byte_ranges else router

    def directory(self, path: bytes) -> Node | None:
        """Return a directory from its own record, without decoding its entries, which saves time."""
        key = self._keys.directory(path)
        head = self._heads.pop(key) if key in self._heads else self._fetched_head(key)
        if head is None:
            return None
        if head.location != path:  # bounds any walk by the number of records
            raise FormatError(ELSEWHERE)
        held = self._held(path, head.aclkey)
        return Node(path, Kind.DIRECTORY, held, head.size, head.modification_time, head.creation_time)

    def listing(self, path: bytes) -> list[Node] | None:
        """Return the entries of a directory; see `TreeReader`."""
        directory = self._directory(path)
        if directory is None:
            return None
        if directory.location != path:
            raise FormatError(ELSEWHERE)
        return [self._node(path, entry) for entry in sorted(directory.entries, key=_name)]

    def faults(self, path: bytes) -> Iterator[Fault]:
        """Yield the faults of a directory's record; see `TreeReader`."""
        try:
            directory = self._directory(path)
        except LostRecordError as error:
            yield self._faults.of_lost(path, error)
            return
        if directory is None:
            raise FormatError("there is no such directory" if path else "there is no root directory")
        yield from self._faults.of(path, directory)

    def read_past(self, path: bytes) -> Iterator[Fault]:
        """Yield what reading goes past in a directory's record; see `TreeReader`."""
        try:
            directory = self._directory(path)
        except LostRecordError as error:
            yield self._faults.of_lost(path, error)
            return
        if directory is not None:
            yield from self._faults.read_past(path, directory)

    def files(self) -> Iterator[Node]:
        """Yield the files of all records, in the order of the catalog."""
        for key, raw in self._catalog.items():
            if len(key) != self._directory_key_size:  # an ACI's
                continue
            try:
                directory = decode_directory(raw)
            except FormatError as error:
                raise FormatError(f"a directory is damaged: {error} ({ALL_FAULTS})") from error
            for entry in directory.entries:
                if isinstance(entry.attributes, File):
                    yield self._node(directory.location, entry)

    def close(self) -> None:
        """Close the catalog and remove the temporary directory."""
        self._catalog.close()
        self._scratch.close()

    def _head(self, key: bytes) -> Directory | None:
        """Return the head of a record, and keep it for `directory`; None if there is no record."""
        if key in self._heads:
            return self._heads[key]
        if len(self._heads) >= _KEPT_HEADS:
            self._heads.clear()
        head = self._heads[key] = self._fetched_head(key)
        return head

    def _fetched_head(self, key: bytes) -> Directory | None:
        raw = self._catalog.get(key)
        return None if raw is None else decode_head(raw)

    def _directory(self, path: bytes) -> Directory | None:
        if self._latest is not None and self._latest[0] == path:
            return self._latest[1]
        self._latest = None
        raw = self._catalog.get(self._keys.directory(path))
        if raw is None:
            return None
        directory = decode_directory(raw)
        self._latest = path, directory
        return directory

    def _node(self, directory: bytes, entry: Entry) -> Node:
        path = join(directory, entry.name)
        held = self._held(path, entry.aclkey)
        size, mtime, ctime = entry.size, entry.modification_time, entry.creation_time
        attributes = entry.attributes
        if isinstance(attributes, File):  # isinstance, by frequency: match statements take twice as long
            chunk_size = attributes.block_size * BLOCK_SIZE_UNIT
            return Node(path, Kind.FILE, held, size, mtime, ctime, None, None, attributes.blocks, chunk_size)
        if isinstance(attributes, SubDirectory):
            return Node(path, Kind.DIRECTORY, held, size, mtime, ctime, whole=False)
        if isinstance(attributes, Link):
            return Node(path, Kind.LINK, held, size, mtime, ctime, attributes.target)
        if isinstance(attributes, Special):
            kind, device = _KINDS.get(attributes.kind, Kind.UNKNOWN), device_numbers(attributes.data)
            return Node(path, kind, held, size, mtime, ctime, None, device)
        return Node(path, Kind.UNKNOWN, held, size, mtime, ctime)

    def _held(self, path: bytes, key: bytes) -> Access | FormatError | None:
        held = self._accesses[key] if key in self._accesses else self._access(key)
        return damaged(path, held) if isinstance(held, FormatError) else held

    def _access(self, key: bytes) -> Access | FormatError | None:
        """Return the access of an ACI's key; None if the flist lacks it; an error if it cannot be read."""
        try:
            return self._accesses[key]
        except KeyError:
            pass
        held: Access | FormatError | None
        try:
            raw = self._catalog.get(key)
            held = None if raw is None else access_of(decode_aci(raw))
        except FormatError as error:
            held = error
        self._accesses[key] = held
        return held


def _name(entry: Entry) -> bytes:
    return entry.name
