"""The MANIFEST of a catalog, and the CURRENT that names it.

A MANIFEST is a log of version edits. A newer RocksDB writes tags into it that RocksDB 5.2.1, the oldest
that reads flists, rejects (`VersionEdit: unknown tag`). A catalog has one table that never changes, so one
edit suffices, with tags that every RocksDB supports.

Layout (RocksDB's `db/log_format.h` and `db/version_edit.h`): the log is divided into blocks of 32 KiB; a
record is one or more fragments, none of which crosses the end of a block; a fragment is the masked CRC32c of
its type and content, the content's length (16 bits), the type (one byte), the content.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

from flistfs.errors import FormatError
from flistfs.format.rocksdb.block import UnsupportedTableError
from flistfs.format.rocksdb.encoding import Cursor, length_prefixed, masked_crc32c, varint

_LOG_BLOCK: Final = 32 * 1024
_HEADER_SIZE: Final = 7
_COMPARATOR: Final = b"leveldb.BytewiseComparator"
_BOTTOM_LEVEL: Final = 6  # of RocksDB's default seven: nothing there is ever compacted again
_MANIFEST_NUMBER: Final = 4  # any but the table's
_CURRENT: Final = re.compile(rb"MANIFEST-\d{1,20}\n?")
_MAX_CURRENT: Final = 64  # bytes
_MAX_MANIFEST: Final = 1 << 20  # bytes; that of the real flist of 2017 has 22,060
_VALUE_TRAILER: Final = (1).to_bytes(8, "little")  # internal keys: sequence number 0, type "value"


class Tag(enum.IntEnum):
    """The tags of a version edit that RocksDB 5.2.1 supports."""

    COMPARATOR = 1
    LOG_NUMBER = 2
    NEXT_FILE_NUMBER = 3
    LAST_SEQUENCE = 4
    COMPACT_POINTER = 5
    DELETED_FILE = 6
    NEW_FILE = 7
    PREV_LOG_NUMBER = 9
    NEW_FILE_2 = 100
    NEW_FILE_3 = 102
    NEW_FILE_4 = 103


class _Fragment(enum.IntEnum):
    FULL = 1
    FIRST = 2
    MIDDLE = 3
    LAST = 4


@dataclass(frozen=True, slots=True)
class TableFile:
    """A table as listed in the MANIFEST: file number, size in bytes, first and last key."""

    number: int
    size: int
    smallest: bytes
    largest: bytes


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a version edit: its tag and its values, numbers and strings in order."""

    tag: Tag
    values: tuple[int | bytes, ...]


def write_manifest(directory: Path, table: TableFile) -> None:
    """Write MANIFEST and CURRENT for a catalog of the single `table`; CURRENT is written last.

    Raises:
        OSError: `directory` cannot be written.
    """
    name = f"MANIFEST-{_MANIFEST_NUMBER:06}"
    (directory / name).write_bytes(encode_log(_version_edit(table)))
    (directory / "CURRENT").write_bytes(name.encode() + b"\n")


@dataclass(frozen=True, slots=True)
class Contents:
    """The parts of a database: its table, and the number of the oldest log that is not in it."""

    table: TableFile
    log_number: int


def read_manifest(directory: Path) -> Contents:
    """Return the parts of the database in `directory`, if it has a single table.

    Raises:
        UnsupportedTableError: it has none or several, another order, or an unsupported MANIFEST.
        FormatError: CURRENT does not name a readable MANIFEST.
    """
    tables: dict[int, TableFile] = {}
    log_number = 0
    for field in _current_fields(directory):
        match field.tag:
            case Tag.LOG_NUMBER:
                log_number = cast(int, field.values[0])
            case Tag.COMPARATOR if field.values != (_COMPARATOR,):
                raise UnsupportedTableError("the keys are in another order")
            case Tag.DELETED_FILE:
                tables.pop(cast(int, field.values[1]), None)
            case Tag.NEW_FILE | Tag.NEW_FILE_2 | Tag.NEW_FILE_3 | Tag.NEW_FILE_4:
                table = _table_file(field)
                tables[table.number] = table
    if len(tables) != 1:
        raise UnsupportedTableError(f"a database of {len(tables)} tables")
    return Contents(next(iter(tables.values())), log_number)


def read_file(path: Path, limit: int) -> bytes:
    """Return the content of a database file.

    Raises:
        FormatError: it cannot be read.
        UnsupportedTableError: it has more than `limit` bytes.
    """
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise FormatError(f"{path.name} cannot be read: {error.strerror}") from error
    if len(content) > limit:
        raise UnsupportedTableError(f"{path.name} has more than {limit} bytes")
    return content


def parse_manifest(raw: bytes) -> list[Field]:
    """Return the fields of all edits in the MANIFEST `raw`, in order.

    Raises:
        FormatError: the log is malformed, a checksum does not match, or RocksDB 5.2.1 lacks a tag.
    """
    return [field for record in decode_log(raw) for field in _parse_edit(record)]


