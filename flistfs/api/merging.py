"""Merging."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Literal

from flistfs.api.arguments import AnyPath, flist_paths, typed_path
from flistfs.errors import UsageError
from flistfs.reading import flist as sealed
from flistfs.reading import merge as merging
from flistfs.reading.merge import Merged, PathsClashError
from flistfs.reading.union import Clash
from flistfs.tree.rules import Prefer
from flistfs.util.progress import Progress, quiet

__all__ = ["Clash", "Merged", "PathsClashError", "Prefer", "merge"]


def merge(
    out: AnyPath,
    flists: Iterable[AnyPath],
    *,
    prefer: Literal["first", "last", "newer"] | None = None,
    replace_links: bool = False,
    accept_faults: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> Merged:
    """Merge flists into one, without fetching a block. Directories unite, also through links to directories.

    Args:
        out: The result; it exists whole or not at all.
        flists: The flists, in the order that `prefer` speaks of.
        prefer: Which wins any other path that several have; `hidden` of the result names what is missing.
        replace_links: Whether a directory and a link are like any two things that differ.
        accept_faults: Take what is there of flists that have faults.
        force: Replace the output if it exists.
        progress: Called with a `Report` as the work goes on.

    Raises:
        PathsClashError: several have the same path, and none is preferred, or a link is where another has a
            directory that it does not lead to; its `clashes` says which.
        FormatError: one is not there, damaged, or has faults.
        OutputError: the output exists or cannot be written.
        UsageError: an argument is invalid.
    """
    paths = flist_paths(flists)
    if not paths:
        raise UsageError("there is nothing to merge; name an flist")
    if prefer is not None and prefer not in set(Prefer):
        raise UsageError(f"`prefer` is {prefer!r}; it must be first, last or newer")
    faults = sealed.Faults.ACCEPTED if accept_faults else sealed.Faults.RAISED
    with ExitStack() as opened:
        sources = [
            merging.Source(str(path), opened.enter_context(sealed.Flist.open(path, faults))) for path in paths
        ]
        wanted = None if prefer is None else Prefer(prefer)
        return merging.merge(
            sources,
            typed_path(out),
            prefer=wanted,
            replace_links=replace_links,
            force=force,
            progress=progress or quiet,
        )
