"""The files that are left of an image, by where their content is: in a temporary database."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from flistfs.util.closing import Closing


class Files(Closing):
    """Paths by the numbers of the members with their content."""

    def __init__(self) -> None:
        # One thread at a time uses it, but not always the same.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN;"
            "CREATE TABLE files (origin INTEGER NOT NULL, path BLOB NOT NULL, PRIMARY KEY (origin, path)) "
            "WITHOUT ROWID"
        )

    def close(self) -> None:
        """Throw it away."""
        self._database.close()

    def add(self, path: bytes, origin: int) -> None:
        """Note that a file has the content of a member."""
        self._database.execute("INSERT INTO files VALUES (?, ?)", [origin, path])

    def between(self, first: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Yield the members from `first` on, before `end`, with the paths of each."""
        yield from self._database.execute(
            "SELECT origin, path FROM files WHERE origin >= ? AND origin < ? ORDER BY origin, path",
            [first, end],
        )
