"""The rules for merging trees that have entries of the same name, and the vocabulary of `uniting`."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from flistfs.tree.names import MAX_PATH

# Links followed along one path, as in the kernel.
_MAX_LINKS = 40


@dataclass(slots=True)
class Allowance:
    """What may still be followed along one path: a number of links, and of bytes in their targets.

    The bytes bound the steps: a target can lead back and forth.
    """

    links: int = _MAX_LINKS
    size: int = MAX_PATH

    def take(self, target: bytes) -> bool:
        """Subtract a link; return whether it may be followed."""
        self.links -= 1
        self.size -= len(target)
        return not self.is_spent

    @property
    def is_spent(self) -> bool:
        """Whether there were too many links, or their targets were too long."""
        return self.links < 0 or self.size < 0


class Prefer(enum.StrEnum):
    """Which of several trees wins a path: the newer by modification time, or the first if equally new."""

    FIRST = "first"
    LAST = "last"
    NEWER = "newer"


class Sort(enum.Enum):
    """The kinds of entries that the rules distinguish."""

    DIRECTORY = enum.auto()
    LINK = enum.auto()
    OTHER = enum.auto()


class Seen(NamedTuple):
    """An entry of a tree: `target` is a link's, `time` its modification time, `what` a word for users."""

    sort: Sort
    target: bytes = b""
    time: int = 0
    what: str = ""


class Tree(Protocol):
    """A tree that is laid over others, or under them. Paths have no slash at either end."""

    def names(self, directory: bytes) -> Iterable[tuple[bytes, Seen]]:
        """Yield the entries of a directory; none if it cannot be read."""

    def look(self, directory: bytes, names: Sequence[bytes]) -> Mapping[bytes, Seen]:
        """Look up names in a directory; those that do not exist are left out."""


class Part(NamedTuple):
    """An entry of one of the trees: the number of the tree, and the path in it."""

    tree: int
    path: bytes


class Found(NamedTuple):
    """An entry, and its description."""

    part: Part
    seen: Seen


class Place(NamedTuple):
    """A directory of the merged tree, and the directories that it merges, the lowest first."""

    path: bytes
    parts: tuple[Part, ...]


class Why(enum.Enum):
    """The reason of a clash."""

    UNDECIDED = enum.auto()
    """No rule decides which entry wins."""
    DIRECTORY = enum.auto()
    """Something else over a directory."""
    NO_DIRECTORY = enum.auto()
    """Something that is not a directory, in the place of one."""
    DEAD_LINK = enum.auto()
    """A directory over a link that does not lead to a directory."""
    FULL_DIRECTORY = enum.auto()
    """A link over a directory that has content."""
    TWICE = enum.auto()
    """Two entries of one tree, one of which came through a link."""


@dataclass(slots=True)
class Conflict:
    """A path of the merged tree that several entries claim."""

    path: bytes
    why: Why
    found: dict[Part, Seen] = field(default_factory=dict)

    @property
    def upper(self) -> Part:
        """The uppermost entry."""
        return next(reversed(self.found))


class Verdict(enum.Enum):
    """The outcome for a name that two trees have."""

    UNITE = enum.auto()
    THROUGH = enum.auto()
    LOWER = enum.auto()
    UPPER = enum.auto()


@dataclass(frozen=True, slots=True)
class Rules:
    """How trees are merged.

    Attributes:
        prefer: Which of several differing entries wins; without it they clash.
        replace_links: Whether a directory never goes through a link.
        keep_directories: Whether a directory never replaces anything else, nor the other way round, except
            a link with `replace_links`.
    """

    prefer: Prefer | None
    replace_links: bool = False
    keep_directories: bool = False

    def verdict(self, lower: Seen, upper: Seen, is_full: Callable[[], bool] = lambda: False) -> Verdict | Why:
        """Return what becomes of two entries; `is_full` says whether a lower directory has content."""
        sorts = lower.sort, upper.sort
        if sorts == (Sort.DIRECTORY, Sort.DIRECTORY):
            return Verdict.UNITE
        if sorts == (Sort.LINK, Sort.DIRECTORY) and not self.replace_links:
            return Verdict.THROUGH
        if self.keep_directories and lower.sort is Sort.DIRECTORY:
            return Why.DIRECTORY
        if self.keep_directories and sorts == (Sort.OTHER, Sort.DIRECTORY):
            return Why.NO_DIRECTORY
        if sorts == (Sort.DIRECTORY, Sort.LINK) and not self.replace_links and is_full():
            return Why.FULL_DIRECTORY
        match self.prefer:
            case None:
                return Why.UNDECIDED
            case Prefer.FIRST:
                return Verdict.LOWER
            case Prefer.LAST:
                return Verdict.UPPER
            case Prefer.NEWER:
                return Verdict.UPPER if upper.time > lower.time else Verdict.LOWER

    def chosen(self, found: Sequence[Seen]) -> list[int]:
        """Return the indexes of the winners among the entries of a name, given the lowest first.

        That is one, or the directories that are merged. Where they clash the lower one is kept.
        """
        chosen, there = [0], found[0]
        for number, upper in enumerate(found[1:], 1):
            match self.verdict(there, upper):
                case Verdict.UNITE:
                    chosen.append(number)
                    there = max(there, upper, key=time_of)
                case Verdict.UPPER:
                    chosen, there = [number], upper
        return chosen


def time_of(seen: Seen) -> int:
    """Return the modification time."""
    return seen.time
