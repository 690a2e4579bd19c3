"""A sealed flist: open it, look a path up, list a directory. Each reads one record, not the catalog."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from flistfs.errors import FormatError
from flistfs.format.catalog import Catalog
from flistfs.format.keys import directory_key
from flistfs.format.package import unpack_package
from flistfs.format.records import Aci, Directory, Entry, SubDirectory, decode_aci, decode_directory
from flistfs.format.router import Router, parse_router

# The other records are ACIs, whose keys are half as long.
_DIRECTORY_KEY_SIZE = 64


@dataclass(frozen=True, slots=True)
class Node:
    """Something in an flist: an entry, or a directory with its own record."""

    path: bytes
    entry: Entry
    directory: Directory | None = None

    @property
    def aclkey(self) -> bytes:
        """The key of its ACI."""
        return self.entry.aclkey if self.directory is None else self.directory.aclkey

    @property
    def modification_time(self) -> int:
        """Whole seconds since 1970."""
        return (self.entry if self.directory is None else self.directory).modification_time


class Flist:
    """An open flist; a context manager."""

    def __init__(self, catalog: Catalog, folder: tempfile.TemporaryDirectory[str]) -> None:
        self._catalog = catalog
        self._folder = folder
        self._acis: dict[bytes, Aci] = {}

    @classmethod
    def open(cls, package: Path) -> Self:
        """Open a package; it is unpacked into a temporary folder.

        Raises:
            FormatError: it is not there, damaged, or no flist.
        """
        folder = tempfile.TemporaryDirectory(prefix="flistfs-")
        try:
            unpack_package(package, Path(folder.name))
            return cls(Catalog.open(Path(folder.name)), folder)
        except BaseException:
            folder.cleanup()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close it and remove the temporary folder."""
        self._catalog.close()
        self._folder.cleanup()

    def router(self) -> Router | None:
        """Return what the package says of where its blocks are; None if it says nothing.

        Raises:
            FormatError: its router.yaml is none.
        """
        file = Path(self._folder.name) / "router.yaml"
        return parse_router(file.read_bytes()) if file.exists() else None

    def directories(self) -> Iterator[Directory]:
        """Walk the records of all directories, in no order that means anything.

        Raises:
            FormatError: one is damaged.
        """
        for key, raw in self._catalog.items():
            if len(key) == _DIRECTORY_KEY_SIZE:
                yield decode_directory(raw)

    def directory(self, path: bytes) -> Directory | None:
        """Return the record of the directory at `path` (no slash at either end; the root is empty)."""
        raw = self._catalog.get(directory_key(path))
        return None if raw is None else decode_directory(raw)

    def find(self, path: bytes) -> Node:
        """Look a path up, without following links.

        Raises:
            FormatError: there is nothing of that name.
        """
        path = path.strip(b"/")
        directory = self.directory(path)
        parent, _, name = path.rpartition(b"/")
        if directory is not None:
            return Node(path, Entry(name, 0, SubDirectory(directory_key(path)), b"", 0, 0), directory)
        for entry in self.entries(parent):
            if entry.name == name:
                return Node(path, entry)
        raise FormatError(f"there is no {path.decode(errors='backslashreplace')!r} in this flist")

    def entries(self, path: bytes) -> list[Entry]:
        """Return the entries of a directory, by name; none if there is no such directory."""
        directory = self.directory(path)
        return [] if directory is None else sorted(directory.entries, key=lambda entry: entry.name)

    def children(self, path: bytes) -> Iterator[Node]:
        """Walk the entries of a directory by name, sub-directories with their records."""
        for entry in self.entries(path):
            child = path + b"/" + entry.name if path else entry.name
            is_folder = isinstance(entry.attributes, SubDirectory)
            yield Node(child, entry, self.directory(child) if is_folder else None)

    def aci(self, node: Node) -> Aci | None:
        """Return what is known of a node's owner and mode; None if the flist lacks it."""
        key = node.aclkey
        if key not in self._acis:
            raw = self._catalog.get(key)
            if raw is None:
                return None
            self._acis[key] = decode_aci(raw)
        return self._acis[key]
