"""The format of 2018: an SQLite catalog, and blocks of generation 2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from flistfs.format.base import Format, Limits, TreeReader, TreeWriter
from flistfs.format.codecs import Generation2
from flistfs.format.metadata import BACKEND
from flistfs.format.sqlite.members import MEMBERS
from flistfs.format.zeroos.dialect import GENERATION_2
from flistfs.format.zeroos.opening import open_catalog, put_router
from flistfs.format.zeroos.package import holds, is_gzipped, write_package
from flistfs.format.zeroos.reader import CatalogReader
from flistfs.tree.node import Access

if TYPE_CHECKING:
    from flistfs.format.metadata import MetadataChange
    from flistfs.format.router import Router
    from flistfs.format.sqlite.catalog import Catalog

_CODEC: Final = Generation2()


class _Reader(CatalogReader):
    """A `TreeReader` that knows where blocks are from the metadata, too."""

    def router(self) -> Router | None:
        """Return what the router.yaml says, or else the metadata; see `TreeReader`."""
        from flistfs.format.sqlite.backend import router_of  # noqa: PLC0415  listing entries needs none

        return super().router() or router_of(self.metadata)


def _recognizes(path: Path) -> bool:
    """Return whether this is a package with such a database, or a directory that holds an unpacked one."""
    if path.is_dir():
        return (path / MEMBERS.needed).is_file()
    return is_gzipped(path) and holds(path, MEMBERS)


def _open(path: Path) -> TreeReader:
    """Open a package, or a directory that one was unpacked into; nothing is written beside it."""
    # Readers of this generation take a member `./`, as all packages of zflist have: that is no fault.
    catalog, scratch, _ = open_catalog(path, MEMBERS, _catalog)
    return _Reader(catalog, scratch, GENERATION_2, _CODEC, (), _shown(catalog.metadata))


def _shown(metadata: Mapping[str, bytes]) -> Mapping[str, bytes]:
    """Return metadata without secrets, which only what it says of a server can have."""
    if BACKEND not in metadata:
        return metadata
    from flistfs.format.sqlite.backend import without_secrets  # noqa: PLC0415  as below

    return without_secrets(metadata)


def _catalog(directory: Path) -> Catalog:
    from flistfs.format.sqlite.catalog import Catalog  # noqa: PLC0415  flists of 2017 need no SQLite

    return Catalog.open(directory / MEMBERS.needed)


@contextmanager
def _writer(directory: Path, accesses: Iterable[Access]) -> Iterator[TreeWriter]:
    from flistfs.format.sqlite.writer import opened_writer  # noqa: PLC0415  reading does without

    with opened_writer(directory, MEMBERS, accesses) as writer:
        yield writer


def _rewrite(
    package: Path, directory: Path, router: Router | None, change: MetadataChange, out: BinaryIO
) -> None:
    """Write a package anew with another router or metadata; see `Rewrite`."""
    from flistfs.format.sqlite.catalog import CatalogWriter  # noqa: PLC0415  as above
    from flistfs.format.sqlite.writer import all_metadata  # noqa: PLC0415

    catalog, scratch, _ = open_catalog(package, MEMBERS, _catalog)
    with scratch, catalog, CatalogWriter(directory) as writer:
        metadata = change.applied(catalog.metadata)
        for key, record in catalog.rows():
            writer.add(key, record)
        writer.add_metadata(metadata if router is None else all_metadata(metadata, router))
        writer.finish()
        put_router(router, scratch.path, directory, GENERATION_2)
        write_package(directory, MEMBERS, out)


SQLITE: Final = Format(
    name="sqlite",
    codec=_CODEC,
    limits=Limits(
        file_size=GENERATION_2.max_file_size,
        latest=2**32 - 1,  # times in a record are unsigned 32-bit seconds
        minor=2**20 - 1,  # what Linux has; the numbers are written in digits
    ),
    unrepresentable=frozenset({"xattrs", "hard_links", "times", "set_id", "special_files", "names"}),
    has_metadata=True,
    names_namespaces=True,
    has_known_defects=bool(GENERATION_2.read_past),
    complete_entries=True,
    recognizes=_recognizes,
    open=_open,
    rewrite=_rewrite,
    writer=_writer,
)
"""Generation 2, which 0-fs since August 2018, rfs 1.x and zflist read."""
