"""What is left out: patterns as in a .gitignore file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from flistfs.errors import UsageError

Filter = Callable[[bytes, bool], bool]
"""Says of a path, and whether it is a directory, whether it is left out."""


def nothing_excluded(path: bytes, is_folder: bool) -> bool:  # noqa: ARG001, FBT001  a Filter's signature
    """Leave nothing out."""
    return False


def excluding(patterns: Sequence[str]) -> Filter:
    """Return what leaves out the paths that fit the patterns; without patterns it is `nothing_excluded`.

    As git has it, the last pattern that fits counts, `!` takes back, a slash at the end is for directories
    alone, and one at the start or in the middle counts from the top of the tree. What is in a directory that
    is left out is left out with it: it must not be asked for any more.

    Raises:
        UsageError: one of them makes no sense.
    """
    if not patterns:
        return nothing_excluded
    from pathspec import GitIgnoreSpec  # noqa: PLC0415  takes 20 ms, and most commands need none of it

    try:
        spec = GitIgnoreSpec.from_lines(patterns)
    except ValueError as error:
        raise UsageError(f"an exclude pattern makes no sense: {error}") from None

    def fits(path: bytes, is_folder: bool) -> bool:  # noqa: FBT001  a Filter's signature
        text = os.fsdecode(path)
        return spec.match_file(text + "/" if is_folder else text)

    return fits


def read_patterns(file: Path) -> list[str]:
    """Read patterns from a file, one a line; blank lines and those that begin with # say nothing.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return file.read_text(errors="surrogateescape").splitlines()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
