"""A tree as a package of generation 2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from flistfs.format.metadata import BACKEND, without_backend
from flistfs.format.router import Router
from flistfs.format.sqlite.backend import backend_of
from flistfs.format.sqlite.catalog import CatalogWriter
from flistfs.format.zeroos.dialect import GENERATION_2
from flistfs.format.zeroos.package import Members
from flistfs.format.zeroos.writer import PackageWriter
from flistfs.tree.node import Access


class _Writer(PackageWriter):
    """A `TreeWriter` that says where blocks are in the metadata, too."""

    def __init__(
        self, directory: Path, members: Members, catalog: CatalogWriter, accesses: Iterable[Access]
    ) -> None:
        super().__init__(directory, members, catalog, GENERATION_2, accesses)
        self._database = catalog

    def finish(self, router: Router | None, metadata: Mapping[str, bytes], out: BinaryIO) -> None:
        """Complete the catalog and pack it; see `TreeWriter`."""
        self._database.add_metadata(all_metadata(metadata, router))
        super().finish(router, {}, out)


def all_metadata(metadata: Mapping[str, bytes], router: Router | None) -> dict[str, bytes]:
    """Return metadata with the server that the router names, if one has all blocks, in place of another."""
    others = without_backend(metadata)
    server = backend_of(router)
    return others if server is None else {BACKEND: server.encode(), **others}


@contextmanager
def opened_writer(directory: Path, members: Members, accesses: Iterable[Access]) -> Iterator[PackageWriter]:
    """Begin a package whose files are made in a directory; all accesses of its nodes are known beforehand."""
    with CatalogWriter(directory) as catalog:
        yield _Writer(directory, members, catalog, accesses)
