"""The MD5 of packages, computed once for each: nodes ask for it before every download."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from pathlib import Path

from flistfs.util.closing import Closing

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS packages "
    "(path TEXT PRIMARY KEY, inode INTEGER, size INTEGER, mtime_ns INTEGER, md5 TEXT)"
)


class Checksums(Closing):
    """Checksums in a database, which may be lost. Its methods may be called from several threads."""

    def __init__(self, database: Path) -> None:
        """Keep them in a file, which is made if need be."""
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(database, check_same_thread=False, isolation_level=None)
        for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = NORMAL", _SCHEMA):
            self._connection.execute(statement)

    def md5(self, package: Path) -> str:
        """Return the MD5 of a file as 32 hex digits; blocks, and reads the file if it has changed.

        Raises:
            OSError: it cannot be read.
        """
        status = package.stat()
        now = (status.st_ino, status.st_size, status.st_mtime_ns)
        with self._lock:
            row = self._connection.execute(
                "SELECT inode, size, mtime_ns, md5 FROM packages WHERE path = ?", [str(package)]
            ).fetchone()
        if row is not None and row[:3] == now:
            return str(row[3])
        with package.open("rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        with self._lock:
            self._connection.execute(
                "INSERT OR REPLACE INTO packages VALUES (?, ?, ?, ?, ?)", [str(package), *now, md5]
            )
        return md5

    def close(self) -> None:
        """Close the database."""
        self._connection.close()
