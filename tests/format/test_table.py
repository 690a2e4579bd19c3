"""Tables and logs: read as RocksDB reads them, and bounded by what they are, whatever they claim."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    ChecksumType,
    DataBlockIndexType,
    DBCompressionType,
    Options,
    Rdict,
)

from flistfs.errors import FormatError
from flistfs.format.rocksdb import catalog as catalog_module
from flistfs.format.rocksdb.block import BlockHandle, block_entries, read_block
from flistfs.format.rocksdb.catalog import Catalog, write_catalog
from flistfs.format.rocksdb.encoding import masked_crc32c, varint
from flistfs.format.rocksdb.isolated import rewrite_catalog
from flistfs.format.rocksdb.package import unpack_package
from flistfs.format.rocksdb.sst import read_footer
from flistfs.format.rocksdb.table import Table
from tests.format.conftest import Records
from tests.needs import needs_data

TABLE = "000009.sst"


def _records(count: int, *, large: int = 0) -> Records:
    chance = random.Random(count)
    sizes = [chance.choice((0, 1, 100, 127, 128, 3000, 20_000)) for _ in range(count)]
    records = [(b"%064x" % chance.getrandbits(256), b"v%05d" % n * (s // 6)) for n, s in enumerate(sizes)]
    return sorted([*records, *((b"%064x" % n, bytes(large)) for n in range(3) if large)])


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The databases for which RocksDB was asked."""
    asked: list[Path] = []

    def rewrite(source: Path, target: Path) -> None:
        asked.append(source)
        rewrite_catalog(source, target)

    monkeypatch.setattr(catalog_module, "rewrite_catalog", rewrite)
    return asked


@pytest.mark.parametrize("large", [0, 200_000, 5_000_000])
def test_a_table_is_read_as_it_was_written(tmp_path: Path, direct: list[Path], large: int) -> None:
    records = _records(3000, large=large)
    write_catalog(tmp_path, records)
    with Catalog.open(tmp_path) as catalog:
        assert list(catalog.items()) == records
        shuffled = random.Random(1).sample(records, len(records))
        assert all(catalog.get(key) == value and catalog.has(key) for key, value in shuffled)
        for absent in (b"", b"5" * 64, b"f" * 65, b"zz", b"%063x" % 1):
            assert catalog.get(absent) is None
            assert not catalog.has(absent)
        assert catalog.estimated_records == len(records)
    assert direct == []


def test_what_is_kept_of_a_table_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = _records(3000)
    write_catalog(tmp_path, records)
    monkeypatch.setattr("flistfs.format.rocksdb.table._KEPT", 100_000)
    table = Table.open(tmp_path / TABLE)
    assert all(table.get(key) == value for key, value in records)
    assert 0 < table._kept_size <= 100_000
    table.close()
    table.close()
    with pytest.raises(ValueError, match="closed"):
        list(table.items())


# Databases of every kind


def _database(
    directory: Path, records: Records, change: Callable[[Options, BlockBasedOptions], object]
) -> Path:
    """Let RocksDB make a database; return a copy of it as it is after a crash."""
    options, table = Options(raw_mode=True), BlockBasedOptions()
    options.set_compression_type(DBCompressionType.none())
    options.set_disable_auto_compactions(True)
    table.set_format_version(2)
    table.set_checksum_type(ChecksumType.crc32c())
    change(options, table)
    options.set_block_based_table_factory(table)
    database = Rdict(str(directory / "made"), options=options)
    for number, (key, value) in enumerate(records):
        database[key] = b"old" if number % 5 == 0 else value
    database[b"gone"] = b"1"
    database.flush()
    for key, value in records[::5]:
        database[key] = value
    del database[b"gone"]
    (directory / "copy").mkdir()
    for path in (directory / "made").iterdir():
        if path.suffix in {".sst", ".log"} or path.name.startswith(("CURRENT", "MANIFEST")):
            shutil.copy(path, directory / "copy")
    database.close()
    return directory / "copy"


