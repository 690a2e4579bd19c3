"""Packages: equal bytes from equal files, and what strangers might send."""

from __future__ import annotations

import gzip
import io
import shutil
import tarfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flistfs.errors import FormatError, OutputError
from flistfs.format.rocksdb.catalog import Catalog, write_catalog
from flistfs.format.rocksdb.package import unpack_package, write_package
from flistfs.format.zeroos import package as package_module
from flistfs.format.zeroos.package import FREE_UNPACKED
from tests.format.conftest import Records

RECORDS = [(b"%03d" % number, b"value" * number) for number in range(200)]


def _packed(directory: Path) -> bytes:
    out = io.BytesIO()
    write_package(directory, out)
    return out.getvalue()


def _member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    header.type = kind
    header.linkname = "CURRENT" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    return header, content


CURRENT = _member("CURRENT", b"MANIFEST-000004\n")


def _archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for header, content in members:
            archive.addfile(header, io.BytesIO(content))
    return out.getvalue()


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    directory = tmp_path / "catalog"
    write_catalog(directory, RECORDS)
    return directory


@pytest.fixture
def unpack(tmp_path: Path) -> Callable[..., dict[str, bytes]]:
    def run(raw: bytes, **options: int) -> dict[str, bytes]:
        package, directory = tmp_path / "x.flist", tmp_path / "unpacked"
        package.write_bytes(raw)
        shutil.rmtree(directory, ignore_errors=True)
        try:
            unpack_package(package, directory, **options)
        finally:
            # Whatever happens, nothing is written elsewhere, and nothing but plain files.
            assert {path.name for path in tmp_path.iterdir()} <= {"x.flist", "unpacked", "catalog"}
            assert all(path.is_file() and not path.is_symlink() for path in directory.glob("*"))
        return {path.name: path.read_bytes() for path in directory.iterdir()}

    return run


Unpack = Callable[..., dict[str, bytes]]


def test_members_are_the_allowed_ones_and_say_nothing(catalog: Path) -> None:
    for name in ("LOG", "LOCK", "IDENTITY", "OPTIONS-000005", "rocksdict-config.json", "000003.log", "junk"):
        (catalog / name).touch()
    (catalog / "directory.sst").mkdir()
    (catalog / "router.yaml").write_bytes(b"lookup: []\n")
    with tarfile.open(fileobj=io.BytesIO(_packed(catalog))) as archive:
        members = archive.getmembers()
    assert [member.name for member in members] == ["000009.sst", "CURRENT", "MANIFEST-000004", "router.yaml"]
    for member in members:
        assert member.isreg()
        assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
        assert member.mode == 0o644


def test_equal_files_make_equal_bytes(catalog: Path, tmp_path: Path) -> None:
    other = tmp_path / "another name"
    write_catalog(other, RECORDS)
    (other / "CURRENT").chmod(0o600)
    packed = _packed(catalog)
    assert packed == _packed(other)
    assert packed[:8] == b"\x1f\x8b\x08\x00\0\0\0\0"  # deflate, no name or other fields, no time


def test_package_reads_back(catalog: Path, unpack: Unpack, tmp_path: Path) -> None:
    (catalog / "router.yaml").write_bytes(b"lookup: []\n")
    files = unpack(_packed(catalog))
    assert files == {path.name: path.read_bytes() for path in catalog.iterdir()}
    with Catalog.open(tmp_path / "unpacked") as opened:
        assert list(opened.items()) == RECORDS


def test_catalog_with_records_in_a_log_is_not_packed(catalog: Path) -> None:
    (catalog / "000003.log").write_bytes(b"record")
    with pytest.raises(FormatError, match=r"000003\.log"):
        _packed(catalog)


def test_directory_without_catalog_is_not_packed(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no catalog"):
        _packed(tmp_path)


def test_real_flist_unpacks(real_flist: Path, real_records: Records, tmp_path: Path) -> None:
    unpack_package(real_flist, tmp_path)
    # What else it carries (LOG, LOCK, IDENTITY, OPTIONS-000005) is of no use.
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"CURRENT", "MANIFEST-000008", "000229.log", "000231.sst"}
    assert len(real_records) == 1116


@pytest.mark.parametrize("name", [".", "./", "/"])
def test_member_for_the_top_directory_is_passed_over(name: str, unpack: Unpack) -> None:
    assert unpack(gzip.compress(_archive(_member(name, kind=tarfile.DIRTYPE), CURRENT))).keys() == {"CURRENT"}


def test_names_below_a_dot_are_top_level(unpack: Unpack) -> None:
    assert unpack(gzip.compress(_archive(_member("./CURRENT", b"x")))) == {"CURRENT": b"x"}


