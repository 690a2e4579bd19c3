"""A cache of the blocks that chunks encode to, to avoid encoding a chunk twice.

Encoding is deterministic, so entries hold for every store and session; the store is queried for the block all
the same. Large chunks are cached across sessions, in a database in the user's cache directory, which may be
removed at any time; small ones only while the process lives, since encoding one of 16 KiB takes no longer
than looking it up.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import platformdirs

log = logging.getLogger(__name__)

# Chunks of fewer bytes are not worth a database row.
_MIN_SIZE = 64 << 10

# Entries kept in memory: some 300 bytes each.
_RECENT = 16_384

# Rows kept in the database, about 200 bytes each. When there are more, the older half is deleted.
_MAX_ROWS = 2_000_000

# Seconds to wait for another process that is writing.
_BUSY_TIMEOUT = 1.0

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS block"
    " (number INTEGER PRIMARY KEY, key BLOB UNIQUE, hash BLOB, size INTEGER) STRICT"
)


class Known(NamedTuple):
    """A block's hash, and its size as stored, in bytes."""

    hash: bytes
    size: int


class KnownBlocks:
    """Hashes and sizes of blocks, by the keys of their chunks. Never fails: errors only cost entries."""

    def __init__(self, path: Path | None = None) -> None:
        """Use the database at `path`, created if needed; without one nothing outlives this process."""
        self._recent: dict[bytes, Known] = {}
        self._database = None if path is None else _open(path)

    def find(self, chunks: Mapping[bytes, bytes]) -> dict[bytes, Known]:
        """Return the known blocks of these chunks (content by key), by key."""
        found = {key: self._recent[key] for key in chunks if key in self._recent}
        wanted = [key for key, chunk in chunks.items() if len(chunk) >= _MIN_SIZE and key not in found]
        return found | self._look_up(wanted)

    def note(self, chunks: Mapping[bytes, bytes], blocks: Mapping[bytes, Known]) -> None:
        """Remember the blocks of these chunks."""
        new = [key for key in chunks if self._recent.get(key) != blocks[key]]
        self._recent.update((key, blocks[key]) for key in new)
        for key in list(islice(self._recent, max(0, len(self._recent) - _RECENT))):
            del self._recent[key]
        self._keep((key, *blocks[key]) for key in new if len(chunks[key]) >= _MIN_SIZE)

    def _look_up(self, keys: list[bytes]) -> dict[bytes, Known]:
        if not keys or self._database is None:
            return {}
        marks = ",".join("?" * len(keys))
        try:
            rows = self._database.execute(f"SELECT key, hash, size FROM block WHERE key IN ({marks})", keys)  # noqa: S608
            return {key: Known(block_hash, size) for key, block_hash, size in rows}
        except sqlite3.Error as error:
            self._give_up(error)
            return {}

    def _keep(self, blocks: Iterable[tuple[bytes, bytes, int]]) -> None:
        rows = list(blocks)
        if not rows or self._database is None:
            return
        try:
            with self._database:
                self._database.executemany(
                    "INSERT OR REPLACE INTO block (key, hash, size) VALUES (?, ?, ?)", rows
                )
        except sqlite3.OperationalError as error:
            log.debug("not cached: %s", error)  # another process is writing, or the disk is full
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: sqlite3.Error) -> None:
        log.info("the cache of known blocks is not used: %s", error)
        self._database = None


def known_blocks_path() -> Path:
    """Return the path of the user's database."""
    return platformdirs.user_cache_path("flistfs") / "blocks.sqlite3"


def _open(path: Path) -> sqlite3.Connection | None:
    for _ in range(2):
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _prepared(path)
        except sqlite3.DatabaseError as error:
            log.info("%s is unusable and is created anew: %s", path, error)
            if isinstance(error, sqlite3.OperationalError):
                return None  # locked, or the disk is full: not the file's fault
            _remove(path)
        except OSError as error:
            log.info("%s cannot be written: %s", path.parent, error)
            return None
    return None


def _prepared(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_TIMEOUT, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")  # a crash of the machine may lose the last rows
    database.execute(_SCHEMA)
    ((last,),) = database.execute("SELECT max(number) FROM block")
    ((first,),) = database.execute("SELECT min(number) FROM block")
    if last is not None and last - first > _MAX_ROWS:
        with database:
            database.execute("DELETE FROM block WHERE number < ?", (last - _MAX_ROWS // 2,))
    return database


def _remove(path: Path) -> None:
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        name.unlink(missing_ok=True)