KINDS: dict[str, Callable[[Options, BlockBasedOptions], object]] = {
    "as in 2017": lambda _, table: table.set_format_version(2),
    "format 6": lambda _, table: table.set_format_version(6),
    "xxHash": lambda _, table: table.set_checksum_type(ChecksumType.xxhash64()),
    "snappy": lambda options, _: options.set_compression_type(DBCompressionType.snappy()),
    "zstd": lambda options, _: options.set_compression_type(DBCompressionType.zstd()),
    "large blocks": lambda _, table: table.set_block_size(1 << 20),
    "two levels": lambda _, table: table.set_index_type(BlockBasedIndexType.two_level_index_search()),
    "hashed blocks": lambda _, table: table.set_data_block_index_type(DataBlockIndexType.binary_and_hash()),
}


@pytest.mark.parametrize("kind", KINDS)
def test_databases_of_every_kind_are_read(tmp_path: Path, kind: str) -> None:
    records = _records(300)
    directory = _database(tmp_path, records, KINDS[kind])
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with Catalog.open(directory) as catalog:
        assert list(catalog.items()) == records
        assert all(catalog.get(key) == value and catalog.has(key) for key, value in records)
        assert catalog.get(b"gone") is None
        assert not catalog.has(b"gone")
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_the_real_flist_is_read_as_rocksdb_reads_it(
    tmp_path: Path, real_flist: Path, direct: list[Path]
) -> None:
    unpack_package(real_flist, tmp_path / "ours")
    shutil.copytree(tmp_path / "ours", tmp_path / "theirs")
    options = Options(raw_mode=True)
    database = Rdict(str(tmp_path / "theirs"), options=options, access_type=AccessType.read_only())
    theirs = list(database.items())
    database.close()
    with Catalog.open(tmp_path / "ours") as catalog:
        assert list(catalog.items()) == theirs
    assert direct == []


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_what_is_left_of_a_log_is_for_rocksdb_to_say(tmp_path: Path, direct: list[Path], cut: int) -> None:
    records = _records(30)
    directory = _database(tmp_path, records, KINDS["as in 2017"])
    (log,) = (path for path in directory.glob("*.log") if path.stat().st_size)
    log.write_bytes(log.read_bytes()[:-cut])
    with Catalog.open(directory) as catalog:
        assert dict(catalog.items()).keys() <= {*dict(records), b"gone"}
    assert len(direct) == 1


# Damage


def _with_block(table: Path, handle: BlockHandle, contents: bytes) -> None:
    """Write other contents of the same size into a block, with the right checksum."""
    assert len(contents) == handle.size
    with table.open("r+b") as file:
        file.seek(handle.offset)
        file.write(contents + b"\0" + masked_crc32c(contents, b"\0"))


def _blocks(table: Path) -> Iterator[tuple[BlockHandle, bytes]]:
    footer = read_footer(table)
    with table.open("rb") as file:
        index = read_block(file.fileno(), footer.index, 1 << 20)
        handles = [BlockHandle.decode(index[start:end]) for _, start, end in block_entries(index)]
        for handle in (*handles, footer.index, footer.metaindex):
            yield handle, read_block(file.fileno(), handle, 1 << 20)


def test_no_byte_of_a_table_does_harm_under_a_right_checksum(tmp_path: Path) -> None:
    records = [(b"%064x" % number, b"value %d" % number) for number in range(100)]
    write_catalog(tmp_path, records)
    table = tmp_path / TABLE
    sound = table.read_bytes()
    refused = 0
    for handle, contents in list(_blocks(table)):
        for position in range(0, len(contents), 11):
            for byte in (0, 0x7F, 0x80, 0xFF):
                damaged = contents[:position] + bytes([byte]) + contents[position + 1 :]
                _with_block(table, handle, damaged)
                try:
                    with Catalog.open(tmp_path) as catalog:
                        keys = [key for key, _ in catalog.items()]
                        assert keys == sorted(keys)
                        for key, _ in records:
                            catalog.get(key)
                except FormatError as error:
                    refused += "\n" not in str(error)
        table.write_bytes(sound)
    assert refused > 100


def _entry(shared: int, other: bytes, value: bytes) -> bytes:
    return varint(shared) + varint(len(other)) + varint(len(value)) + other + value


def _block_of(*entries: bytes, restarts: tuple[int, ...] = (0,)) -> bytes:
    tail = b"".join(number.to_bytes(4, "little") for number in (*restarts, len(restarts)))
    return b"".join(entries) + tail


