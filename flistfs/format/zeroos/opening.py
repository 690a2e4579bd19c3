"""Open the catalog of a package, or of a directory with an unpacked one, beside temporary files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flistfs.errors import FormatError
from flistfs.format.zeroos.package import ROUTER_FILE, Members, link_package, unpack_package
from flistfs.util.scratch import Scratch

if TYPE_CHECKING:
    from flistfs.format.router import Router
    from flistfs.format.zeroos.dialect import Dialect

_T = TypeVar("_T")


def open_catalog(path: Path, members: Members, opened: Callable[[Path], _T]) -> tuple[_T, Scratch, list[str]]:
    """Open a catalog; nothing is written next to the user's files.

    Args:
        path: A package, or a directory with an unpacked one.
        members: The files that it has.
        opened: Opens the catalog in a directory.

    Returns:
        The catalog; the directory of its files, to be closed after it; and the package's faults for readers.

    Raises:
        FormatError: it is damaged, or not an flist.
        OutputError: the temporary directory cannot be written.
    """
    faults: list[str] = []
    with ExitStack() as held:
        scratch = held.enter_context(Scratch())
        if path.is_dir():
            link_package(path, scratch.path, members)
        else:
            faults = unpack_package(path, scratch.path, members)
        try:
            catalog = opened(scratch.path)
        except FormatError as error:
            raise FormatError(f"{path} is not a readable flist: {error}") from error
        held.pop_all()
    return catalog, scratch, faults


def put_router(router: Router | None, unpacked: Path, directory: Path, dialect: Dialect) -> None:
    """Put a router.yaml into the files of a new package; without one, that of the unpacked old package."""
    from flistfs.format.zeroos.writer import write_router  # noqa: PLC0415  reading does without

    if router is not None:
        write_router(router, directory, dialect)
    elif (old := unpacked / ROUTER_FILE).exists():
        shutil.copyfile(old, directory / ROUTER_FILE)
