"""What all commands that look into an flist have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flistfs.api.flists import Flist, open  # noqa: A004  flistfs.open, like gzip.open
from flistfs.tree.node import Node


@contextmanager
def opened(
    package: Path,
    *,
    at: Sequence[Node] | None = None,
    content_only: bool = False,
    store: str | None = None,
    password: str | None = None,
    fallback_store: str | None = None,
) -> Iterator[Flist]:
    """Open an flist, and complain at the end of what reading went past; see `api.flists.open`.

    Args:
        package: The flist.
        at: Receives in the block the entries that are asked about; None for all that is read.
        content_only: Whether owners and modes are not asked about.
        store: Where blocks are read from.
        password: Its password.
        fallback_store: Where they are if the flist does not say.

    Raises:
        FaultsError: when all is done.
    """
    with open(package, store=store, password=password, fallback_store=fallback_store) as flist:
        yield flist
        paths = None if at is None else [node.path for node in at]
        flist.complain(os.fspath(package), at=paths, content_only=content_only)
