"""The merged tree of several flists, each on top of those before it.

The rules are in `flistfs.tree.uniting`. Before the tree is walked, only directories that several flists have
are read, and only for their names.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from flistfs.errors import FormatError
from flistfs.reading.flist import Flist
from flistfs.tree.names import printable
from flistfs.tree.node import Kind, Node
from flistfs.tree.rules import Conflict, Part, Place, Prefer, Rules, Seen, Sort, Why
from flistfs.tree.uniting import United, join

# Directories of an flist to cache: two are compared at a time, and links lead through others. More if they
# are small, as many may be merged in one place: up to this many entries, of about 500 bytes each.
_REMEMBERED = 8
_REMEMBERED_ENTRIES = 16 << 10


@dataclass(frozen=True, slots=True)
class Clash:
    """A path that several flists have: the names of those, and the kind of entry in each.

    `why` is the reason of the clash. `twice` are the paths of entries of one flist that would all end up
    there; then `found` contains only these.
    """

    path: bytes
    found: tuple[tuple[str, Kind], ...]
    why: Why = Why.UNDECIDED
    twice: tuple[bytes, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether a preference alone decides it."""
        return self.why is Why.UNDECIDED

    @property
    def reason(self) -> str:
        """Why a preference cannot decide it, for messages; empty if one can."""
        if self.why is Why.TWICE:
            return f"it would exist twice, through a link, as {' and as '.join(map(printable, self.twice))}"
        return _REASONS.get(self.why, "")


_REASONS = {
    Why.DEAD_LINK: "the link does not lead to a directory",
    Why.FULL_DIRECTORY: "a link does not replace a directory that is not empty",
}


def described(clash: Clash) -> str:
    """Return one line that describes a clash."""
    if clash.why is Why.TWICE:
        return f"{printable(clash.path)} in {clash.found[0][0]}: {clash.reason}"
    found = " and ".join(f"{name} ({kind})" for name, kind in clash.found)
    return f"{printable(clash.path)} is in {found}" + (f": {clash.reason}" if clash.reason else "")


class FlistTree:
    """An flist as a tree that unites with others. Damage is reported when it is walked."""

    def __init__(self, flist: Flist, *, by_time: bool) -> None:
        """Use an flist; with `by_time`, also the modification times of its directories."""
        self._flist = flist
        self._by_time = by_time
        self._remembered: OrderedDict[bytes, Mapping[bytes, Node]] = OrderedDict()
        self._entry_count = 0  # including the directories

    def names(self, directory: bytes) -> Iterator[tuple[bytes, Seen]]:
        """Yield the entries of a directory."""
        for name, node in self._entries(directory).items():
            yield name, self._seen(node)

    def look(self, directory: bytes, names: Sequence[bytes]) -> dict[bytes, Seen]:
        """Look up names in a directory."""
        entries = self._entries(directory)
        return {name: self._seen(entries[name]) for name in names if name in entries}

    def _entries(self, directory: bytes) -> Mapping[bytes, Node]:
        if directory in self._remembered:
            self._remembered.move_to_end(directory)
            return self._remembered[directory]
        try:
            listing = self._flist.listing(directory) or ()
        except FormatError:
            listing = ()
        start = len(directory) + 1 if directory else 0
        entries = {node.path[start:]: node for node in listing}
        self._remembered[directory] = entries
        self._entry_count += 1 + len(entries)
        while len(self._remembered) > _REMEMBERED and self._entry_count > _REMEMBERED_ENTRIES:
            _, forgotten = self._remembered.popitem(last=False)
            self._entry_count -= 1 + len(forgotten)
        return entries

    def _seen(self, node: Node) -> Seen:
        time = node.mtime
        if self._by_time and node.kind is Kind.DIRECTORY:
            directory = self._flist.directory(node.path)
            time = 0 if directory is None else directory.mtime
        return _seen(node, time)


def seen_of(node: Node) -> Seen:
    """Return a node as the rules see it."""
    return _seen(node, node.mtime)


def _seen(node: Node, time: int) -> Seen:
    if node.kind is Kind.DIRECTORY:
        return Seen(Sort.DIRECTORY, time=time, what=node.kind)
    if node.target is not None:
        return Seen(Sort.LINK, node.target, time, node.kind)
    return Seen(Sort.OTHER, time=time, what=node.kind)


class Union:
    """The merged tree of flists."""

    def __init__(self, flists: Sequence[tuple[str, Flist]], rules: Rules) -> None:
        """Merge flists, given with their names, the later on top.

        `clashes` lists the conflicts.
        """
        self._names = [name for name, _ in flists]
        lowest, *others = [FlistTree(flist, by_time=rules.prefer is Prefer.NEWER) for _, flist in flists]
        self._united = United(rules, lowest)
        for tree in others:
            self._united.put(tree)
        self.clashes = [self._clash(conflict) for _, conflict in sorted(self._united.conflicts.items())]
        self.decided = len(self._united.decided)

    def root(self) -> Place:
        """Return the root directory."""
        return self._united.root()

    def below(self, place: Place, name: bytes, parts: Sequence[Part]) -> Place:
        """Return the directory of a name in another."""
        return self._united.place(join(place.path, name), parts)

    def own_parts(self, place: Place) -> list[Part]:
        """Return the parts of a directory that may provide its attributes."""
        return self._united.own_parts(place)

    def chosen(self, found: Sequence[Node]) -> list[int]:
        """Return the indexes of the winners among the entries of a name, in the order of their flists."""
        return self._united.rules.chosen([seen_of(node) for node in found]) if len(found) > 1 else [0]

    def hidden(self) -> dict[str, list[bytes]]:
        """Return the paths hidden by something else, by the names of their flists."""
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
