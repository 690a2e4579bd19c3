"""Checking an flist and its blocks, and repairing these."""

from __future__ import annotations

from pathlib import Path

from flistfs.api.arguments import AnyPath, StoreName
from flistfs.api.flists import open  # noqa: A004  flistfs.open, like gzip.open
from flistfs.reading.verify import Verified
from flistfs.util.progress import Progress

__all__ = ["Verified", "verify"]


def verify(
    package: AnyPath,
    *,
    store: StoreName | None = None,
    password: str | None = None,
    fallback_store: StoreName | None = None,
    deep: bool = False,
    blocks: bool = True,
    source: StoreName | Path | None = None,
    source_password: str | None = None,
    progress: Progress | None = None,
) -> Verified:
    """Look for all that is wrong with an flist: see `open` and `Flist.verify`."""
    with open(package, store=store, password=password, fallback_store=fallback_store) as flist:
        return flist.verify(
            deep=deep, blocks=blocks, source=source, source_password=source_password, progress=progress
        )
