"""Remove identifying properties from the tail of a RocksDB table file.

A block-based table ends with its properties block, the metaindex block that locates it, and a footer of fixed
size. Newer RocksDBs record the name of the building host and a random session ID in the properties, so equal
databases differ and reveal the host's name. As only those three parts are at the end, the tail can be
rewritten while the megabytes before it stay unchanged.

Layout of the footer (RocksDB's `table/format.cc`, format_version 1 to 5): checksum type (one byte), handles
of the metaindex and the index padded with zeros to 40 bytes, format_version (32 bits), magic number (64).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from flistfs.errors import FormatError
from flistfs.format.rocksdb.block import BlockHandle, block_entries, read_block
from flistfs.format.rocksdb.encoding import Cursor, masked_crc32c, varint

CHECKSUM_CRC32C: Final = 1
"""The footer's code for CRC32c."""

_FOOTER_SIZE: Final = 53
_HANDLES_SIZE: Final = 40
_MAGIC: Final = 0x88E241B785F4CFF7
_UNCOMPRESSED: Final = b"\0"
_PROPERTIES: Final = b"rocksdb.properties"
_MAX_TAIL_BLOCK: Final = 1 << 20  # bytes; a properties block has about 1,500

# Removed rather than set to a fixed text. RocksDB derives the keys of its block cache from the session ID if
# there is one: with the same ID in all catalogs, two that are open in one process would read each other's
# blocks. Without it, it uses an ID of the reading process.
_IDENTIFYING: Final = frozenset({
    b"rocksdb.creating.db.identity",
    b"rocksdb.creating.host.identity",
    b"rocksdb.creating.session.identity",
})  # fmt: skip
# SstFileWriter leaves these at zero; later versions may not.
_TIMES: Final = frozenset({
    b"rocksdb.creation.time",
    b"rocksdb.file.creation.time",
    b"rocksdb.oldest.key.time",
    b"rocksdb.newest.key.time",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Footer:
    """The end of a table file."""

    checksum: int
    metaindex: BlockHandle
    index: BlockHandle
    version: int

    def encode(self) -> bytes:
        """Return the encoded footer."""
        handles = (self.metaindex.encode() + self.index.encode()).ljust(_HANDLES_SIZE, b"\0")
        numbers = self.version.to_bytes(4, "little") + _MAGIC.to_bytes(8, "little")
        return bytes([self.checksum]) + handles + numbers


def read_footer(table: Path) -> Footer:
    """Return the footer of the file `table`.

    Raises:
        FormatError: it is not a block-based table.
    """
    with table.open("rb") as file:
        return _read_footer(file)


def read_properties(table: Path) -> dict[bytes, bytes]:
    """Return the properties of the file `table`, by name.

    Raises:
        FormatError: it is not a block-based table, or the checksum of one of the blocks does not match.
    """
    with table.open("rb") as file:
        return dict(_read_entries(file, _properties_handle(_read_metaindex(file, _read_footer(file)))))


def remove_identity(table: Path) -> None:
    """Rewrite the tail of the file `table` without the host and the time of creation.

    Raises:
        FormatError: it is not a block-based table with CRC32c, or something else is in its tail.
    """
    with table.open("r+b") as file:
        footer = _read_footer(file)
        if footer.checksum != CHECKSUM_CRC32C:
            raise FormatError(f"table {table.name} has checksums of type {footer.checksum}, not CRC32c")
        metaindex = _read_metaindex(file, footer)
        properties = _properties_handle(metaindex)
        if properties.end != footer.metaindex.offset or footer.metaindex.end != _footer_offset(file):
            raise FormatError(f"table {table.name} has more after its properties than can be rewritten")
        contents = _block(_without_identity(_read_entries(file, properties)))
        file.seek(properties.offset)
        file.truncate()
        _write_tail(file, contents, metaindex, footer)


def _without_identity(properties: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in properties:
        if name not in _IDENTIFYING:
            yield name, varint(0) if name in _TIMES else value


def _write_tail(file: BinaryIO, properties: bytes, metaindex: dict[bytes, bytes], footer: Footer) -> None:
    metaindex[_PROPERTIES] = BlockHandle(file.tell(), len(properties)).encode()
    _write_block(file, properties)
    contents = _block(metaindex.items())
    moved = Footer(footer.checksum, BlockHandle(file.tell(), len(contents)), footer.index, footer.version)
    _write_block(file, contents)
    file.write(moved.encode())


def _write_block(file: BinaryIO, contents: bytes) -> None:
    file.write(contents + _UNCOMPRESSED + masked_crc32c(contents, _UNCOMPRESSED))


def _block(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    # A restart point at each entry, as in RocksDB for these two blocks: keys share no bytes.
    block = bytearray()
    restarts = []
    for key, value in entries:
        restarts.append(len(block))
        block += varint(0) + varint(len(key)) + varint(len(value)) + key + value
    for number in (*restarts, len(restarts)):
        block += number.to_bytes(4, "little")
    return bytes(block)


def _footer_offset(file: BinaryIO) -> int:
    return file.seek(0, os.SEEK_END) - _FOOTER_SIZE


def _read_footer(file: BinaryIO) -> Footer:
    offset = _footer_offset(file)
    if offset < 0:
        raise FormatError(f"a table of {offset + _FOOTER_SIZE} bytes has no room for its footer")
    file.seek(offset)
    raw = file.read(_FOOTER_SIZE)
    if int.from_bytes(raw[-8:], "little") != _MAGIC:
        raise FormatError("not a block-based table: its footer has a different magic number")
    handles = Cursor(raw[1 : 1 + _HANDLES_SIZE])
    numbers = [handles.varint() for _ in range(4)]
    return Footer(
        checksum=raw[0],
        metaindex=BlockHandle(*numbers[:2]),
        index=BlockHandle(*numbers[2:]),
        version=int.from_bytes(raw[-12:-8], "little"),
    )


def _read_metaindex(file: BinaryIO, footer: Footer) -> dict[bytes, bytes]:
    return dict(_read_entries(file, footer.metaindex))


def _properties_handle(metaindex: dict[bytes, bytes]) -> BlockHandle:
    try:
        return BlockHandle.decode(metaindex[_PROPERTIES])
    except KeyError:
        raise FormatError("the table has no properties") from None


def _read_entries(file: BinaryIO, handle: BlockHandle) -> list[tuple[bytes, bytes]]:
    contents = read_block(file.fileno(), handle, _MAX_TAIL_BLOCK)
    return [(key, contents[start:end]) for key, start, end in block_entries(contents)]
