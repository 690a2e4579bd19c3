"""The tail of a table: what is taken out, and that everything else stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from rocksdict import BlockBasedOptions, ChecksumType, Options, SstFileWriter

from flistfs.errors import FormatError
from flistfs.format.rocksdb.encoding import Cursor, crc32c, masked_crc32c, varint
from flistfs.format.rocksdb.sst import CHECKSUM_CRC32C, read_footer, read_properties, remove_identity

IDENTIFYING = {
    b"rocksdb.creating.db.identity",
    b"rocksdb.creating.host.identity",
    b"rocksdb.creating.session.identity",
}


def _write_table(path: Path, checksum: ChecksumType | None = None) -> Path:
    table = BlockBasedOptions()
    table.set_format_version(2)
    table.set_checksum_type(checksum or ChecksumType.crc32c())
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    writer = SstFileWriter(options=options)
    writer.open(str(path))
    for number in range(1000):
        writer[b"%04d" % number] = b"value" * 10
    writer.finish()
    return path


@pytest.mark.parametrize(
    ("data", "checksum"),
    [  # RFC 3720, B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (b"123456789", 0xE3069283),
    ],
)
def test_crc32c(data: bytes, checksum: int) -> None:
    assert crc32c(data) == crc32c(data[:5], data[5:]) == checksum


def test_masked_checksum_is_leveldb_s() -> None:
    crc = crc32c(b"foo")
    masked = (((crc >> 15) | (crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc32c(b"foo") == masked.to_bytes(4, "little")


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**64 - 1])
def test_varint(value: int) -> None:
    cursor = Cursor(varint(value))
    assert cursor.varint() == value
    assert cursor.at_end


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 20])
def test_varint_without_an_end_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        Cursor(data).varint()


def test_identity_goes_and_the_rest_stays(tmp_path: Path) -> None:
    table = _write_table(tmp_path / "1.sst")
    before, footer = read_properties(table), read_footer(table)
    assert before.keys() >= IDENTIFYING  # else this test shows nothing
    content = table.read_bytes()
    remove_identity(table)
    after = read_properties(table)
    assert after == {name: value for name, value in before.items() if name not in IDENTIFYING}
    assert list(after) == sorted(after)
    moved = read_footer(table)
    assert (moved.version, moved.checksum, moved.index) == (2, CHECKSUM_CRC32C, footer.index)
    kept = footer.index.end
    assert table.read_bytes()[:kept] == content[:kept]
    assert moved.metaindex.end + 53 == table.stat().st_size


def test_two_tables_of_equal_records_become_equal(tmp_path: Path) -> None:
    first, second = _write_table(tmp_path / "1.sst"), _write_table(tmp_path / "2.sst")
    remove_identity(first)
    remove_identity(second)
    once = first.read_bytes()
    assert once == second.read_bytes()
    remove_identity(first)
    assert first.read_bytes() == once


def test_other_checksum_is_refused(tmp_path: Path) -> None:
    table = _write_table(tmp_path / "1.sst", ChecksumType.xxhash())
    with pytest.raises(FormatError, match="not CRC32c"):
        remove_identity(table)


@pytest.mark.parametrize("content", [b"", b"x" * 52, b"x" * 53, bytes(1000)])
def test_what_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "1.sst"
    table.write_bytes(content)
    for function in (read_footer, read_properties, remove_identity):
        with pytest.raises(FormatError):
            function(table)


def test_damage_in_the_tail_is_found(tmp_path: Path) -> None:
    table = _write_table(tmp_path / "1.sst")
    whole = table.read_bytes()
    for position in (read_footer(table).metaindex.offset - 100, len(whole) - 53 - 10):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        table.write_bytes(damaged)
        with pytest.raises(FormatError, match="checksum"):
            read_properties(table)
