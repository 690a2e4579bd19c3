"""The format of 2017: a RocksDB catalog, and blocks of generation 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from flistfs.errors import FormatError
from flistfs.format.base import Format, Limits, TreeReader, TreeWriter
from flistfs.format.codecs import Generation1
from flistfs.format.rocksdb.catalog import Catalog, CatalogWriter
from flistfs.format.rocksdb.package import MEMBERS, link_package, unpack_package
from flistfs.format.zeroos.dialect import GENERATION_1
from flistfs.format.zeroos.limits import MAX_FILE_SIZE
from flistfs.format.zeroos.reader import CatalogReader
from flistfs.tree.node import Access
from flistfs.util.scratch import Scratch

_CODEC: Final = Generation1()

_GZIP: Final = b"\x1f\x8b"


def _recognizes(path: Path) -> bool:
    """Return whether this is gzipped, or a directory with an unpacked flist."""
    if path.is_dir():
        return (path / "CURRENT").is_file()
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def _open(path: Path) -> TreeReader:
    """Open a package, or a directory with an unpacked one; nothing is written next to it."""
    faults: list[str] = []
    with ExitStack() as held:
        scratch = held.enter_context(Scratch())
        if path.is_dir():
            link_package(path, scratch.path)
        else:
            faults = unpack_package(path, scratch.path)
        try:
            catalog = Catalog.open(scratch.path)
        except FormatError as error:
            raise FormatError(f"{path} is not a readable flist: {error}") from error
        held.pop_all()
    return CatalogReader(catalog, scratch, GENERATION_1, _CODEC, faults)


@contextmanager
def _writer(directory: Path, accesses: Iterable[Access]) -> Iterator[TreeWriter]:
    from flistfs.format.zeroos.writer import PackageWriter  # noqa: PLC0415  not needed for reading

    with CatalogWriter(directory) as catalog:
        yield PackageWriter(directory, MEMBERS, catalog, GENERATION_1, accesses)


ROCKSDB: Final = Format(
    name="rocksdb",
    codec=_CODEC,
    limits=Limits(
        file_size=MAX_FILE_SIZE,
        latest=2**32 - 1,  # times in a record are unsigned 32-bit seconds
        minor=255,  # readers keep eight bits of a minor number
    ),
    unrepresentable=frozenset({"xattrs", "hard_links", "times", "owners", "set_id", "large_devices"}),
    complete_entries=False,
    recognizes=_recognizes,
    open=_open,
    writer=_writer,
)
"""Generation 1; the facts of the format are in `zeroos` and next to each constant."""
