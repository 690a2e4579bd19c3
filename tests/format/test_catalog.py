"""Catalogs: read back by us and by RocksDB's own tools, equal on every host."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flistfs.errors import FormatError
from flistfs.format.rocksdb.catalog import Catalog, write_catalog
from flistfs.format.rocksdb.manifest import Tag, parse_manifest
from flistfs.format.rocksdb.package import unpack_package
from flistfs.format.rocksdb.sst import CHECKSUM_CRC32C, read_footer
from flistfs.format.zeroos.records import decode_aci, decode_directory, encode_aci, encode_directory
from tests.format.conftest import Records

KNOWN_TO_5_2_1 = {1, 2, 3, 4, 9, 7, 100, 102, 103}
FILES = ["000009.sst", "CURRENT", "MANIFEST-000004"]


def _many(count: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    for number in range(count):
        yield b"%064x" % number, number.to_bytes(8, "big") * (size // 8)


KEYS_OF_1000 = [key for key, _ in _many(1000, 8)]

SHAPES: dict[str, Callable[[], Records]] = {
    "one": lambda: [(b"k", b"v")],
    "empty key and value": lambda: [(b"", b""), (b"\0", b""), (b"\xff\xff", b"\xff")],
    "25,000 records, 9 MB": lambda: list(_many(25_000, 320)),
    "records of 5 MB": lambda: [(b"a", os.urandom(5 << 20)), (b"b", b"small"), (b"c", bytes(5 << 20))],
    "a key of 40 KB, so that the MANIFEST has two blocks": lambda: [(b"k" * 40_000, b"v"), (b"l", b"w")],
}


@pytest.fixture(params=SHAPES)
def records(request: pytest.FixtureRequest) -> Records:
    return SHAPES[request.param]()


def _files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_catalog_reads_back(tmp_path: Path, records: Records) -> None:
    write_catalog(tmp_path / "new", iter(records))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == FILES
    with Catalog.open(tmp_path / "new") as catalog:
        assert list(catalog.items()) == records
        assert all(catalog.get(key) == value for key, value in records)
        assert catalog.get(b"not there") is None
    # Reading leaves the three files alone.
    before = _files(tmp_path / "new")
    write_catalog(tmp_path / "again", records)
    assert _files(tmp_path / "again") == {name: before[name] for name in FILES}


def test_rocksdb_s_own_tools_accept_it(tmp_path: Path, records: Records, tool: Callable[[str], str]) -> None:
    write_catalog(tmp_path, records)
    database, table = f"--db={tmp_path}", f"--file={tmp_path / '000009.sst'}"
    assert _run(tool("ldb"), database, "checkconsistency").strip() == "OK"
    assert "The file is ok" in _run(tool("sst_dump"), table, "--command=verify")
    lines = _run(tool("ldb"), database, "scan", "--hex").splitlines()
    assert len(lines) == len(records)
    for line, (key, value) in zip(lines, records, strict=True):
        shown_key, _, shown_value = line.partition(" : ")
        assert (bytes.fromhex(shown_key[2:]), bytes.fromhex(shown_value[2:])) == (key, value)


def test_rocksdb_5_2_1_knows_all_that_is_used(tmp_path: Path, records: Records) -> None:
    write_catalog(tmp_path, records)
    footer = read_footer(tmp_path / "000009.sst")
    assert (footer.version, footer.checksum) == (2, CHECKSUM_CRC32C)
    tags = {field.tag for field in parse_manifest((tmp_path / "MANIFEST-000004").read_bytes())}
    assert tags <= KNOWN_TO_5_2_1
    assert Tag.NEW_FILE_2 in tags


def test_nothing_of_this_machine_is_in_it(tmp_path: Path) -> None:
    directory = tmp_path / "a-telling-directory"
    write_catalog(directory, [(b"k", b"v")])
    # Names of a few letters ("root", "vm") are found in other words; RocksDB calls the fields "identity".
    names = [socket.gethostname(), getpass.getuser(), directory.name, str(Path.home()), str(Path.cwd())]
    telling = [b"identity", b"SST Writer", *(name.encode() for name in names if len(name) > 5)]
    for name, content in _files(directory).items():
        assert [secret for secret in telling if secret in content] == [], name


def test_catalog_can_be_opened_twice_at_once(tmp_path: Path) -> None:
    # Two catalogs of one shape in one process: blocks of one must not be taken for the other's.
    for name in (b"x", b"y"):
        write_catalog(tmp_path / name.decode(), [(b"%d" % i, name * 100) for i in range(10, 99)])
    with (
        Catalog.open(tmp_path / "x") as x,
        Catalog.open(tmp_path / "y") as y,
        Catalog.open(tmp_path / "x") as z,
    ):
        assert (x.get(b"50"), y.get(b"50"), z.get(b"50")) == (b"x" * 100, b"y" * 100, b"x" * 100)
        assert dict(x.items()) == dict(z.items()) != dict(y.items())


def test_no_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="at least one record"):
        write_catalog(tmp_path, [])
    assert not (tmp_path / "CURRENT").exists()


@pytest.mark.parametrize("second", [b"a", b"b"])
def test_keys_out_of_order_are_refused(tmp_path: Path, second: bytes) -> None:
    with pytest.raises(FormatError, match="out of order"):
        write_catalog(tmp_path, [(b"b", b""), (second, b"")])
    assert not (tmp_path / "CURRENT").exists()


def test_real_catalog_written_anew_is_equal(tmp_path: Path, real_records: Records) -> None:
    def anew(key: bytes, raw: bytes) -> bytes:
        return encode_aci(decode_aci(raw)) if len(key) == 32 else encode_directory(decode_directory(raw))

    write_catalog(tmp_path, ((key, anew(key, raw)) for key, raw in real_records))
    with Catalog.open(tmp_path) as catalog:
        written = list(catalog.items())
    assert [key for key, _ in written] == [key for key, _ in real_records]
    for (key, new), (_, old) in zip(written, real_records, strict=True):
        decode = decode_aci if len(key) == 32 else decode_directory
        assert decode(new) == decode(old)


def test_old_catalog_opens_with_its_log_and_is_not_changed(tmp_path: Path, real_flist: Path) -> None:
    unpack_package(real_flist, tmp_path)
    before = _files(tmp_path)
    assert len(before["000229.log"]) > 0
    with Catalog.open(tmp_path) as catalog:
        assert len(list(catalog.items())) == 1116
    after = _files(tmp_path)
    assert {name: after[name] for name in before} == before


def test_missing_catalog_is_refused_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no catalog"):
        Catalog.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("content", [b"", b"junk\n", b"MANIFEST-000077\n", b"../../etc/passwd\n"])
def test_damaged_files_are_format_errors(tmp_path: Path, name: str, content: bytes) -> None:
    write_catalog(tmp_path, [(b"k", b"v")])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError) as caught, Catalog.open(tmp_path) as catalog:
        list(catalog.items())
    assert "\n" not in str(caught.value)


def test_damage_in_a_table_is_found_when_it_is_read(tmp_path: Path) -> None:
    write_catalog(tmp_path, _many(1000, 320))
    table = tmp_path / "000009.sst"
    damaged = bytearray(table.read_bytes())
    damaged[100_000] ^= 1
    table.write_bytes(damaged)
    with Catalog.open(tmp_path) as catalog:
        assert catalog.get(b"%064x" % 0) is not None
        with pytest.raises(FormatError, match="checksum"):
            list(catalog.items())
        with pytest.raises(FormatError, match="checksum"):
            list(map(catalog.get, KEYS_OF_1000))


def test_write_to_an_unusable_place_is_refused(tmp_path: Path) -> None:
    write_catalog(tmp_path, [(b"k", b"v")])
    shutil.rmtree(tmp_path)
    tmp_path.write_text("a file")
    with pytest.raises(OSError, match="exists"):
        write_catalog(tmp_path, [(b"k", b"v")])
