"""Merge trees: which entry wins where several have one of the same name, and where directories go.

The rules are defined only here; `merge`, layers and `add` follow them, each with trees of its own:

- Trees are laid over each other, one after the other. Directories are merged.
- A directory over a link of the tree below goes through it to the directory that the link leads to. The link
  stays, and so do owner, mode and times of that directory. Links are followed as in a root directory: an
  absolute target starts at the top, and `..` does not lead out. They may lead through links, and to
  directories, of the tree that is being added itself: such directories come last.
- A link that does not lead to a directory is never replaced by a directory, nor a directory with content by
  a link: both are clashes. With `Rules.replace_links`, a directory and a link are treated like any two
  entries that differ.
- For everything else the rules decide which entry wins. The others are recorded in `United.hidden`.
- Two entries of one tree that would end up in the same place, through a link, are a clash too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple, TypeVar

from flistfs.tree.rules import (
    Allowance,
    Conflict,
    Found,
    Part,
    Place,
    Rules,
    Seen,
    Sort,
    Tree,
    Verdict,
    Why,
    time_of,
)

# How often a directory over a link is tried, as entries on the link's path may change.
_MAX_TRIES = 40

# Names per lookup.
_BATCH = 256

T = TypeVar("T")


class United:
    """The merge of several trees. Check for clashes before walking it: with any, it is meaningless.

    Kept in memory are the clashes, the hidden entries, and the directories that went through links.
    """

    def __init__(self, rules: Rules, lowest: Tree) -> None:
        """Start with one tree."""
        self.rules = rules
        self._trees = [lowest]
        self._through: dict[bytes, list[Part]] = {}
        self.conflicts: dict[bytes, Conflict] = {}
        self.decided: set[bytes] = set()
        self.hidden: dict[Part, None] = {}

    def root(self) -> Place:
        """Return the root directory."""
        return self.place(b"", [Part(number, b"") for number in range(len(self._trees))])

    def place(self, path: bytes, parts: Iterable[Part]) -> Place:
        """Return the directory at a path that merges these parts, and those that came through links."""
        through = self._through.get(path)
        if through is None:
            return Place(path, tuple(parts))
        return Place(path, tuple(sorted([*parts, *through], key=lambda part: part.tree)))

    def own_parts(self, place: Place) -> list[Part]:
        """Return its parts that did not come through a link, one of which provides the attributes."""
        through = self._through.get(place.path, ())
        return [part for part in place.parts if part not in through]

    def put(self, tree: Tree) -> list[bytes]:
        """Add another tree on top; return its directories that went through links, in that order."""
        number = len(self._trees)
        self._trees.append(tree)
        layer = _Layer(self, number, tree)
        layer.join()
        return layer.through

    # For one layer at a time

    def found(self, parts: Sequence[Part], names: Sequence[bytes]) -> dict[bytes, list[Found]]:
        """Return the entries that the parts of a directory have under some names."""
        found: dict[bytes, list[Found]] = {}
        for part in parts:
            for name, seen in self._trees[part.tree].look(part.path, names).items():
                found.setdefault(name, []).append(Found(Part(part.tree, join(part.path, name)), seen))
        return found

    def chosen(self, found: Sequence[Found]) -> list[Found]:
        """Return the winners among the entries of a name."""
        return [found[index] for index in self.rules.chosen([each.seen for each in found])]

    def leads_to(self, path: bytes) -> Place | list[bytes]:
        """Follow a path of the merged tree, through links, to a directory.

        Where it leads to none, return the paths of the links and of what is not a directory on the way: it
        leads elsewhere only when one of them, or a directory on the way, is replaced.
        """
        root: tuple[Place, ...] = (self.root(),)
        looked: dict[bytes, Place | bytes | None] = {}  # links may lead back and forth

        def look(way: tuple[Place, ...], name: bytes) -> tuple[Place, ...] | bytes | None:
            path = join(way[-1].path, name)
            if path not in looked:
                looked[path] = self._look(way[-1], name)
            found = looked[path]
            return (*way, found) if isinstance(found, Place) else found

        way = followed(root, path, root=root, above=lambda way: way[:-1] or way, look=look)
        if way is not None:
            return way[-1]
        return [path for path, found in looked.items() if not isinstance(found, Place)]

    def _look(self, place: Place, name: bytes) -> Place | bytes | None:
        found = self.found(place.parts, [name]).get(name)
        if found is None:
            return None
        chosen = self.chosen(found)
        if chosen[0].seen.sort is Sort.LINK:
            return chosen[0].seen.target
        if chosen[0].seen.sort is Sort.OTHER:
            return None
        return self.place(join(place.path, name), [each.part for each in chosen])

    def go_through(self, place: Place, part: Part) -> Place:
        """Merge a directory into the one that a link leads to."""
        self._through.setdefault(place.path, []).append(part)
        return Place(place.path, (*place.parts, part))

    def is_full(self, path: bytes, found: Sequence[Found]) -> bool:
        """Return whether the directories merged at a path have content."""
        parts = self.place(path, [each.part for each in found]).parts
        return any(True for part in parts for _ in self._trees[part.tree].names(part.path))

    def hide(self, found: Sequence[Found], path: bytes | None = None) -> None:
        """Record hidden entries: one, or merged directories with everything in them.

        `path` is where they were in the merged tree, if they were in it.
        """
        waiting = list(found)
        while waiting:
            part, seen = waiting.pop()
            self.hidden[part] = None
            if seen.sort is Sort.DIRECTORY:
                names = self._trees[part.tree].names(part.path)
                waiting += [Found(Part(part.tree, join(part.path, name)), each) for name, each in names]
        if path is not None:
            for other in [other for other in self._through if other == path or is_below(other, path)]:
                self.hide([Found(part, Seen(Sort.DIRECTORY)) for part in self._through.pop(other)])

    def clash(self, path: bytes, why: Why, found: Iterable[Found]) -> None:
        """Record a clash."""
        conflict = self.conflicts.setdefault(path, Conflict(path, why))
        conflict.found.update(found)


class _Late(NamedTuple):
    """A directory over a link: its path, the path of the link, and the link."""

    path: bytes
    place: bytes
    found: Found


class _Layer:
    """A tree that is being added on top of the others."""

    def __init__(self, united: United, number: int, tree: Tree) -> None:
        self._united = united
        self._number = number
        self._tree = tree
        self._waiting: list[tuple[bytes, Place]] = [(b"", united.root())]
        self._late: list[_Late] = []  # to be tried in the next round
        self._round: list[_Late] = []  # to be tried in this one, a heap
        self._turn = b""  # the path of the one being tried
        self._dead: dict[bytes, _Late] = {}  # by path: their links do not lead to a directory yet
        self._decided_by: dict[bytes, set[bytes]] = {}  # those, by the paths that decide it
        self._tries: Counter[bytes] = Counter()
        self.through: list[bytes] = []

    def join(self) -> None:
        """Process all of its directories that other trees have too."""
        self._join_waiting()
        while self._late:
            self._round, self._late = self._late, []
            heapify(self._round)  # for an order independent of directory listings
            while self._round:
                self._go_through(heappop(self._round))
            self._turn = b""
        for _, late in sorted(self._dead.items()):
            self._give_up(late)

    def _join_waiting(self) -> None:
        while self._waiting:
            path, place = self._waiting.pop()
            others = [part for part in place.parts if part != Part(self._number, path)]
            for batch in _batches(self._tree.names(path)):
                found = self._united.found(others, [name for name, _ in batch])
                for name, seen in batch:
                    where = join(place.path, name)
                    if name in found:
                        upper = Found(Part(self._number, join(path, name)), seen)
                        self._meet(where, self._united.chosen(found[name]), upper)
                    self._try_again(self._decided_by.pop(where, ()))

    def _go_through(self, late: _Late) -> None:
        """Let a directory go through a link, if the link leads to a directory by now."""
        self._turn = late.path
        self._tries[late.path] += 1
        place = self._united.leads_to(late.place)
        if not isinstance(place, Place):
            if self._tries[late.path] == _MAX_TRIES:
                self._give_up(late)
                return
            self._dead[late.path] = late
            for decisive in place:
                self._decided_by.setdefault(decisive, set()).add(late.path)
            return
        self.through.append(late.path)
        self._waiting.append((late.path, self._united.go_through(place, Part(self._number, late.path))))
        self._join_waiting()

    def _give_up(self, late: _Late) -> None:
        upper = Found(Part(self._number, late.path), _A_DIRECTORY)
        self._united.clash(late.place, Why.DEAD_LINK, [late.found, upper])

    def _try_again(self, paths: Iterable[bytes]) -> None:
        """Retry directories after a change on the path of their links."""
        for path in paths:
            late = self._dead.pop(path, None)
            if late is None:
                continue
            if path > self._turn:
                heappush(self._round, late)
            else:
                self._late.append(late)

    def _meet(self, path: bytes, lower: list[Found], upper: Found) -> None:
        """Decide on an entry at a path that already exists."""
        united = self._united
        seen = max((each.seen for each in lower), key=time_of)
        verdict = united.rules.verdict(seen, upper.seen, lambda: united.is_full(path, lower))
        if verdict is Verdict.UNITE:
            parts = [*(each.part for each in lower), upper.part]
            self._waiting.append((upper.part.path, united.place(path, parts)))
        elif any(each.part.tree == self._number for each in lower):
            united.clash(path, Why.TWICE, [*lower, upper])
        elif verdict is Verdict.THROUGH:
            self._late.append(_Late(upper.part.path, path, lower[0]))
        elif isinstance(verdict, Why):
            united.clash(path, verdict, [*lower, upper])
        else:
            united.decided.add(path)
            if verdict is Verdict.UPPER:
                united.hide(lower, path)
                if seen.sort is Sort.DIRECTORY:
                    self._try_again(list(self._dead))
            else:
                united.hide([upper])


_A_DIRECTORY = Seen(Sort.DIRECTORY, what="directory")


def followed(
    start: T,
    path: bytes,
    *,
    root: T,
    above: Callable[[T], T],
    look: Callable[[T, bytes], T | bytes | None],
    allowance: Allowance | None = None,
) -> T | None:
    """Follow a path from a directory, through links, within `root`; None if it does not lead to one.

    `look` returns the entry of a name in a directory: another directory, the target of a link, or None. If a
    path is followed in several parts, these share its `allowance`.
    """
    allowance = allowance or Allowance()
    here, names = start, path.split(b"/")[::-1]
    while names:
        name = names.pop()
        if name in {b"", b"."}:
            continue
        if name == b"..":
            here = above(here)
            continue
        found = look(here, name)
        if found is None:
            return None
        if not isinstance(found, bytes):
            here = found
            continue
        if not allowance.take(found):
            return None
        names += found.split(b"/")[::-1]
        if found.startswith(b"/"):
            here = root
    return here


def join(path: bytes, name: bytes) -> bytes:
    """Append a name to a path in a tree."""
    return path + b"/" + name if path else name


def is_below(path: bytes, directory: bytes) -> bool:
    """Return whether a path is below a directory of a tree."""
    return not directory or path.startswith(directory + b"/")


def _batches(names: Iterable[tuple[bytes, Seen]]) -> Iterator[list[tuple[bytes, Seen]]]:
    batch: list[tuple[bytes, Seen]] = []
    for each in names:
        batch.append(each)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
