"""Write a tree as a catalog of generation 1 or 2: records in the order of their keys, and a router."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from flistfs.format.router import Router, format_router, in_whole_bytes, without_namespaces
from flistfs.format.zeroos.acis import AciTable
from flistfs.format.zeroos.dialect import Dialect
from flistfs.format.zeroos.limits import check_record, entries_size
from flistfs.format.zeroos.package import ROUTER_FILE, Members, write_package
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
    encode_directory,
)
from flistfs.tree.names import printable
from flistfs.tree.node import Access, Kind, Node

_SPECIAL_KINDS: Final = {
    Kind.SOCKET: SpecialKind.SOCKET,
    Kind.BLOCK: SpecialKind.BLOCK,
    Kind.CHAR: SpecialKind.CHAR,
    Kind.FIFO: SpecialKind.FIFO,
}


class CatalogWriter(Protocol):
    """A catalog being written: takes records in ascending order of keys."""

    def add(self, key: bytes, record: bytes) -> None:
        """Add a record. Raises FormatError if its key does not come after the last one."""

    def finish(self) -> None:
        """Complete the files. Raises FormatError if there are no records, OSError if a disk is full."""


class PackageWriter:
    """A `TreeWriter` of a catalog, packed as a gzipped tar of the files in one directory."""

    def __init__(
        self,
        directory: Path,
        members: Members,
        catalog: CatalogWriter,
        dialect: Dialect,
        accesses: Iterable[Access],
    ) -> None:
        """Write the catalog's files to `directory`; `accesses` are all those of its nodes."""
        self._directory = directory
        self._members = members
        self._catalog = catalog
        self._dialect = dialect
        self._keys = dialect.keys
        self._acis = AciTable(accesses, dialect.keys)
        self._waiting = deque(self._acis.records())  # they lie among the directories, by key

    def position(self, path: bytes) -> bytes:
        """Return the key of a directory's record; the root's place may be before all others."""
        return self._keys.directory(path) if path or not self._dialect.root_first else b""

    def add(self, directory: Node, children: Iterable[Sequence[Node]]) -> None:
        """Add a directory; one with too many entries is rejected before they exhaust memory."""
        path, shown = directory.path, printable(directory.path) or "/"
        parent, _, name = path.rpartition(b"/")
        entries: list[Entry] = []
        size = 0
        for nodes in children:
            part = [self._entry(node) for node in nodes]
            size += entries_size(part, self._dialect.block_bytes)
            check_record(shown, size, self._dialect.max_file_size)
            entries += part
        if self._dialect.specials_last:
            entries.sort(key=_is_special)
        record = encode_directory(
            Directory(
                name=name,
                location=path,
                entries=entries,
                parent=self._keys.directory(parent) if path or self._dialect.root_first else b"",
                size=directory.size,
                aclkey=self._key_of(directory),
                modification_time=directory.mtime,
                creation_time=directory.ctime,
            )
        )
        check_record(shown, len(record), self._dialect.max_file_size)
        key, position = self._keys.directory(path), self.position(path)
        while self._waiting and self._waiting[0][0] < position:
            self._catalog.add(*self._waiting.popleft())
        self._catalog.add(key, record)

    def finish(self, router: Router | None, metadata: Mapping[str, bytes], out: BinaryIO) -> None:
        """Complete the catalog and pack it, with the router."""
        assert not metadata  # noqa: S101  who has a place for it overrides this
        for key, record in self._waiting:
            self._catalog.add(key, record)
        self._catalog.finish()
        if router is not None:
            write_router(router, self._directory, self._dialect)
        write_package(self._directory, self._members, out)

    def _entry(self, node: Node) -> Entry:
        if node.kind is not Kind.DIRECTORY:
            return Entry(node.name, node.size, _attributes(node), self._key_of(node), node.mtime, node.ctime)
        attributes = SubDirectory(self._keys.directory(node.path))
        if not self._dialect.complete_entries:  # the rest of a sub-directory is in its own record
            return Entry(node.name, 0, attributes, b"", 0, 0)
        return Entry(node.name, node.size, attributes, self._key_of(node), node.mtime, node.ctime)

    def _key_of(self, node: Node) -> bytes:
        access = node.access
        assert access is not None  # noqa: S101  for the type checker: a node without one has a fault
        return self._acis.key(access)


def write_router(router: Router, directory: Path, dialect: Dialect) -> None:
    """Write the router.yaml of a package beside its catalog, if its readers can use any of the servers."""
    # 0-fs, which alone reads it, ignores a namespace: it would look for the blocks in another.
    usable = without_namespaces(router)
    if usable is not None:
        usable = in_whole_bytes(usable) if dialect.byte_ranges else usable
        (directory / ROUTER_FILE).write_bytes(format_router(usable))


def _is_special(entry: Entry) -> bool:
    return isinstance(entry.attributes, Special)


def _attributes(node: Node) -> Attributes:
    if node.kind is Kind.FILE:
        return File(node.blocks, node.chunk_size // BLOCK_SIZE_UNIT)
    if node.kind is Kind.LINK:
        return Link(node.target or b"")
    return Special(_SPECIAL_KINDS[node.kind], b"%d,%d" % node.device if node.device else b"")
