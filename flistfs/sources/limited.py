"""A source that may hold only so much: a stranger's archive is small, and says that it is huge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flistfs.errors import SourceError
from flistfs.sources.item import Item, Note, Problem, TreeSource


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a source is taken: entries, and bytes of content, holes too."""

    entries: int
    size: int


class LimitedSource:
    """A `TreeSource` of what another has, as long as it keeps to limits."""

    def __init__(self, source: TreeSource, limits: Limits) -> None:
        """Take the tree of `source`, which `close` closes."""
        self._source = source
        self._limits = limits

    def items(self) -> Iterator[Item | Problem | Note]:
        """Yield everything; raises as that source, and `SourceError` once there is too much."""
        size = 0
        for entries, item in enumerate(self._source.items(), 1):
            size += item.size if isinstance(item, Item) and item.link is None else 0
            if entries > self._limits.entries:
                raise SourceError(f"it has more than {self._limits.entries:,} entries")
            if size > self._limits.size:
                raise SourceError(f"it has more than {self._limits.size:,} bytes of content")
            yield item

    def measure(self) -> None:
        """Find out the total amount for `extent` (blocks)."""
        self._source.measure()

    def extent(self, size: int) -> tuple[int, int]:
        """Return the progress when `size` bytes of content are done."""
        return self._source.extent(size)

    def named(self, path: bytes) -> str:
        """Return the user's name for the item at a path."""
        return self._source.named(path)

    def close(self) -> None:
        """Close the source."""
        self._source.close()
