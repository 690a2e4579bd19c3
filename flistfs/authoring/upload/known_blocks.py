"""Which block a chunk becomes, remembered: that saves encoding what was encoded before.

Encoding is deterministic, so what is remembered holds for every store and session; whether a store has the
block is asked all the same. Chunks of some size are remembered across sessions, in a database in the user's
cache directory, which may be removed at any time; small ones only as long as the process lives, since
encoding one of 16 KiB costs no more than looking it up.
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

# Chunks of fewer bytes are not worth a row of the database.
_MIN_SIZE = 64 << 10

# Names kept in memory: some 300 bytes each.
_RECENT = 16_384

# Rows kept in the database, about 200 bytes each. When there are more, the older half goes.
_MAX_ROWS = 2_000_000

# Seconds to wait for another process that writes.
_PATIENCE = 1.0

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS block"
    " (number INTEGER PRIMARY KEY, key BLOB UNIQUE, hash BLOB, size INTEGER) STRICT"
)


class Known(NamedTuple):
    """What is known of a block: its hash, and its size as stored, in bytes."""

    hash: bytes
    size: int


class KnownBlocks:
    """Hashes and sizes of blocks, by the keys of their chunks. Never fails: it only knows less."""

    def __init__(self, path: Path | None = None) -> None:
        """Use the database at `path`, made if need be; without one nothing outlives this process."""
        self._recent: dict[bytes, Known] = {}
        self._database = None if path is None else _open(path)

    def find(self, chunks: Mapping[bytes, bytes]) -> dict[bytes, Known]:
        """Return what is known of the blocks of these chunks, given by their keys."""
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
            log.debug("not remembered: %s", error)  # another process is writing, or the disk is full
        except sqlite3.Error as error:
            self._give_up(error)

    def _give_up(self, error: sqlite3.Error) -> None:
        log.info("blocks of earlier sessions are not remembered: %s", error)
        self._database = None


def known_blocks_path() -> Path:
    """Return where the user's database is."""
    return platformdirs.user_cache_path("flistfs") / "blocks.sqlite3"


def _open(path: Path) -> sqlite3.Connection | None:
    for _ in range(2):
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return _prepared(path)
        except sqlite3.DatabaseError as error:
            log.info("%s is unusable and begun anew: %s", path, error)
            if isinstance(error, sqlite3.OperationalError):
                return None  # locked, or the disk is full: no fault of the file
            _remove(path)
        except OSError as error:
            log.info("%s cannot be written: %s", path.parent, error)
            return None
    return None


def _prepared(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_PATIENCE, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")  # a crash of the machine may cost the last rows
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
