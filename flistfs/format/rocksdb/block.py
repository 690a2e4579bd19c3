"""Read blocks of a RocksDB table file, within bounds whatever they claim.

Layout (RocksDB's `table/format.cc` and `block_based/block_builder.cc`, format_version 1 to 5):

- block: entries, the offsets of the restart points (32 bits each), their count (32 bits); then a trailer
  of the compression type (one byte) and the masked CRC32c of all before it
- entry: varints of the bytes shared with the previous key, the other bytes of the key, the bytes of the
  value; then the other bytes of the key, and the value
- handle: varints of offset and size, the trailer not counted

A right checksum proves nothing: damage done on purpose comes with a new one. So every number is checked
before it is used, and no more is allocated than the bytes at hand can hold.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain, repeat
from typing import Final, NamedTuple, Self

import cramjam

from flistfs.errors import FormatError
from flistfs.format.rocksdb.encoding import Cursor, masked_crc32c, varint

TRAILER_SIZE: Final = 5
"""Bytes after a block: its compression type and its checksum."""

_UNCOMPRESSED: Final = 0
_SNAPPY: Final = 1
# The densest snappy element encodes 64 bytes in three.
_SNAPPY_RATIO: Final = 22
_SNAPPY_SPARE: Final = 64

# The count of restart points has this bit set if a hash table follows them.
_HASHED: Final = 1 << 31

_NO_RESTART: Final = 1 << 32  # after the last one

# Bytes of all keys in a block, expanded: a prefix is stored once and can be used by every key. Catalogs have
# keys of 72 bytes, of which an entry stores at least 13.
_MAX_KEY_RATIO: Final = 8
_SPARE_KEYS: Final = 1 << 20


class UnsupportedTableError(FormatError):
    """A table of a kind that is not supported here, and not necessarily damaged: RocksDB may support it."""


class BlockHandle(NamedTuple):
    """The location of a block: offset and size in bytes, without its trailer."""

    offset: int
    size: int

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Return the handle at the start of `raw`."""
        offset, position = _varint(raw, 0)
        size, _ = _varint(raw, position)
        return cls(offset, size)

    @property
    def end(self) -> int:
        """The offset after the block's trailer."""
        return self.offset + self.size + TRAILER_SIZE

    def encode(self) -> bytes:
        """Return the encoded handle."""
        return varint(self.offset) + varint(self.size)


def read_block(descriptor: int, handle: BlockHandle, limit: int) -> bytes:
    """Return the contents of a block, decompressed; its checksum is CRC32c.

    Raises:
        FormatError: it has more than `limit` bytes, is past the file's end, or its checksum does not match.
        UnsupportedTableError: it is compressed with something other than snappy.
    """
    if handle.size > limit:
        raise FormatError(f"a block of {handle.size} bytes in a table is too large")
    raw = _read(descriptor, handle.offset, handle.size + TRAILER_SIZE)
    if len(raw) != handle.size + TRAILER_SIZE:
        raise FormatError("a block of a table is truncated")
    if masked_crc32c(raw[:-4]) != raw[-4:]:
        raise FormatError("a block of a table does not match its checksum")
    kind = raw[-TRAILER_SIZE]
    contents = raw[:-TRAILER_SIZE]
    if kind == _UNCOMPRESSED:
        return contents
    if kind != _SNAPPY:
        raise UnsupportedTableError(f"a block of a table has an unsupported compression ({kind})")
    return _decompressed(contents, limit)


def block_entries(
    contents: bytes, *, last_start: int | None = None, most: int | None = None
) -> list[tuple[bytes, int, int]]:
    """Return the entries of a block: the key, and the start and end of the value in `contents`.

    Args:
        contents: The block.
        last_start: The largest allowed start of the last entry.
        most: The maximum number of entries.

    Raises:
        FormatError: it is malformed, or its keys are longer than legitimate ones.
        UnsupportedTableError: it is a block with a hash table, or an entry begins after `last_start`.
    """
    end, restarts = _restarts(contents)
    restart = next(restarts)
    last_start = end if last_start is None else last_start
    most = end if most is None else most
    room = _SPARE_KEYS + _MAX_KEY_RATIO * end
    found: list[tuple[bytes, int, int]] = []
    key = b""
    position = 0
    while position < end:
        if position > last_start:
            raise UnsupportedTableError("a block of a table has more entries than supported")
        # Nearly all key lengths take one byte, and value lengths two; after `end` there are four more bytes.
        shared, other, size = contents[position], contents[position + 1], contents[position + 2]
        high = contents[position + 3]
        if shared < 0x80 and other < 0x80 and size < 0x80:
            start = position + 3 + other
        elif shared < 0x80 and other < 0x80 and high < 0x80:
            size, start = size & 0x7F | high << 7, position + 4 + other
        else:
            shared, start = _varint(contents, position)
            other, start = _varint(contents, start)
            size, start = _varint(contents, start)
            start += other
        if shared > len(key) or start + size > end:
            raise FormatError("an entry in a block of a table exceeds the block")
        if position == restart:
            if shared:
                break
            restart = next(restarts)
        key = key[:shared] + contents[start - other : start]
        position = start + size
        room -= len(key)
        found.append((key, start, position))
        if room < 0 or len(found) > most:
            raise FormatError("a block of a table has too many keys, or too long ones")
    if restart != _NO_RESTART:
        raise FormatError("a block of a table has a restart point without a complete key")
    return found


def _restarts(contents: bytes) -> tuple[int, Iterator[int]]:
    """Return the end of the entries, and the restart points, which only other readers use, to seek."""
    count = int.from_bytes(contents[-4:], "little")
    if count & _HASHED:
        raise UnsupportedTableError("a block of a table has a hash table")
    end = len(contents) - 4 * (count + 1)
    if end < 0:
        raise FormatError("a block of a table is too short for its restart points")
    points = (int.from_bytes(contents[at : at + 4], "little") for at in range(end, len(contents) - 4, 4))
    return end, chain(points, repeat(_NO_RESTART))


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    """Return the number at a position, and its end."""
    cursor = Cursor(raw, position)
    return cursor.varint(), cursor.position


def _read(descriptor: int, offset: int, size: int) -> bytes:
    try:
        # Not mapped into memory: a file that is truncated meanwhile would crash the process.
        return os.pread(descriptor, size, offset)
    except (OSError, OverflowError) as error:
        raise FormatError(f"a table cannot be read at {offset}: {error}") from error


def _decompressed(packed: bytes, limit: int) -> bytes:
    try:
        promised = cramjam.snappy.decompress_raw_len(packed)
        if promised > min(limit, _SNAPPY_RATIO * len(packed) + _SNAPPY_SPARE):
            raise FormatError(f"a block of a table claims to decompress to {promised} bytes")
        return bytes(cramjam.snappy.decompress_raw(packed))
    except (ValueError, cramjam.DecompressionError) as error:
        raise FormatError(f"a block of a table cannot be decompressed ({error})") from error
