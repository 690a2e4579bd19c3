"""The write-ahead log of a database: the records that are newer than its tables.

Old packages have one, as their writer closed the database without flushing it. The log has the layout of a
MANIFEST (`manifest`); each record is a batch: sequence number (64 bits), count of changes (32 bits), and for
each change its type (one byte), the key and, unless it is deleted, the value.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from flistfs.errors import FormatError
from flistfs.format.rocksdb.block import UnsupportedTableError
from flistfs.format.rocksdb.encoding import Cursor
from flistfs.format.rocksdb.manifest import decode_log, read_file

Changes = dict[bytes, bytes | None]
"""The changed keys: their last value, or None if they were deleted."""

# Maximum bytes of logs kept in memory; RocksDB converts larger ones.
_MAX_SIZE: Final = 16 << 20

_SEQUENCE_SIZE: Final = 8
_COUNT_SIZE: Final = 4


class _Change(enum.IntEnum):
    DELETION = 0
    VALUE = 1


def read_logs(logs: Iterable[Path]) -> Changes:
    """Return all changes in logs, the oldest first.

    Raises:
        UnsupportedTableError: they are too large for memory, or unsupported here. Truncated logs are left to
            RocksDB.
        FormatError: they cannot be read.
    """
    changes: Changes = {}
    room = _MAX_SIZE
    for log in logs:
        raw = read_file(log, room)
        room -= len(raw)
        try:
            for record in decode_log(raw):
                changes.update(_changes(record))
        except FormatError as error:
            raise UnsupportedTableError(f"log {log.name}: {error}") from error
    return changes


def _changes(record: bytes) -> Iterator[tuple[bytes, bytes | None]]:
    cursor = Cursor(record)
    cursor.take(_SEQUENCE_SIZE)
    for _ in range(int.from_bytes(cursor.take(_COUNT_SIZE), "little")):
        match cursor.take(1)[0]:
            case _Change.VALUE:
                yield cursor.string(), cursor.string()
            case _Change.DELETION:
                yield cursor.string(), None
            case other:
                raise FormatError(f"a change of type {other}")
    if not cursor.at_end:
        raise FormatError("a batch has more changes than its header says")
