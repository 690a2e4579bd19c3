"""The format of 2018: an SQLite catalog, and blocks of generation 2."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flistfs.errors import FormatError
from flistfs.format.base import Format, Limits, TreeReader, TreeWriter
from flistfs.format.codecs import Generation2
from flistfs.format.zeroos.dialect import GENERATION_2
from flistfs.format.zeroos.package import Members, holds, link_package, unpack_package
from flistfs.format.zeroos.reader import CatalogReader
from flistfs.tree.node import Access
from flistfs.util.scratch import Scratch

if TYPE_CHECKING:
    from flistfs.format.router import Router

_CODEC: Final = Generation2()

_GZIP: Final = b"\x1f\x8b"

_FILE: Final = "flistdb.sqlite3"

MEMBERS: Final = Members(
    needed=_FILE,
    packed=re.compile(r"flistdb\.sqlite3|router\.yaml"),
    # Beside an unpacked one there may be what it lacks: that is refused, and so must not be lost on the way.
    taken=re.compile(r"flistdb\.sqlite3(-wal|-journal)?|router\.yaml"),
    pending=re.compile(r"flistdb\.sqlite3-(wal|journal)"),
)
"""The files that a package has."""


class _Reader(CatalogReader):
    """A `TreeReader` that knows where blocks are from the metadata, too."""

    def router(self) -> Router | None:
        """Return what the router.yaml says, or else the metadata; see `TreeReader`."""
        from flistfs.format.sqlite.backend import router_of  # noqa: PLC0415  listing entries needs none

        return super().router() or router_of(self.metadata)


def _recognizes(path: Path) -> bool:
    """Return whether this is a package with such a database, or a directory that holds an unpacked one."""
    if path.is_dir():
        return (path / _FILE).is_file()
    with path.open("rb") as file:
        if file.read(len(_GZIP)) != _GZIP:
            return False
    return holds(path, MEMBERS)


def _open(path: Path) -> TreeReader:
    """Open a package, or a directory that one was unpacked into; nothing is written beside it."""
    from flistfs.format.sqlite.backend import without_secrets  # noqa: PLC0415  flists of 2017 need no SQLite
    from flistfs.format.sqlite.catalog import Catalog  # noqa: PLC0415

    with ExitStack() as held:
        scratch = held.enter_context(Scratch())
        if path.is_dir():
            link_package(path, scratch.path, MEMBERS)
        else:
            # Readers of this generation take a member `./`, as all packages of zflist have.
            unpack_package(path, scratch.path, MEMBERS)
        try:
            catalog = held.enter_context(Catalog.open(scratch.path / _FILE))
            metadata = catalog.metadata()
        except FormatError as error:
            raise FormatError(f"{path} is not a readable flist: {error}") from error
        held.pop_all()
    return _Reader(catalog, scratch, GENERATION_2, _CODEC, (), without_secrets(metadata))


@contextmanager
def _writer(directory: Path, accesses: Iterable[Access]) -> Iterator[TreeWriter]:
    from flistfs.format.sqlite.writer import opened_writer  # noqa: PLC0415  reading does without

    with opened_writer(directory, MEMBERS, accesses) as writer:
        yield writer


SQLITE: Final = Format(
    name="sqlite",
    codec=_CODEC,
    limits=Limits(
        file_size=GENERATION_2.max_file_size,
        latest=2**32 - 1,  # times in a record are unsigned 32-bit seconds
        minor=2**20 - 1,  # what Linux has; the numbers are written in digits
    ),
    unrepresentable=frozenset({"xattrs", "hard_links", "times", "set_id", "special_files"}),
    complete_entries=True,
    recognizes=_recognizes,
    open=_open,
    writer=_writer,
)
"""Generation 2, which 0-fs since August 2018, rfs 1.x and zflist read."""
