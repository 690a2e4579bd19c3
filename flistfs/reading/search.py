"""Select entries by name, kind and size, or by path patterns."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flistfs.reading.flist import Flist
from flistfs.tree.node import Kind, Node
from flistfs.util.patterns import parse_pattern


@dataclass(frozen=True, slots=True)
class Search:
    """Criteria of a search; None matches anything. Sizes are in bytes, inclusive, and apply to files only."""

    name: str | None = None
    kinds: frozenset[Kind] | None = None
    min_size: int | None = None
    max_size: int | None = None

    def matches(self, node: Node) -> bool:
        """Return whether an entry matches; `name` is a shell pattern for the last part of its path."""
        if self.kinds is not None and node.kind not in self.kinds:
            return False
        if self.name is not None and not fnmatch.fnmatchcase(os.fsdecode(node.name), self.name):
            return False
        if self.min_size is None and self.max_size is None:
            return True
        if node.kind is not Kind.FILE or node.size < (self.min_size or 0):
            return False
        return self.max_size is None or node.size <= self.max_size


def search(flist: Flist, start: Node, wanted: Search) -> Iterator[Node]:
    """Yield the matches below a directory, or `start` itself if it is not a directory."""
    if not (start.kind is Kind.DIRECTORY and start.whole) and wanted.matches(start):
        yield start
    yield from filter(wanted.matches, flist.walk(start))


class Selection:
    """Path patterns as in .gitignore.

    A pattern without a slash matches a name anywhere, one with a slash a path from the root; `*` stops at
    slashes and `**` does not; everything below a matching directory matches; `!` excludes again.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        """Parse patterns. Raises UsageError for one that cannot match anything."""
        self._patterns = [parse_pattern(pattern) for pattern in patterns if pattern]
        self._patterns.reverse()

    def matches(self, node: Node) -> bool:
        """Return whether an entry is selected."""
        path = node.path
        ends = [end for end, char in enumerate(path) if char == 0x2F]
        for pattern in self._patterns:
            if pattern.fits(path, is_directory=node.kind is Kind.DIRECTORY) or any(
                pattern.fits(path[:end], is_directory=True) for end in ends
            ):
                return not pattern.takes_back
        return False
