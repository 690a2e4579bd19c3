"""The MANIFEST: its fields, its log format, and what RocksDB itself wrote."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flistfs.errors import FormatError
from flistfs.format.rocksdb.encoding import varint
from flistfs.format.rocksdb.manifest import (
    Field,
    TableFile,
    Tag,
    decode_log,
    encode_log,
    parse_manifest,
    write_manifest,
)


def test_manifest_is_one_edit_in_old_tags(tmp_path: Path) -> None:
    write_manifest(tmp_path, TableFile(9, 1234, b"a", b"z"))
    name = (tmp_path / "CURRENT").read_text()
    assert name == "MANIFEST-000004\n"
    assert parse_manifest((tmp_path / name.strip()).read_bytes()) == [
        Field(Tag.COMPARATOR, (b"leveldb.BytewiseComparator",)),
        Field(Tag.LOG_NUMBER, (0,)),
        Field(Tag.PREV_LOG_NUMBER, (0,)),
        Field(Tag.NEXT_FILE_NUMBER, (10,)),
        Field(Tag.LAST_SEQUENCE, (0,)),
        Field(Tag.NEW_FILE_2, (6, 9, 1234, b"a\x01" + bytes(7), b"z\x01" + bytes(7), 0, 0)),
    ]


def test_manifest_that_rocksdb_wrote_parses(real_flist: Path) -> None:
    with tarfile.open(real_flist) as archive:
        file = archive.extractfile("MANIFEST-000008")
        assert file is not None
        fields = parse_manifest(file.read())
    assert fields[0] == Field(Tag.COMPARATOR, (b"leveldb.BytewiseComparator",))
    assert {Tag.LOG_NUMBER, Tag.LAST_SEQUENCE, Tag.DELETED_FILE} <= {field.tag for field in fields}


@pytest.mark.parametrize("size", [0, 1, 32_760, 32_761, 32_762, 65_522, 65_523, 200_000])
def test_log_holds_records_longer_than_its_blocks(size: int) -> None:
    record = bytes(index % 251 for index in range(size))
    log = encode_log(record)
    assert list(decode_log(log)) == [record]
    for start in range(0, len(log), 32 * 1024):
        length, kind = struct.unpack_from("<HB", log, start + 4)
        assert kind in (1, 2, 3, 4)
        assert length <= 32 * 1024 - 7


@given(data=st.data())
def test_damage_is_found(data: st.DataObject) -> None:
    log = bytearray(encode_log(b"record" * 20))
    log[data.draw(st.integers(0, len(log) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        records = list(decode_log(bytes(log)))
    except FormatError:
        return
    assert records == []  # a length beyond the end would be


@given(raw=st.binary(max_size=200))
def test_random_bytes_are_refused(raw: bytes) -> None:
    try:
        parse_manifest(raw)
    except FormatError:
        return
    assert len(raw) < 7


@pytest.mark.parametrize("tag", [8193, 8201, 10, 0])
def test_tag_that_5_2_1_does_not_know_is_refused(tag: int) -> None:
    with pytest.raises(FormatError, match=f"tag {tag} "):
        parse_manifest(encode_log(varint(Tag.LOG_NUMBER) + varint(0) + varint(tag) + varint(1)))


def test_half_a_record_is_refused() -> None:
    log = encode_log(bytes(100_000))
    with pytest.raises(FormatError):
        list(decode_log(log[: 32 * 1024]))
    with pytest.raises(FormatError):
        list(decode_log(log[32 * 1024 :]))
