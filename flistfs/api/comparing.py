"""Comparing flists."""

from __future__ import annotations

from collections.abc import Iterator

from flistfs.api.arguments import AnyPath
from flistfs.api.flists import open  # noqa: A004  flistfs.open, like gzip.open
from flistfs.reading.diff import Change, Difference

__all__ = ["Change", "Difference", "diff"]


def diff(before: AnyPath, after: AnyPath) -> Iterator[Difference]:
    """Walk what is different in the flist `after` from the flist `before`: see `Flist.diff`."""
    with open(before) as one, open(after) as other:
        yield from one.diff(other)
