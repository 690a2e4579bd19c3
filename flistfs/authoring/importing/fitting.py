"""How what is added fits into a tree that is there, found out before anything changes;
see `flistfs.tree.uniting`.

Only names are read of the source, and only where the tree has something too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import trio

from flistfs.authoring.state.journal import Journal
from flistfs.authoring.state.records import ROOT_INO, Inode
from flistfs.errors import SourceError
from flistfs.sources.excludes import Filter
from flistfs.sources.reach import file_within_reach, within_reach
from flistfs.tree.uniting import (
    Allowance,
    Prefer,
    Rules,
    Seen,
    Sort,
    Tree,
    United,
    Why,
    followed,
    is_below,
    join,
)

DEAD_LINK = "a link that leads to no directory is there already"
"""Why a directory has no place that it has if it may replace links."""

_WHY = {
    Why.DIRECTORY: "a directory is there already",
    Why.NO_DIRECTORY: "something that is no directory is there already",
    Why.DEAD_LINK: DEAD_LINK,
    Why.TWICE: "it would be there twice because one of them goes through a link",
}


@dataclass(frozen=True, slots=True)
class Fit:
    """How a source fits into a tree.

    Attributes:
        late: Its directories that go through links, in the order in which they must come, after all else.
        refused: What has no place, and why.
    """

    late: Sequence[bytes] = ()
    refused: Mapping[bytes, str] = field(default_factory=dict)


def rules_of_adding(*, replace_links: bool) -> Rules:
    """Return the rules: what is no directory is replaced."""
    return Rules(Prefer.LAST, replace_links=replace_links, keep_directories=True)


def fit(sources: Sequence[SourceTree], lowest: Tree, rules: Rules) -> list[Fit]:
    """Find out how sources fit, one on top of the other (blocks)."""
    united, fits = United(rules, lowest), []
    for source in sources:
        known = set(united.conflicts)
        late = [source.name(path) for path in united.put(source)]
        refused = {
            source.name(conflict.upper.path): _WHY[conflict.why]
            for path, conflict in united.conflicts.items()
            if path not in known and source.has(conflict.upper.path)
        }
        fits.append(Fit(late, refused))
    return fits


class SourceTree:
    """A directory or file of this machine as a tree that is put on others."""

    def __init__(self, path: bytes, name: bytes, to: bytes, excluded: Filter) -> None:
        """Look at `path`, which becomes `name` in the directory `to` (empty: what is in it goes there)."""
        self._path = path
        self._to = to
        self._top = join(to, name) if name else to
        self._excluded = excluded

    def has(self, path: bytes) -> bool:
        """Say whether a path is one of the source's own, not of a directory that it goes to."""
        return path == self._top or is_below(path, self._top)

    def name(self, path: bytes) -> bytes:
        """Return a path as the source calls it: relative to where it goes."""
        return path[len(self._to) :].removeprefix(b"/")

    def names(self, directory: bytes) -> Iterator[tuple[bytes, Seen]]:
        """Walk what is in a directory; targets of links are left out."""
        if not self.has(directory):
            yield from self.look(directory, [self._next_name(directory)]).items()
            return
        with suppress(OSError), within_reach(self._place(directory)) as way, os.scandir(way) as entries:
            for entry in entries:
                with suppress(OSError):
                    is_directory = entry.is_dir(follow_symlinks=False)
                    if not self._excluded(self.name(join(directory, entry.name)), is_directory):
                        yield entry.name, Seen(_sort(is_directory, entry.is_symlink()))

    def look(self, directory: bytes, names: Sequence[bytes]) -> dict[bytes, Seen]:
        """Look names up in a directory."""
        if not self.has(directory):
            name = self._next_name(directory)
            if name not in names:
                return {}
            if join(directory, name) != self._top:
                return {name: Seen(Sort.DIRECTORY)}
            seen = self._seen(self._path, self._top)
            return {} if seen is None else {name: seen}
        place = self._place(directory)
        found = {name: self._seen(place + b"/" + name, join(directory, name)) for name in names}
        return {name: seen for name, seen in found.items() if seen is not None}

    def _seen(self, path: bytes, where: bytes) -> Seen | None:
        try:
            with file_within_reach(path) as way:
                mode = os.lstat(way).st_mode
                target = os.readlink(way) if stat.S_ISLNK(mode) else b""  # noqa: PTH115  bytes
        except OSError:
            return None
        if self._excluded(self.name(where), stat.S_ISDIR(mode)):
            return None
        return Seen(_sort(stat.S_ISDIR(mode), stat.S_ISLNK(mode)), target)

    def _next_name(self, directory: bytes) -> bytes:
        """Return the name in a directory above the source that leads to it."""
        return self._top[len(directory) :].removeprefix(b"/").split(b"/", 1)[0]

    def _place(self, directory: bytes) -> bytes:
        below = directory[len(self._top) :].removeprefix(b"/")
        return join(self._path, below) if below else self._path


