"""The MD5 of packages, computed once for each: nodes ask for it before every download."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from flistfs.util.closing import Closing

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS packages "
    "(path TEXT PRIMARY KEY, inode INTEGER, size INTEGER, mtime_ns INTEGER, md5 TEXT)"
)


_MAX_KNOWN: Final = 100_000
"""How many are known without the database: some 30 MB of memory."""

_Identity: TypeAlias = tuple[int, int, int]  # what changes with a file: inode, size, time


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file as it was when it was opened: its MD5, its status, and maybe its content."""

    md5: str
    status: os.stat_result
    content: bytes | None


class Checksums(Closing):
    """Checksums in a database, which may be lost. Its methods may be called from several threads."""

    def __init__(self, database: Path) -> None:
        """Keep them in a file, which is made if need be, and made anew if it is damaged.

        Raises:
            OSError: it cannot be.
        """
        self._lock = threading.Lock()
        self._known: dict[str, tuple[_Identity, str]] = {}
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
        self._known.clear()
        with self._lock:
            self._connection.executemany("DELETE FROM packages WHERE path = ?", [(path,) for path in paths])

    def load(self, package: Path, most: int) -> Loaded:
        """Return what is told of a file, and its content if it has not more than `most` bytes; blocks.

        Raises:
            OSError: it cannot be read.
        """
        with package.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read() if status.st_size <= most else None
        if content is None:
            return Loaded(self.md5(package), status, None)
        identity = _identity_of(status)
        md5 = self._kept(package, identity)
        if md5 is None:
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            self._keep(package, identity, md5)
        return Loaded(md5, status, content)

    def known(self, package: Path) -> str | None:
        """Return the MD5 of a file if it was asked for already: a call of some microseconds.

        Raises:
            OSError: there is no such file.
        """
        return self._remembered(package, _identity(package))

    def _remembered(self, package: Path, identity: _Identity) -> str | None:
        known = self._known.get(str(package))
        return known[1] if known is not None and known[0] == identity else None

    def _kept(self, package: Path, identity: _Identity) -> str | None:
        known = self._remembered(package, identity)
        if known is not None:
            return known
        with self._lock:
            row = self._connection.execute(
                "SELECT inode, size, mtime_ns, md5 FROM packages WHERE path = ?", [str(package)]
            ).fetchone()
        if row is None or row[:3] != identity:
            return None
        self._remember(package, identity, str(row[3]))
        return str(row[3])

    def _keep(self, package: Path, identity: _Identity, md5: str) -> None:
        self._remember(package, identity, md5)
        with self._lock, suppress(sqlite3.OperationalError):  # the disk is full: it is computed once more
            self._connection.execute(
                "INSERT OR REPLACE INTO packages VALUES (?, ?, ?, ?, ?)", [str(package), *identity, md5]
            )

    def _remember(self, package: Path, identity: _Identity, md5: str) -> None:
        """Know an MD5 without asking the database, which one thread does at a time."""
        if len(self._known) >= _MAX_KNOWN:
            self._known.clear()
        self._known[str(package)] = identity, md5

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
    return _identity_of(package.stat())


def _identity_of(status: os.stat_result) -> _Identity:
    return status.st_ino, status.st_size, status.st_mtime_ns


def md5_of(path: Path) -> str:
    """Return the MD5 of a file as 32 hex digits; raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
