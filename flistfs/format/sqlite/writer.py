"""A tree as a package of generation 2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from flistfs.format.router import Router
from flistfs.format.sqlite import backend
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

    def finish(self, router: Router | None, out: BinaryIO) -> None:
        """Complete the catalog and pack it; see `TreeWriter`."""
        if (value := backend.backend_of(router)) is not None:
            self._database.add_metadata(backend.KEY, value)
        super().finish(router, out)


@contextmanager
def opened_writer(directory: Path, members: Members, accesses: Iterable[Access]) -> Iterator[PackageWriter]:
    """Begin a package whose files are made in a directory; all accesses of its nodes are known beforehand."""
    with CatalogWriter(directory) as catalog:
        yield _Writer(directory, members, catalog, accesses)