def encode_log(record: bytes) -> bytes:
    """Return a log file with `record`, in as many fragments as needed."""
    log = bytearray()
    position = 0
    while position < len(record) or not log:
        room = _LOG_BLOCK - _HEADER_SIZE
        content = record[position : position + room]
        first, last = position == 0, position + len(content) == len(record)
        position += len(content)
        # Fragments fill their blocks to the end, so each starts a block and no padding is needed.
        log += _encode_fragment(_fragment_type(first=first, last=last), content)
    return bytes(log)


def decode_log(raw: bytes) -> Iterator[bytes]:
    """Yield the records of a log file.

    Raises:
        FormatError: the log is malformed, or a checksum does not match.
    """
    parts: list[bytes] = []
    for kind, content in _fragments(raw):
        if (kind in (_Fragment.FULL, _Fragment.FIRST)) == bool(parts):
            raise FormatError("malformed MANIFEST: a record lacks its beginning or its end")
        parts.append(content)
        if kind in (_Fragment.FULL, _Fragment.LAST):
            yield b"".join(parts)
            parts = []
    if parts:
        raise FormatError("malformed MANIFEST: the last record lacks its end")


def _current_fields(directory: Path) -> list[Field]:
    current = read_file(directory / "CURRENT", _MAX_CURRENT)
    if not _CURRENT.fullmatch(current):
        raise FormatError("CURRENT does not name a MANIFEST")
    raw = read_file(directory / current.decode().strip(), _MAX_MANIFEST)
    try:
        return parse_manifest(raw)
    except FormatError as error:
        raise UnsupportedTableError(str(error)) from error


def _table_file(field: Field) -> TableFile:
    """Return the table that a field adds: level, number, in NEW_FILE_3 a path, size, two keys."""
    numbers = [value for value in field.values[1:4] if isinstance(value, int)]
    smallest, largest = [value for value in field.values if isinstance(value, bytes)][:2]
    return TableFile(numbers[0], numbers[-1], smallest[:-8], largest[:-8])


def _version_edit(table: TableFile) -> bytes:
    return b"".join((
        varint(Tag.COMPARATOR) + length_prefixed(_COMPARATOR),
        varint(Tag.LOG_NUMBER) + varint(0),
        varint(Tag.PREV_LOG_NUMBER) + varint(0),
        varint(Tag.NEXT_FILE_NUMBER) + varint(table.number + 1),
        varint(Tag.LAST_SEQUENCE) + varint(0),
        varint(Tag.NEW_FILE_2),
        varint(_BOTTOM_LEVEL),
        varint(table.number),
        varint(table.size),
        length_prefixed(table.smallest + _VALUE_TRAILER),
        length_prefixed(table.largest + _VALUE_TRAILER),
        varint(0),  # smallest sequence number
        varint(0),  # largest sequence number
    ))  # fmt: skip


def _fragment_type(*, first: bool, last: bool) -> _Fragment:
    if first:
        return _Fragment.FULL if last else _Fragment.FIRST
    return _Fragment.LAST if last else _Fragment.MIDDLE


def _encode_fragment(kind: _Fragment, content: bytes) -> bytes:
    tag = bytes([kind])
    return masked_crc32c(tag, content) + len(content).to_bytes(2, "little") + tag + content


def _fragments(raw: bytes) -> Iterator[tuple[_Fragment, bytes]]:
    for start in range(0, len(raw), _LOG_BLOCK):
        block = Cursor(raw[start : start + _LOG_BLOCK])
        while len(block.data) - block.position >= _HEADER_SIZE:
            checksum, size, tag = block.take(4), int.from_bytes(block.take(2), "little"), block.take(1)
            content = block.take(size)
            if checksum != masked_crc32c(tag, content):
                raise FormatError("malformed MANIFEST: a record does not match its checksum")
            try:
                yield _Fragment(tag[0]), content
            except ValueError:
                raise FormatError(f"malformed MANIFEST: {tag[0]} is not a type of fragment") from None


def _parse_edit(record: bytes) -> Iterator[Field]:
    cursor = Cursor(record)
    while not cursor.at_end:
        number = cursor.varint()
        try:
            tag = Tag(number)
        except ValueError:
            raise FormatError(f"RocksDB 5.2.1 does not know tag {number} of the MANIFEST") from None
        yield Field(tag, tuple(_values(tag, cursor)))


def _values(tag: Tag, cursor: Cursor) -> Iterator[int | bytes]:
    # n: a number, s: a string. A tag's values are fixed, except for the optional fields of NEW_FILE_4.
    layout = {
        Tag.COMPARATOR: "s",
        Tag.COMPACT_POINTER: "ns",
        Tag.DELETED_FILE: "nn",
        Tag.NEW_FILE: "nnnss",
        Tag.NEW_FILE_2: "nnnssnn",
        Tag.NEW_FILE_3: "nnnnssnn",
        Tag.NEW_FILE_4: "nnnssnn",
    }.get(tag, "n")
    for kind in layout:
        yield cursor.varint() if kind == "n" else cursor.string()
    if tag is Tag.NEW_FILE_4:
        while field := cursor.varint():
            yield field
            yield cursor.string()
