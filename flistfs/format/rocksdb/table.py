"""A table of a catalog, open for reading.

A package is not trusted, but RocksDB itself trusts everything in a table that has a valid checksum: of 12,000
packages with damaged blocks, 47 crashed the process that opened them. So the usual kind of table is read
here: format_version 2 with CRC32c, and one value per key. Memory holds the index (some 150 bytes for each
4 KiB) and the most recently used blocks; everything that a table claims is checked first.

In a table each key is followed by eight bytes: the type of the entry (one byte) and its sequence number. The
index has an entry for each block, whose key is not before the last one of the block and before the first one
of the next.
"""

from __future__ import annotations

import bisect
import os
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Final, Self

from flistfs.errors import FormatError
from flistfs.format.rocksdb.block import BlockHandle, UnsupportedTableError, block_entries, read_block
from flistfs.format.rocksdb.encoding import Cursor
from flistfs.format.rocksdb.sst import CHECKSUM_CRC32C, read_footer, read_properties

_VERSION: Final = 2
_COMPARATOR: Final = b"leveldb.BytewiseComparator"
_BINARY_SEARCH: Final = bytes(4)  # the type of the index, 32 bits
_VALUE: Final = 1  # the type of an entry
_TRAILER: Final = 8  # bytes behind a key

# Maximum bytes of a block, and of an index: four times the largest record that readers accept.
_MAX_BLOCK: Final = 256 << 20

# A block ends with the entry that fills it, at 4 KiB by default. With many more entries per block each lookup
# would take longer, as all of them are decoded.
_LAST_START: Final = 64 << 10

# The least average size of blocks, which bounds the index with all its entries in memory.
_MIN_BLOCK: Final = 128
_SPARE_BLOCKS: Final = 16

# Bytes of a value that is not cached, but read again.
_LARGE: Final = 64 << 10
# Bytes of cached blocks: those of 100,000 entries are read once, even if each file has its own directory.
# RocksDB caches 32 MiB, without the positions of the values.
_KEPT: Final = 48 << 20
_SPAN: Final = 250  # bytes of memory for a key and the position of its value

# Properties that count entries other than values (a varint each).
_OTHER_ENTRIES: Final = (
    b"rocksdb.deleted.keys",
    b"rocksdb.merge.operands",
    b"rocksdb.num.range-deletions",
)
# Properties of an index with another encoding.
_OTHER_INDEX: Final = (b"rocksdb.index.key.is.user.key", b"rocksdb.index.value.is.delta.encoded")

# The position of each key's value in a block, in ascending order of keys.
_Spans = dict[bytes, tuple[int, int]]