class JournalTree:
    """The tree of a session, which is asked in the event loop, from a thread of trio's."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known = {b"": ROOT_INO}

    def names(self, directory: bytes) -> list[tuple[bytes, Seen]]:
        """Walk what is in a directory."""
        return trio.from_thread.run_sync(self._names, directory)

    def look(self, directory: bytes, names: Sequence[bytes]) -> dict[bytes, Seen]:
        """Look names up in a directory."""
        return trio.from_thread.run_sync(self._look, directory, names)

    def _names(self, directory: bytes) -> list[tuple[bytes, Seen]]:
        ino = self._number(directory)
        names = [] if ino is None else [entry.name for entry in self._journal.children(ino)]
        return list(self._look(directory, names).items())

    def _look(self, directory: bytes, names: Sequence[bytes]) -> dict[bytes, Seen]:
        ino = self._number(directory)
        found: dict[bytes, Seen] = {}
        if ino is None:
            return found
        for name in names:
            inode = child(self._journal, ino, name)
            if inode is None:
                continue
            found[name] = Seen(_sort(stat.S_ISDIR(inode.mode), stat.S_ISLNK(inode.mode)), inode.target)
            if stat.S_ISDIR(inode.mode):
                self._known[join(directory, name)] = inode.ino
        return found

    def _number(self, directory: bytes) -> int | None:
        """Return the number of a directory that was looked up before."""
        ino = self._known.get(directory)
        inode = None if ino is None else self._journal.inode(ino)
        return None if inode is None or not inode.nlink else inode.ino


def child(journal: Journal, parent: int, name: bytes) -> Inode | None:
    """Return what a directory has under a name."""
    entry = journal.child(parent, name)
    return None if entry is None else journal.inode(entry.ino)


def real_target(journal: Journal, path: bytes) -> bytes:
    """Follow the links in the path of a directory that things go to, as far as it is there.

    Raises:
        SourceError: something that is there is no directory, and leads to none.
    """

    def look(way: tuple[tuple[int, bytes], ...], name: bytes) -> tuple[tuple[int, bytes], ...] | bytes | None:
        inode = child(journal, way[-1][0] if way else ROOT_INO, name)
        if inode is None or not stat.S_ISDIR(inode.mode):
            return inode.target if inode is not None and stat.S_ISLNK(inode.mode) else None
        return *way, (inode.ino, name)

    way: tuple[tuple[int, bytes], ...] = ()
    root, allowance = way, Allowance()
    names = [name for name in path.split(b"/") if name]
    while names:
        further = followed(
            way, names[0], root=root, above=lambda way: way[:-1], look=look, allowance=allowance
        )
        if further is None:
            if child(journal, way[-1][0] if way else ROOT_INO, names[0]) is not None:
                raise SourceError(f"`to` {os.fsdecode(path)}: it leads to no directory")
            break
        way = further
        del names[0]
    return b"/".join([*(name for _, name in way), *names])


def _sort(is_directory: bool, is_link: bool) -> Sort:  # noqa: FBT001  both are what stat says
    return Sort.DIRECTORY if is_directory else Sort.LINK if is_link else Sort.OTHER