@pytest.mark.parametrize(
    ("contents", "what"),
    [
        (b"", "too short"),
        (b"\x05\0\0\0", "too short"),
        (b"\xff\xff\xff\x7f", "too short"),
        (b"\0\0\0\x80", "hash table"),
        (_block_of(b"\0\x05"), "exceeds the block"),
        (_block_of(_entry(0, b"key", b"v") + b"\xff" * 11), "unterminated"),
        (_block_of(_entry(0, b"key", b"v"), _entry(4, b"x", b"")), "exceeds the block"),
        (_block_of(_entry(0, b"key", b"v"), _entry(1, b"x", b""), restarts=(0, 6)), "restart point"),
        (_block_of(_entry(0, b"key", b"v"), restarts=(3,)), "restart point"),
        (_block_of(_entry(0, b"key", b"v"), restarts=(0, 0)), "restart point"),
        (_block_of(_entry(0, b"k" * 60_000, b""), *[_entry(60_000, b"", b"")] * 1000), "too long ones"),
    ],
)
def test_blocks_that_claim_too_much_are_refused(contents: bytes, what: str) -> None:
    with pytest.raises(FormatError, match=what):
        block_entries(contents)


def test_blocks_that_overlap_are_refused(tmp_path: Path) -> None:
    write_catalog(tmp_path, [(b"%064x" % number, bytes(3000)) for number in range(8)])
    table = tmp_path / TABLE
    *_, (index, contents), _ = _blocks(table)
    _, start, end = block_entries(contents)[1]
    again = BlockHandle(0, BlockHandle.decode(contents[start:end]).size).encode()
    changed = contents[:start] + again.ljust(end - start, b"\0") + contents[end:]
    _with_block(table, index, changed)
    with pytest.raises(FormatError, match="overlap"):
        Catalog.open(tmp_path)


def test_a_block_of_snappy_does_not_unpack_to_more_than_it_can(tmp_path: Path) -> None:
    packed = varint(1 << 27) + b"\0x"
    (tmp_path / "x").write_bytes(packed + b"\x01" + masked_crc32c(packed, b"\x01"))
    with (tmp_path / "x").open("rb") as file, pytest.raises(FormatError, match="claims to decompress"):
        read_block(file.fileno(), BlockHandle(0, len(packed)), 1 << 28)


# The process that RocksDB has to itself


def test_what_kills_rocksdb_is_an_error(tmp_path: Path) -> None:
    unpack_package(needs_data("bad/segv-metaindex-11.flist"), tmp_path / "source")
    with pytest.raises(FormatError, match=r"crashed on it \(SIG") as caught:
        rewrite_catalog(tmp_path / "source", tmp_path / "target")
    assert "\n" not in str(caught.value)


def test_it_is_confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake.py").write_text(
        "import os, resource\n"
        "from flistfs.format.rocksdb import isolated\n"
        "isolated._confine(1000)\n"
        "status = dict(line.split(':', 1) for line in open('/proc/self/status'))\n"
        "limits = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE)\n"
        "bounded = all(-1 < hard < 1 << 32 for _, hard in map(resource.getrlimit, limits))\n"
        "secrets = [name for name in os.environ if name.startswith('FLISTFS_')]\n"
        "isolated._end(f'{status[\"NoNewPrivs\"].strip()} {bounded} {secrets}', 8)\n"
    )
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} {tmp_path / 'fake.py'}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setenv("FLISTFS_STORE_PASSWORD", "secret")
    with pytest.raises(FormatError, match=r"^1 True \[\]$"):
        rewrite_catalog(tmp_path, tmp_path / "target")


@pytest.mark.parametrize(
    ("script", "what"),
    [("kill -ABRT $$", "SIGABRT"), ("exit 1", "failed with code 1"), ("echo too bad; exit 8", "^too bad$")],
)
def test_however_it_ends_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, what: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(FormatError, match=what):
        rewrite_catalog(tmp_path, tmp_path / "target")


def test_nothing_of_it_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = _database(tmp_path, _records(30), KINDS["format 6"])
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with Catalog.open(directory) as catalog:
        assert list((tmp_path / "tmp").iterdir()) == []
        assert len(list(catalog.items())) == 30
