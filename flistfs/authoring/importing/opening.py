"""Open the sources that a user names: directories and files, or an archive."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from flistfs.authoring.request import AddRequest
from flistfs.sources.archive import TarSource
from flistfs.sources.directory import DirectorySource, Start, starting_points
from flistfs.sources.excludes import Filter, excluding
from flistfs.sources.item import TreeSource
from flistfs.stores.url import parse_store_url


def open_directories(request: AddRequest, store: str, session: Iterable[Path]) -> DirectorySource:
    """Open the directories and files of a request (blocks).

    Args:
        request: Names them.
        store: The URL of the session's store, which must not be read while it is written.
        session: The directories that hold the session or its mount; they cannot be sources either.

    Raises:
        SourceError: one of them does not exist, or has no name.
    """
    starts = starting_points(request.sources, request.typed)
    for start in starts:  # before anything is put into the tree
        start.status()
    return DirectorySource(
        starts,
        excluded=excluding(request.exclude),
        forbidden=_forbidden(store, session),
        replace_links=request.replace_links,
    )


def open_tree(
    path: str, excluded: Filter, store: str, session: Iterable[Path], start: bytes = b""
) -> TreeSource:
    """Open the source of a whole tree: a directory, or an archive.

    `-` is an archive on standard input, of which `start` was read already.

    Raises:
        SourceError: it does not exist.
    """
    if path == "-" or not os.path.isdir(path):  # noqa: PTH112  a Path would raise here for the archive
        return TarSource.open(path, excluded=excluded, start=start)
    top = Start(os.fsencode(os.path.realpath(path)), b"", path)
    return DirectorySource([top], excluded=excluded, forbidden=_forbidden(store, session))


def _forbidden(store: str, session: Iterable[Path]) -> dict[tuple[int, int], str]:
    found = {}
    places = [(path, "the state directory or mount point of this session") for path in session]
    directory = parse_store_url(store).path
    if directory is not None:
        places.append((directory, "the store"))
    for path, what in places:
        with suppress(OSError):
            status = path.stat()
            found[status.st_dev, status.st_ino] = what
    return found
