"""What is left out: patterns as in a .gitignore file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from pathspec import GitIgnoreSpec

from flistfs.errors import UsageError


class Excludes:
    """Says what is left out.

    As git has it, the last pattern that fits counts, `!` takes back, a slash at the end is for directories
    alone, and one at the start or in the middle counts from the top of the tree. What is in a directory that
    is left out is left out with it.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        """Understand the patterns.

        Raises:
            UsageError: one of them makes no sense.
        """
        try:
            self._spec = GitIgnoreSpec.from_lines(patterns)
        except ValueError as error:
            raise UsageError(f"an exclude pattern makes no sense: {error}") from None

    def __call__(self, path: bytes, is_folder: bool) -> bool:  # noqa: FBT001  a Filter's signature
        """Say whether a path is left out. What it lies in was asked for before."""
        text = os.fsdecode(path)
        return self._spec.match_file(text + "/" if is_folder else text)


def read_patterns(file: Path) -> list[str]:
    """Read patterns from a file, one a line; blank lines and those that begin with # say nothing.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        return file.read_text(errors="surrogateescape").splitlines()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
