"""What a source yields: items, one at a time, with problems and notes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from flistfs.sources.data import Source
from flistfs.tree.chunks import Stored


class Piece(NamedTuple):
    """A chunk of a file, by its number; chunks without a piece are holes."""

    number: int
    source: Source


@dataclass(frozen=True, slots=True)
class Item:
    """Something to be put into a tree.

    `path` is relative to the target directory, with no slash at either end, and empty for that directory
    itself. `mode` is the full st_mode; times are nanoseconds since 1970, and without a `ctime_ns` the time of
    the import is used. A file has `size` bytes in `pieces`, which must be consumed before the next item, or
    in `stored`, all its chunks in order, whose blocks a store already holds; an item that is a further hard
    link to a file has the file's path as `link`.
    """

    path: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int
    size: int = 0
    rdev: int = 0
    target: bytes = b""
    link: bytes | None = None
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    pieces: Iterable[Piece] = ()
    count: int = 0
    """How many pieces there are."""
    stored: Sequence[Stored] = ()
    ctime_ns: int | None = None
    makes_parents: bool = False
    """Whether missing parent directories are created."""
    replaces_link: bool = False
    """Whether a directory replaces a link, instead of uniting with what that leads to."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An entry that cannot be put into a tree, and why. `path` is as in an item."""

    path: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Note:
    """A note for the user, though everything is taken."""

    text: str


class TreeSource(Protocol):
    """A source of items."""

    def items(self) -> Iterator[Item | Problem | Note]:
        """Yield everything (blocks).

        Raises:
            SourceError: it cannot be read at all, or not to its end.
        """

    def measure(self) -> None:
        """Find out the total amount for `extent` (blocks)."""

    def extent(self, size: int) -> tuple[int, int]:
        """Return the progress when `size` bytes of content are done: how much, of how much (0: unknown)."""

    def named(self, path: bytes) -> str:
        """Return the user's name for the item at a path."""

    def close(self) -> None:
        """Close files."""