HOSTILE = {
    "absolute": _member("/CURRENT"),
    "absolute elsewhere": _member("/etc/000001.sst", b"x"),
    "upward": _member("../000001.sst", b"x"),
    "upward in disguise": _member("./../000001.sst", b"x"),
    "the directory above": _member("..", b"x"),
    "the directory above, as a directory": _member("..", kind=tarfile.DIRTYPE),
    "in a sub-directory": _member("directory/000001.sst", b"x"),
    "a sub-directory": _member("directory", kind=tarfile.DIRTYPE),
    "symbolic link": _member("000001.sst", kind=tarfile.SYMTYPE),
    "hard link": _member("000001.sst", kind=tarfile.LNKTYPE),
    "character device": _member("000001.sst", kind=tarfile.CHRTYPE),
    "block device": _member("000001.sst", kind=tarfile.BLKTYPE),
    "FIFO": _member("000001.sst", kind=tarfile.FIFOTYPE),
    "contiguous file": _member("000001.sst", kind=tarfile.CONTTYPE),
    "sparse file": _member("000001.sst", kind=tarfile.GNUTYPE_SPARSE),
    "control characters": _member("000001\n.sst"),
    "no name": _member(""),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_anything_but_plain_files_at_the_top_is_refused(kind: str, unpack: Unpack) -> None:
    member = HOSTILE[kind]
    with pytest.raises(FormatError) as caught:
        unpack(gzip.compress(_archive(CURRENT, member)))
    assert repr(member[0].name) in str(caught.value)


def test_sparse_file_in_extended_headers_is_refused(unpack: Unpack) -> None:
    header, content = _member("000001.sst", b"0\n" + bytes(510))
    header.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "000001.sst",
        "GNU.sparse.realsize": str(1 << 40),
    }
    with pytest.raises(FormatError):
        unpack(gzip.compress(_archive(CURRENT, (header, content), form=tarfile.PAX_FORMAT)))


def test_number_that_is_none_in_an_extended_header_is_refused(unpack: Unpack) -> None:
    header, content = _member("000001.sst", b"x")
    header.pax_headers = {"GNU.sparse.map": "no,numbers"}
    with pytest.raises(FormatError, match="damaged"):
        unpack(gzip.compress(_archive(CURRENT, (header, content), form=tarfile.PAX_FORMAT)))


def test_member_that_is_there_twice_is_refused(unpack: Unpack) -> None:
    for again in ("CURRENT", "./CURRENT"):
        with pytest.raises(FormatError, match="'CURRENT' occurs twice"):
            unpack(gzip.compress(_archive(CURRENT, _member(again, b"other"))))


def test_package_without_current_is_refused(unpack: Unpack) -> None:
    with pytest.raises(FormatError, match="no member CURRENT"):
        unpack(gzip.compress(_archive(_member("000009.sst", b"x"))))


def test_too_many_members_are_refused(unpack: Unpack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_module, "MAX_MEMBERS", 20)
    assert unpack(gzip.compress(_archive(CURRENT, *(_member(f"{i}.sst") for i in range(19)))))
    with pytest.raises(FormatError, match="more than 20 members"):
        unpack(gzip.compress(_archive(*(_member(f"x{i}") for i in range(30)))))


def test_too_many_bytes_are_refused(unpack: Unpack, tmp_path: Path) -> None:
    raw = gzip.compress(_archive(CURRENT, _member("000009.sst", bytes(1 << 20))))
    with pytest.raises(FormatError, match="more bytes than allowed"):
        unpack(raw, limit=1 << 19)
    assert sum(path.stat().st_size for path in (tmp_path / "unpacked").iterdir()) <= 1 << 19


def test_bytes_that_are_passed_over_count_too(unpack: Unpack) -> None:
    for members in ((CURRENT, _member("LOG", bytes(1 << 20))), (CURRENT,)):
        raw = gzip.compress(_archive(*members) + bytes(1 << 20))
        with pytest.raises(FormatError, match="more bytes than allowed"):
            unpack(raw, limit=1 << 19)


def test_bomb_is_refused_in_bounded_time(unpack: Unpack) -> None:
    zeros = gzip.compress(bytes(64 << 20))
    start = time.process_time()
    # 32 GiB each; to unpack all of it takes minutes.
    for bomb in (zeros * 512, gzip.compress(_archive(CURRENT)) + zeros * 512):
        with pytest.raises(FormatError):
            unpack(bomb, limit=64 << 20)
    assert time.process_time() - start < 10


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_long_headers_are_refused_before_they_fill_the_memory(kind: bytes, unpack: Unpack) -> None:
    raw = _archive(CURRENT, _member("x", bytes(3 << 20), kind), _member("000009.sst"))
    with pytest.raises(FormatError, match="headers of a member are too long"):
        unpack(gzip.compress(raw))


