"""Comparing flists."""

from __future__ import annotations

import os
from collections.abc import Iterator

from flistfs.api.arguments import AnyPath
from flistfs.api.flists import open  # noqa: A004  flistfs.open, like gzip.open
from flistfs.reading.diff import Change, Difference

__all__ = ["Change", "Difference", "diff"]


def diff(before: AnyPath, after: AnyPath) -> Iterator[Difference]:
    """Walk what is different in the flist `after` from the flist `before`: see `Flist.diff`.

    Raises:
        FaultsError: at the end: reading went past what the program that wrote one of them lost in it.
        FormatError: one of them is damaged.
    """
    with open(before) as one, open(after) as other:
        yield from one.diff(other)
        for package, flist in ((before, one), (after, other)):
            flist.complain(os.fsdecode(package))
