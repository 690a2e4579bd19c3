"""Making the files of an flist."""

from __future__ import annotations

from collections.abc import Iterable

from flistfs.api.arguments import AnyPath, StoreName
from flistfs.api.flists import open  # noqa: A004  flistfs.open, like gzip.open
from flistfs.reading.extract import Extracted
from flistfs.util.progress import Progress

__all__ = ["Extracted", "extract"]


def extract(
    package: AnyPath,
    target: AnyPath,
    *,
    store: StoreName | None = None,
    password: str | None = None,
    fallback_store: StoreName | None = None,
    only: str | Iterable[str] = (),
    devices: bool = True,
    progress: Progress | None = None,
) -> Extracted:
    """Make the files of an flist in a new or empty directory: see `open` and `Flist.extract`."""
    with open(package, store=store, password=password, fallback_store=fallback_store) as flist:
        return flist.extract(target, only=only, devices=devices, progress=progress)