def _with_zeros(name: str, size: int) -> bytes:
    """A package with a member of zeros, some thousand times larger than what they are packed into."""
    sound = _archive(CURRENT, _member("000009.sst"))
    zeros = _member(name)
    zeros[0].size = size
    head = zeros[0].tobuf(tarfile.USTAR_FORMAT)
    piece = gzip.compress(bytes(1 << 20), 6)
    return gzip.compress(head) + piece * (size >> 20) + gzip.compress(sound)


@pytest.mark.parametrize("name", ["LOG", "000010.sst"])
def test_a_package_that_is_far_smaller_than_its_content_is_refused(name: str, unpack: Unpack) -> None:
    with pytest.raises(FormatError, match="more bytes than allowed"):
        unpack(_with_zeros(name, FREE_UNPACKED))


def test_what_no_reader_needs_may_be_large_and_is_not_written(unpack: Unpack) -> None:
    assert set(unpack(_with_zeros("LOG", FREE_UNPACKED // 2))) == {"CURRENT", "000009.sst"}


def test_memory_stays_flat(tmp_path: Path) -> None:
    directory, package = tmp_path / "catalog", tmp_path / "x.flist"
    write_catalog(directory, ((b"%03d" % number, bytes(1 << 20)) for number in range(48)))
    tracemalloc.start()
    try:
        with package.open("wb") as out:
            write_package(directory, out)
        unpack_package(package, tmp_path / "out")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "out" / "000009.sst").stat().st_size > 48 << 20
    assert peak < 8 << 20


@pytest.mark.parametrize(
    "raw", [b"", b"\x1f", b"\x1f\x8b", b"no gzip at all" * 100, gzip.compress(b"", mtime=0)]
)
def test_what_is_no_package_is_refused(raw: bytes, unpack: Unpack) -> None:
    with pytest.raises(FormatError, match=r"x\.flist is not a readable flist"):
        unpack(raw)


def test_gzip_of_something_else_is_refused(unpack: Unpack) -> None:
    for content in (b"no tar" * 1000, bytes(512), bytes(10_240)):
        with pytest.raises(FormatError):
            unpack(gzip.compress(content))


def test_every_cut_is_refused(catalog: Path, tmp_path: Path) -> None:
    raw = _packed(catalog)
    for position in range(0, len(raw), 7):
        (tmp_path / "x.flist").write_bytes(raw[:position])
        with pytest.raises(FormatError):
            unpack_package(tmp_path / "x.flist", tmp_path / f"cut {position}")


def test_flips_are_refused_or_change_nothing(catalog: Path, unpack: Unpack) -> None:
    # Deflate has bits that stand for nothing: a flip there leaves the content and its checksum as they are.
    raw = _packed(catalog)
    sound = unpack(raw)
    refused = 0
    positions = range(10, len(raw), 7)
    for position in positions:
        try:
            assert unpack(raw[:position] + bytes([raw[position] ^ 4]) + raw[position + 1 :]) == sound
        except FormatError:
            refused += 1
    assert refused > 0.9 * len(positions)


@settings(max_examples=200)
@given(data=st.data())
def test_damaged_archives_unpack_or_are_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pax = _member("000009.sst", b"table" * 100)
    pax[0].pax_headers = {"mtime": "1.5", "comment": "x" * 200}
    long_name = _member("0" * 120 + ".sst", b"x")
    form = data.draw(st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]))
    members = (CURRENT, pax) if form == tarfile.USTAR_FORMAT else (CURRENT, pax, long_name)
    damaged = bytearray(_archive(*members, form=form))
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, 4095))] = data.draw(st.integers(0, 255))
    directory = tmp_path_factory.mktemp("fuzz")
    (directory / "x.flist").write_bytes(gzip.compress(bytes(damaged), 1))
    try:
        unpack_package(directory / "x.flist", directory / "out", limit=1 << 20)
    except FormatError:
        return
    assert (directory / "out" / "CURRENT").is_file()


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"^there is no file {tmp_path / 'x.flist'}$"):
        unpack_package(tmp_path / "x.flist", tmp_path / "out")
    with pytest.raises(FormatError, match="cannot read"):
        unpack_package(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_are_there_are_not_written_over(catalog: Path, tmp_path: Path) -> None:
    (tmp_path / "x.flist").write_bytes(_packed(catalog))
    (tmp_path / "out").mkdir()
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "out" / "CURRENT").symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError, match="cannot unpack into"):
        unpack_package(tmp_path / "x.flist", tmp_path / "out")
    assert (tmp_path / "victim").read_text() == "precious"
