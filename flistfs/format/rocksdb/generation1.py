"""The format of 2017: a RocksDB catalog, and blocks of generation 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from flistfs.format.base import Format, Limits, TreeReader, TreeWriter
from flistfs.format.codecs import Generation1
from flistfs.format.rocksdb.catalog import Catalog, CatalogWriter
from flistfs.format.rocksdb.package import MEMBERS
from flistfs.format.zeroos.dialect import GENERATION_1
from flistfs.format.zeroos.limits import MAX_FILE_SIZE
from flistfs.format.zeroos.opening import open_catalog, put_router
from flistfs.format.zeroos.package import is_gzipped, write_package
from flistfs.format.zeroos.reader import CatalogReader
from flistfs.tree.node import Access

if TYPE_CHECKING:
    from flistfs.format.metadata import MetadataChange
    from flistfs.format.router import Router

_CODEC: Final = Generation1()


def _recognizes(path: Path) -> bool:
    """Return whether this is gzipped, or a directory with an unpacked flist."""
    return (path / MEMBERS.needed).is_file() if path.is_dir() else is_gzipped(path)


def _open(path: Path) -> TreeReader:
    """Open a package, or a directory with an unpacked one; nothing is written next to it."""
    catalog, scratch, faults = open_catalog(path, MEMBERS, Catalog.open)
    return CatalogReader(catalog, scratch, GENERATION_1, _CODEC, faults)


@contextmanager
def _writer(directory: Path, accesses: Iterable[Access]) -> Iterator[TreeWriter]:
    from flistfs.format.zeroos.writer import PackageWriter  # noqa: PLC0415  not needed for reading

    with CatalogWriter(directory) as catalog:
        yield PackageWriter(directory, MEMBERS, catalog, GENERATION_1, accesses)


def _rewrite(
    package: Path, directory: Path, router: Router | None, change: MetadataChange, out: BinaryIO
) -> None:
    """Write a package anew with another router; see `Rewrite`."""
    assert not change  # noqa: S101  there is no place for metadata
    catalog, scratch, _ = open_catalog(package, MEMBERS, Catalog.open)
    with scratch, catalog, CatalogWriter(directory) as writer:
        for key, record in catalog.items():
            writer.add(key, record)
        writer.finish()
        put_router(router, scratch.path, directory, GENERATION_1)
        write_package(directory, MEMBERS, out)


ROCKSDB: Final = Format(
    name="rocksdb",
    codec=_CODEC,
    limits=Limits(
        file_size=MAX_FILE_SIZE,
        latest=2**32 - 1,  # times in a record are unsigned 32-bit seconds
        minor=255,  # readers keep eight bits of a minor number
    ),
    unrepresentable=frozenset({"xattrs", "hard_links", "times", "owners", "set_id", "large_devices"}),
    has_metadata=False,
    names_namespaces=False,
    has_known_defects=bool(GENERATION_1.read_past),
    complete_entries=False,
    recognizes=_recognizes,
    open=_open,
    rewrite=_rewrite,
    writer=_writer,
)
"""Generation 1; the facts of the format are in `zeroos` and next to each constant."""
