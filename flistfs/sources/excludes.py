"""What is left out: patterns as in a .gitignore file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from flistfs.errors import UsageError
from flistfs.util.patterns import parse_pattern

Filter = Callable[[bytes, bool], bool]
"""Says of a path, and whether it is a directory, whether it is left out."""


def nothing_excluded(path: bytes, is_directory: bool) -> bool:  # noqa: ARG001, FBT001  a Filter's signature
    """Leave nothing out."""
    return False


def excluding(patterns: Sequence[str]) -> Filter:
    """Return what leaves out the paths that fit the patterns; without patterns it is `nothing_excluded`.

    As git has it, the last pattern that fits counts, `!` takes back, a slash at the end is for directories
    alone, and one at the start or in the middle counts from the top of the tree. What is in a directory that
    is left out is left out with it: it must not be asked for any more.

    Raises:
        UsageError: one of them can fit nothing.
    """
    parsed = [parse_pattern(pattern) for pattern in patterns if pattern]
    if not parsed:
        return nothing_excluded
    parsed.reverse()

    def fits(path: bytes, is_directory: bool) -> bool:  # noqa: FBT001  a Filter's signature
        for pattern in parsed:
            if pattern.fits(path, is_directory=is_directory):
                return not pattern.takes_back
        return False

    return fits


def read_patterns(file: Path) -> list[str]:
    """Read patterns from a file, one a line; blank lines and those that begin with # say nothing.

    Lines end with LF, or CR and LF. Spaces at their ends count only behind a backslash. Patterns that can fit
    nothing, such as `[`, are passed over, as git does it.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    lines = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    patterns = (os.fsdecode(_pattern_of(line)) for line in lines)
    return [pattern for pattern in patterns if pattern and _can_fit(pattern)]


def _pattern_of(raw: bytes) -> bytes:
    """Return the pattern of a line; empty if it says nothing."""
    if raw.startswith(b"#"):
        return b""
    line = raw.removesuffix(b"\r").partition(b"\0")[0]  # git's lines end with a NUL, too
    kept = line.rstrip(b" ")
    escapes = len(kept) - len(kept.rstrip(b"\\"))
    return kept + b" " if escapes % 2 and len(kept) < len(line) else kept


def _can_fit(pattern: str) -> bool:
    try:
        parse_pattern(pattern)
    except UsageError:
        return False
    return True
