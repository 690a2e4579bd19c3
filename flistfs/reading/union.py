"""The united tree of several flists, each on top of those before it;
the rules are in `flistfs.tree.uniting`.

Only directories that several flists have are looked at before it is walked, and at nothing but names in them.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flistfs.errors import FormatError
from flistfs.format.zeroos.records import Entry, Link, SubDirectory
from flistfs.reading.flist import Flist, Node
from flistfs.tree.names import printable
from flistfs.tree.node import Kind
from flistfs.tree.uniting import Conflict, Part, Place, Prefer, Rules, Seen, Sort, United, Why, join

# Directories of an flist that are remembered: two are compared at a time, and links lead through others. Of
# small ones more, as many may unite in one place: so many with their entries, of about 500 bytes.
_REMEMBERED = 8
_REMEMBERED_ENTRIES = 16 << 10


@dataclass(frozen=True, slots=True)
class Clash:
    """A path that several flists have: the names of those, and what it is in each.

    `why` is what makes it one. `twice` are the paths of entries of one flist that would all be there; then
    `found` is of these alone.
    """

    path: bytes
    found: tuple[tuple[str, Kind], ...]
    why: Why = Why.UNDECIDED
    twice: tuple[bytes, ...] = ()

    @property
    def is_open(self) -> bool:
        """Say whether it can be decided by a preference alone."""
        return self.why is Why.UNDECIDED

    @property
    def reason(self) -> str:
        """Why no preference decides it, in words; nothing if one does."""
        if self.why is Why.TWICE:
            return (
                f"it would be there twice, through a link, as {' and as '.join(map(printable, self.twice))}"
            )
        return _REASONS.get(self.why, "")


_REASONS = {
    Why.DEAD_LINK: "the link leads to no directory",
    Why.FULL_DIRECTORY: "a link takes the place of no directory that has something in it",
}


def described(clash: Clash) -> str:
    """Say on one line what is where."""
    if clash.why is Why.TWICE:
        return f"{printable(clash.path)} in {clash.found[0][0]}: {clash.reason}"
    found = " and ".join(f"{name} ({kind})" for name, kind in clash.found)
    return f"{printable(clash.path)} is in {found}" + (f": {clash.reason}" if clash.reason else "")


class FlistTree:
    """An flist as a tree that unites with others. What is damaged is for whoever walks it to say."""

    def __init__(self, flist: Flist, *, by_time: bool) -> None:
        """Look at an flist; with `by_time` also at when directories were modified."""
        self._flist = flist
        self._by_time = by_time
        self._remembered: OrderedDict[bytes, Mapping[bytes, Entry]] = OrderedDict()
        self._entry_count = 0  # with the directories

    def names(self, directory: bytes) -> Iterator[tuple[bytes, Seen]]:
        """Walk what is in a directory."""
        for name, entry in self._entries(directory).items():
            yield name, self._seen(directory, name, entry)

    def look(self, directory: bytes, names: Sequence[bytes]) -> dict[bytes, Seen]:
        """Look names up in a directory."""
        entries = self._entries(directory)
        return {name: self._seen(directory, name, entries[name]) for name in names if name in entries}

    def _entries(self, directory: bytes) -> Mapping[bytes, Entry]:
        if directory in self._remembered:
            self._remembered.move_to_end(directory)
            return self._remembered[directory]
        try:
            record = self._flist.directory(directory)
        except FormatError:
            record = None
        entries = {} if record is None else {entry.name: entry for entry in record.entries}
        self._remembered[directory] = entries
        self._entry_count += 1 + len(entries)
        while len(self._remembered) > _REMEMBERED and self._entry_count > _REMEMBERED_ENTRIES:
            _, forgotten = self._remembered.popitem(last=False)
            self._entry_count -= 1 + len(forgotten)
        return entries

    def _seen(self, directory: bytes, name: bytes, entry: Entry) -> Seen:
        node = Node(join(directory, name), entry)
        time = entry.modification_time
        if self._by_time and isinstance(entry.attributes, SubDirectory):
            head = self._flist.head(node.path)
            time = 0 if head is None else head.modification_time
        return _seen(node, time)


def seen_of(node: Node) -> Seen:
    """Say what a node is to the rules."""
    return _seen(node, node.modification_time)


def _seen(node: Node, time: int) -> Seen:
    match node.entry.attributes:
        case SubDirectory():
            return Seen(Sort.DIRECTORY, time=time, what=node.kind)
        case Link(target=target):
            return Seen(Sort.LINK, target, time, node.kind)
        case _:
            return Seen(Sort.OTHER, time=time, what=node.kind)


class Union:
    """The united tree of flists."""

    def __init__(self, flists: Sequence[tuple[str, Flist]], rules: Rules) -> None:
        """Unite flists, by their names, the later on top.

        `clashes` says what keeps them from it.
        """
        self._names = [name for name, _ in flists]
        lowest, *others = [FlistTree(flist, by_time=rules.prefer is Prefer.NEWER) for _, flist in flists]
        self._united = United(rules, lowest)
        for tree in others:
            self._united.put(tree)
        self.clashes = [self._clash(conflict) for _, conflict in sorted(self._united.conflicts.items())]
        self.decided = len(self._united.decided)

    def root(self) -> Place:
        """Return the topmost directory."""
        return self._united.root()

    def below(self, place: Place, name: bytes, parts: Sequence[Part]) -> Place:
        """Return the directory of a name in another."""
        return self._united.place(join(place.path, name), parts)

    def own_parts(self, place: Place) -> list[Part]:
        """Return those of a directory's parts of which one gives it its attributes."""
        return self._united.own_parts(place)

    def chosen(self, found: Sequence[Node]) -> list[int]:
        """Return which entries of a name, in the order of their flists, are to be there: by their numbers."""
        return self._united.rules.chosen([seen_of(node) for node in found]) if len(found) > 1 else [0]

    def hidden(self) -> dict[str, list[bytes]]:
        """Return what is hidden by something else, by the names of the flists that it is in."""
        hidden: dict[str, list[bytes]] = {}
        for part in sorted(self._united.hidden):
            hidden.setdefault(self._names[part.tree], []).append(part.path)
        return hidden

    def _clash(self, conflict: Conflict) -> Clash:
        found = sorted(conflict.found.items(), key=lambda each: each[0].tree)
        twice: tuple[bytes, ...] = ()
        if conflict.why is Why.TWICE:
            ((tree, _),) = Counter(part.tree for part, _ in found).most_common(1)
            found = [(part, seen) for part, seen in found if part.tree == tree]
            twice = tuple(part.path for part, _ in found)
        kinds = tuple((self._names[part.tree], Kind(seen.what)) for part, seen in found)
        return Clash(conflict.path, kinds, conflict.why, twice)