class Table:
    """A table: sorted pairs of key and value. May be used from several threads at once."""

    def __init__(self, descriptor: int, lasts: list[bytes], handles: list[BlockHandle], records: int) -> None:
        """Own `descriptor`, an open file whose blocks `handles` end at the keys `lasts`."""
        self.estimated_records = records
        self._descriptor = descriptor
        self._lasts = lasts
        self._handles = handles
        self._kept: OrderedDict[int, tuple[bytes, _Spans]] = OrderedDict()  # most recently used last
        self._kept_size = 0
        self._lock = Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the file `path`, which may be unlinked afterwards.

        Raises:
            FormatError: it cannot be read, or the parts read on opening are damaged.
            UnsupportedTableError: it is a table of another kind.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise FormatError(f"table {path.name} cannot be read: {error.strerror}") from error
        try:
            size = os.fstat(descriptor).st_size
            index, records = _head(path, size)
            lasts, handles = _index(descriptor, index)
            table = cls(descriptor, lasts, handles, min(records, size // _TRAILER))
            table._load(0)  # entries of another kind would be in every block
        except BaseException:
            os.close(descriptor)
            raise
        return table

    def close(self) -> None:
        """Close the file. May be called twice; reading then fails."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None if there is none.

        Raises:
            FormatError: the table is damaged there.
        """
        number = bisect.bisect_left(self._lasts, key)
        if number == len(self._lasts):
            return None
        head, spans = self._block(number)
        span = spans.get(key)
        if span is None:
            return None
        start, end = span
        return (head if end <= len(head) else self._load(number)[0])[start:end]

    def has(self, key: bytes) -> bool:
        """Return whether `key` exists; its value is read only along with its block, which is kept.

        Raises:
            FormatError: the table is damaged there.
        """
        number = bisect.bisect_left(self._lasts, key)
        return number < len(self._lasts) and key in self._block(number)[1]

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all pairs of key and value, in ascending order of keys.

        Raises:
            FormatError: the table is damaged; what was yielded before is valid.
        """
        for number in range(len(self._handles)):
            contents, spans = self._load(number)
            for key, (start, end) in spans.items():
                yield key, contents[start:end]

    def _block(self, number: int) -> tuple[bytes, _Spans]:
        """Return a block (a large value at its end is not cached), and the positions of the values."""
        with self._lock:
            kept = self._kept.get(number)
            if kept is not None:
                self._kept.move_to_end(number)
                return kept
        contents, spans = self._load(number)
        start, end = next(reversed(spans.values()))
        block = contents if end - start < _LARGE else contents[:start], spans
        with self._lock:
            if number not in self._kept:
                self._kept[number] = block
                self._kept_size += _memory(block)
            while self._kept_size > _KEPT:
                self._kept_size -= _memory(self._kept.popitem(last=False)[1])
        return block

    def _load(self, number: int) -> tuple[bytes, _Spans]:
        """Read a block: its contents, and the positions of the values in it."""
        if self._descriptor < 0:
            raise ValueError("the table is closed")
        contents = read_block(self._descriptor, self._handles[number], _MAX_BLOCK)
        before = self._lasts[number - 1] if number else None
        spans: _Spans = {}
        for internal, start, end in block_entries(contents, last_start=_LAST_START):
            key = internal[:-_TRAILER]
            if len(internal) < _TRAILER or internal[-_TRAILER] != _VALUE:
                raise UnsupportedTableError("an entry of a table is not a value")
            if before is not None and key <= before:
                raise FormatError("the keys of a table do not ascend")
            before = key
            spans[key] = start, end
        if not spans or (before is not None and before > self._lasts[number]):
            raise FormatError("the index of a table does not match its blocks")
        return contents, spans


def _memory(block: tuple[bytes, _Spans]) -> int:
    return len(block[0]) + _SPAN * len(block[1])


def _head(path: Path, size: int) -> tuple[BlockHandle, int]:
    """Return the location of a table's index, and the table's claimed number of records."""
    footer = read_footer(path)
    if footer.version != _VERSION or footer.checksum != CHECKSUM_CRC32C:
        raise UnsupportedTableError(f"a table of version {footer.version}, checksum {footer.checksum}")
    if max(footer.index.end, footer.metaindex.end) > size:
        raise FormatError("the index of a table is past its end")
    properties = read_properties(path)
    if (
        properties.get(b"rocksdb.comparator", _COMPARATOR) != _COMPARATOR  # RocksDB 5 does not record it here
        or properties.get(b"rocksdb.block.based.table.index.type") != _BINARY_SEARCH
        or any(Cursor(properties.get(name, b"\0")).varint() for name in (*_OTHER_ENTRIES, *_OTHER_INDEX))
    ):
        raise UnsupportedTableError("a table with other entries than values, or of another order")
    return footer.index, Cursor(properties.get(b"rocksdb.num.entries", b"\0")).varint()


def _index(descriptor: int, where: BlockHandle) -> tuple[list[bytes], list[BlockHandle]]:
    """Read an index: for each block a key that is not before its last one, and the block's location."""
    contents = read_block(descriptor, where, _MAX_BLOCK)
    lasts: list[bytes] = []
    handles: list[BlockHandle] = []
    position = 0
    for internal, start, end in block_entries(contents, most=where.offset // _MIN_BLOCK + _SPARE_BLOCKS):
        key, handle = _user_key(internal), BlockHandle.decode(contents[start:end])
        if handle.offset < position or handle.end > where.offset:
            raise FormatError("the blocks of a table overlap, or are past its end")
        if lasts and key <= lasts[-1]:
            raise FormatError("the keys of a table's index do not ascend")
        position = handle.end
        lasts.append(key)
        handles.append(handle)
    if not handles:
        raise FormatError("a table has no blocks")
    return lasts, handles


def _user_key(internal: bytes) -> bytes:
    if len(internal) < _TRAILER:
        raise FormatError("a key of a table is too short")
    return internal[:-_TRAILER]
