"""What of a source is in the tree of a session already, from an import that was interrupted."""

from __future__ import annotations

import stat

import trio

from flistfs.authoring.importing.fitting import child
from flistfs.authoring.state.journal import Journal
from flistfs.authoring.state.records import ROOT_INO


class Present:
    """The entries that are no directories; for a trio worker thread that walks a source by directories.

    An import puts a file into the tree once all its blocks are stored, so what is there is whole.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._latest: tuple[bytes, frozenset[bytes]] | None = None

    def has(self, path: bytes) -> bool:
        """Return whether an entry was there when its directory was first asked about."""
        directory, _, name = path.rpartition(b"/")
        if self._latest is None or self._latest[0] != directory:
            self._latest = directory, trio.from_thread.run_sync(self._names, directory)
        return name in self._latest[1]

    def _names(self, directory: bytes) -> frozenset[bytes]:
        ino = ROOT_INO
        for name in filter(None, directory.split(b"/")):
            inode = child(self._journal, ino, name)
            if inode is None:
                return frozenset()
            ino = inode.ino
        return frozenset(entry.name for entry in self._journal.children(ino) if not stat.S_ISDIR(entry.kind))
