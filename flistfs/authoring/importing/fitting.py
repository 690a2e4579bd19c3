"""Check how a source fits into the tree of a session, before anything changes.

The rules are in `flistfs.tree.uniting`. Only names are read from the source, and only where the tree has
entries too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

import trio

from flistfs.authoring.state.journal import Journal
from flistfs.authoring.state.records import ROOT_INO, Inode
from flistfs.errors import SourceError
from flistfs.sources.fitting import _sort
from flistfs.tree.rules import Allowance, Seen
from flistfs.tree.uniting import followed, join


class JournalTree:
    """The tree of a session, for a trio worker thread; the journal is read in the event loop."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._known = {b"": ROOT_INO}

    def names(self, directory: bytes) -> list[tuple[bytes, Seen]]:
        """Return the entries of a directory."""
        return trio.from_thread.run_sync(self._names, directory)

    def look(self, directory: bytes, names: Sequence[bytes]) -> dict[bytes, Seen]:
        """Look up names in a directory."""
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
        """Return the inode number of a directory that was looked up before."""
        ino = self._known.get(directory)
        inode = None if ino is None else self._journal.inode(ino)
        return None if inode is None or not inode.nlink else inode.ino


def child(journal: Journal, parent: int, name: bytes) -> Inode | None:
    """Return the inode of a name in a directory; None if there is none."""
    entry = journal.child(parent, name)
    return None if entry is None else journal.inode(entry.ino)


def real_target(journal: Journal, path: bytes) -> bytes:
    """Return the path of a target directory with its links resolved, as far as it exists.

    Raises:
        SourceError: part of it exists, but is neither a directory nor a link to one.
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
                raise SourceError(f"`to` {os.fsdecode(path)}: it does not lead to a directory")
            break
        way = further
        del names[0]
    return b"/".join([*(name for _, name in way), *names])
