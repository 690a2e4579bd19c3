"""Exclude paths by patterns as in a .gitignore file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from flistfs.errors import UsageError
from flistfs.util.patterns import parse_pattern

Filter = Callable[[bytes, bool], bool]
"""Returns whether to exclude a path; the second argument is whether it is a directory."""


def nothing_excluded(path: bytes, is_directory: bool) -> bool:  # noqa: ARG001, FBT001  a Filter's signature
    """Exclude nothing."""
    return False


def excluding(patterns: Sequence[str]) -> Filter:
    """Return a filter that excludes the paths that match the patterns; without patterns `nothing_excluded`.

    As in git, the last matching pattern decides, `!` negates, a trailing slash matches directories only, and
    a slash at the start or in the middle anchors the pattern to the top of the tree. What is in an excluded
    directory is excluded with it: the filter must not be called for it.

    Raises:
        UsageError: a pattern cannot match anything.
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
    """Read patterns from a file, one per line; blank lines and those that begin with # are ignored.

    Lines end with LF, or CR and LF. Trailing spaces count only after a backslash. Patterns that cannot match
    anything, such as `[`, are ignored, as in git.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    lines = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    patterns = (os.fsdecode(_pattern_of(line)) for line in lines)
    return [pattern for pattern in patterns if pattern and _can_match(pattern)]


def _pattern_of(raw: bytes) -> bytes:
    """Return the pattern of a line; empty if it has none."""
    if raw.startswith(b"#"):
        return b""
    line = raw.removesuffix(b"\r").partition(b"\0")[0]  # a NUL ends a line in git, too
    kept = line.rstrip(b" ")
    escapes = len(kept) - len(kept.rstrip(b"\\"))
    return kept + b" " if escapes % 2 and len(kept) < len(line) else kept


def _can_match(pattern: str) -> bool:
    try:
        parse_pattern(pattern)
    except UsageError:
        return False
    return True
