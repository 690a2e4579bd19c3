"""Packages stay equal, byte for byte, to those that earlier versions sealed.

What a catalog holds is compared whatever the libraries; the package as a whole, where RocksDB is the one that
wrote the recorded packages: others lay tables out in their own way.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.e2e.commands import Home
from tests.independent_reader import read_records

EPOCH = {"SOURCE_DATE_EPOCH": "1500000000"}
READERS = "ardb://blocks.example.org:16379"  # goes into the package, as where blocks are
RECORDED_WITH = "0.3.29"  # rocksdict


def digest(*parts: bytes) -> str:
    """One hash over parts of any length."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8) + part)
    return total.hexdigest()


def member(name: str, kind: bytes = tarfile.REGTYPE, *, mode: int = 0o644, **more: object) -> tarfile.TarInfo:
    """A member of an archive, with an owner and a time of its own."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime = kind, mode, 1_400_000_000 + len(name)
    info.uid, info.gid, info.uname, info.gname = 1000, 100, "builder", "users"
    for field, value in more.items():
        setattr(info, field, value)
    return info


def content(size: int, seed: int) -> bytes:
    """Content that compresses somewhat, the same each time."""
    words = [hashlib.sha256(bytes([seed]) + number.to_bytes(4)).digest() for number in range(size // 64 + 1)]
    return b"".join(word + bytes(32) for word in words)[:size]


def archive(path: Path) -> Path:
    """Everything that a tree can hold: each kind, odd names, owners, long files, many entries."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member("./", tarfile.DIRTYPE, mode=0o755))
        tar.addfile(member("etc", tarfile.DIRTYPE, mode=0o755, uid=0, gid=0, uname="root", gname="root"))
        tar.addfile(member("etc/private", tarfile.DIRTYPE, mode=0o700))
        tar.addfile(member("tmp", tarfile.DIRTYPE, mode=0o1777))
        for number, size in enumerate((0, 1, 524_287, 524_288, 524_289, 1_600_000)):
            tar.addfile(member(f"etc/file{size}", size=size, uid=number), io.BytesIO(content(size, number)))
        tar.addfile(member("etc/same", size=524_289), io.BytesIO(content(524_289, 4)))
        tar.addfile(member("etc/hard", tarfile.LNKTYPE, linkname="etc/same"))
        tar.addfile(member("etc/link", tarfile.SYMTYPE, mode=0o777, linkname="file1"))
        tar.addfile(member("etc/fifo", tarfile.FIFOTYPE))
        tar.addfile(member("etc/null", tarfile.CHRTYPE, mode=0o666, devmajor=1, devminor=3))
        tar.addfile(member("etc/sda", tarfile.BLKTYPE, mode=0o660, devmajor=8, devminor=0))
        tar.addfile(member("etc/set-id", mode=0o4755, size=3), io.BytesIO(b"run"))
        tar.addfile(member("etc/ünïcode 世界", size=5), io.BytesIO(b"world"))
        tar.addfile(member("etc/not utf-8 \udcff\udcfe", size=5), io.BytesIO(b"bytes"))
        tar.addfile(
            member("etc/foreign", size=1, uid=77_777, gid=88_888, uname="", gname=""), io.BytesIO(b"x")
        )
        tar.addfile(member("many", tarfile.DIRTYPE, mode=0o755))
        for number in range(1500):
            data = f"entry {number % 700}".encode()
            tar.addfile(member(f"many/{number:05}", size=len(data)), io.BytesIO(data))
        for number in range(60):
            tar.addfile(member(f"many/sub{number}", tarfile.DIRTYPE, mode=0o755))
            tar.addfile(member(f"many/sub{number}/name", size=4), io.BytesIO(b"name"))
    return path


def upper(path: Path) -> Path:
    """What is put on top of it."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(member("many", tarfile.DIRTYPE, mode=0o711))
        tar.addfile(member("many/00003", size=7), io.BytesIO(b"another"))
        tar.addfile(member("opt", tarfile.DIRTYPE, mode=0o755))
        tar.addfile(member("opt/tool", mode=0o755, size=600_000), io.BytesIO(content(600_000, 9)))
    return path


def check(package: Path, records: str, whole: str) -> None:
    """Compare a package with the one that was sealed before."""
    found = sorted(read_records(package).items())
    parts = [part for record in found for part in record]
    assert digest(*parts) == records
    if version("rocksdict") == RECORDED_WITH:
        assert digest(gzip.decompress(package.read_bytes())) == whole


@pytest.fixture
def lower(home: Home) -> Path:
    """The lower flist, sealed."""
    out = home.path / "lower.flist"
    home.run("pack", archive(home.path / "lower.tar"), out, "--public-url", READERS, env=EPOCH)
    return out


def test_a_packed_archive_is_what_it_was(lower: Path) -> None:
    check(
        lower,
        "0ad840f1c1bc47bc10f8a3ee9ec54a7dc2b084dd65e65a8b381107bd99846936",
        "f319758b545408a0eeef5eb9e6c370bbea68b47ecfa02b28b5d7484eba666e58",
    )


def test_merged_flists_are_what_they_were(home: Home, lower: Path) -> None:
    top, both = home.path / "upper.flist", home.path / "both.flist"
    home.run("pack", upper(home.path / "upper.tar"), top, env=EPOCH)
    home.run("merge", lower, top, "--output", both, "--prefer", "last", env=EPOCH)
    check(
        top,
        "dec06d39d41fe9dfb51717a7cfccf5f9d08da3fc458103d80674eb5972d00f0a",
        "bb277a94f42ad38377ffc5766415d5cb82095585a8821deaa5533769884ce755",
    )
    check(
        both,
        "5ae257986b11feb103e1695eede55d20edbbf9f55c3f5f8b9eb0b2c87552b7dc",
        "9e57a24aeedfb29805d075e599c8cd62c21a87d5d57f6885cebbc046b5a5bf36",
    )


def test_an_flist_on_a_base_is_what_it_was(home: Home, lower: Path) -> None:
    tree, out = home.path / "tree", home.path / "based.flist"
    (tree / "many").mkdir(parents=True)
    (tree / "many/00003").write_bytes(b"another")
    (tree / "tool").write_bytes(content(600_000, 9))
    for path in (tree / "many/00003", tree / "tool", tree / "many", tree):
        path.chmod(0o750)
        os.utime(path, (1_450_000_000, 1_450_000_000))
    home.run("new", "--from", lower)
    home.run("add", f"{tree}/.")
    home.run("seal", out, "--owner", "7:8", env=EPOCH)
    check(
        out,
        "56b03e23b69a24ddbe502d7eacab882a054dedb01e2ca0017f5c0181f2d8fd05",
        "37a3fa3f4be6b2fcf7f32930b50f18306b0b28e39466f473b4abe24464178e4b",
    )
