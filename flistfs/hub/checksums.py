"""The MD5 of packages, computed once for each: nodes ask for it before every download."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from flistfs.util.closing import Closing

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS packages "
    "(path TEXT PRIMARY KEY, inode INTEGER, size INTEGER, mtime_ns INTEGER, md5 TEXT)"
)


_Identity: TypeAlias = tuple[int, int, int]  # what changes with a file: inode, size, time


class Checksums(Closing):
    """Checksums in a database, which may be lost. Its methods may be called from several threads."""

    def __init__(self, database: Path) -> None:
        """Keep them in a file, which is made if need be, and made anew if it is damaged.

        Raises:
            OSError: it cannot be.
        """
        self._lock = threading.Lock()
        try:
            self._connection = _opened(database)
        except sqlite3.DatabaseError:
            for suffix in ("", "-wal", "-shm"):
                database.with_name(database.name + suffix).unlink(missing_ok=True)
            self._connection = _opened(database)

    def md5(self, package: Path) -> str:
        """Return the MD5 of a file as 32 hex digits; blocks, and reads the file if it has changed.

        Raises:
            OSError: it cannot be read.
        """
        identity = _identity(package)
        kept = self._kept(package, identity)
        if kept is not None:
            return kept
        md5 = md5_of(package)
        self._keep(package, identity, md5)
        return md5

    def is_right(self, package: Path, *, repair: bool) -> bool:
        """Return whether the MD5 that is kept of a file, if any is, is still that of its content (blocks).

        With `repair` the right one is kept from then on.

        Raises:
            OSError: it cannot be read.
        """
        identity = _identity(package)
        kept, md5 = self._kept(package, identity), md5_of(package)
        if repair:
            self._keep(package, identity, md5)
        return kept is None or kept == md5

    def paths(self) -> list[Path]:
        """Return the paths of all files of which one is kept."""
        with self._lock:
            return [Path(path) for (path,) in self._connection.execute("SELECT path FROM packages")]

    def forget(self, paths: Iterable[str]) -> None:
        """Keep none of these files."""
        with self._lock:
            self._connection.executemany("DELETE FROM packages WHERE path = ?", [(path,) for path in paths])

    def _kept(self, package: Path, identity: _Identity) -> str | None:
        with self._lock:
            row = self._connection.execute(
                "SELECT inode, size, mtime_ns, md5 FROM packages WHERE path = ?", [str(package)]
            ).fetchone()
        return str(row[3]) if row is not None and row[:3] == identity else None

    def _keep(self, package: Path, identity: _Identity, md5: str) -> None:
        with self._lock:
            self._connection.execute(
                "INSERT OR REPLACE INTO packages VALUES (?, ?, ?, ?, ?)", [str(package), *identity, md5]
            )

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


def _opened(database: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
    try:
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", _SCHEMA):
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _identity(package: Path) -> _Identity:
    status = package.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def md5_of(path: Path) -> str:
    """Return the MD5 of a file as 32 hex digits; raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
