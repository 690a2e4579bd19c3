"""What all commands that look into an flist have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flistfs.api.flists import Flist, open  # noqa: A004  flistfs.open, like gzip.open


@contextmanager
def opened(
    package: Path,
    *,
    at: Sequence[str] = (),
    store: str | None = None,
    password: str | None = None,
    fallback_store: str | None = None,
) -> Iterator[Flist]:
    """Open an flist, and complain at the end of what reading went past at some paths; see `api.flists.open`.

    Raises:
        FaultsError: when all is done.
    """
    with open(package, store=store, password=password, fallback_store=fallback_store) as flist:
        yield flist
        flist.complain(os.fspath(package), at=at)
