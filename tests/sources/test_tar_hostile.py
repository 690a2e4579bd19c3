"""Tar archives that are hostile, damaged, or of another format."""

from __future__ import annotations

import io

import pytest

from flistfs.errors import FormatError
from flistfs.sources.tar import Member, TarReader
from tests.sources.tars import END, entry, extended, header, octal, padded, record
from tests.sources.test_tar import NAME, REAL, SIZE, VERSION, contents, gnu_sparse, read


def test_a_size_that_no_archive_can_hold_is_told_before_its_content_is_asked_for() -> None:
    reader = TarReader(io.BytesIO(extended(("size", b"%d" % 2**62)) + header(b"f")))
    members = reader.members()
    member = next(members)
    assert isinstance(member, Member)
    assert member.size == 2**62
    with pytest.raises(FormatError, match="ends in the middle"):
        next(members)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_headers_without_end_take_no_memory(kind: bytes) -> None:
    with pytest.raises(FormatError, match="headers of a member are too long"):
        read(header(b"x", kind, size=octal(4 << 30, 12)), bytes(1 << 20))
    with pytest.raises(FormatError, match="too long"):
        read(*[header(b"x", kind, size=4 << 20) + b"10 path=x\n".ljust(4 << 20, b"\0")] * 3, entry(b"f"))


def test_records_without_end_take_no_memory() -> None:
    many = b"".join(record(f"SCHILY.xattr.user.{number}", b"") for number in range(40_000))
    with pytest.raises(FormatError, match="too many records"):
        read(entry(b"x", many, b"x"), entry(b"f"), END)


def test_maps_without_end_take_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flistfs.sources.tar_headers.MAX_EXTENTS", 100)
    monkeypatch.setattr("flistfs.sources.tar.MAX_EXTENTS", 100)
    many = [(number * 1024, 512) for number in range(101)]
    numbers = [b"%d" % number for extent in many for number in extent]
    data = bytes(101 * 512)
    in_content = padded(b"101\n" + b"\n".join(numbers) + b"\n") + data
    holes = "more than 100 holes"
    assert holes in str(contents(extended(*VERSION, NAME, REAL), entry(b"x", in_content), END)[b"sp"])
    assert holes in str(
        contents(extended(NAME, SIZE, ("GNU.sparse.map", b",".join(numbers))), entry(b"x"), END)[b"sp"]
    )
    with pytest.raises(FormatError, match=holes):
        read(gnu_sparse(many * 2, 200_000, data), END)


@pytest.mark.parametrize(
    "records", [b"x", b"5 a=b", b"99 path=x\n", b"0 path=x\n", b"9 path=xx\n", b"7 path\n", b"-1 path=x\n"]
)
def test_extended_headers_that_make_no_sense(records: bytes) -> None:
    with pytest.raises(FormatError, match="extended header"):
        read(entry(b"x", records, b"x"), entry(b"f"), END)


def test_headers_that_are_damaged_or_cut_off() -> None:
    good = entry(b"f", b"x" * 600)
    with pytest.raises(FormatError, match="checksum"):
        read(good, b"\1" + good[1:], END)
    with pytest.raises(FormatError, match="middle of a header"):
        read(good, good[:511])
    with pytest.raises(FormatError, match="ends in the middle"):
        read(good[:-513])
    for kind in (b"x", b"L"):
        with pytest.raises(FormatError, match="truncated"):
            read(good, entry(b"x", b"10 path=x\n", kind))
        with pytest.raises(FormatError, match="truncated"):
            read(good, entry(b"x", b"10 path=x\n", kind), END)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"PK\x03\x04\x14", "zip"),
        (b"070701000", "cpio"),
        (b"\xc7\x71\x00", "cpio"),
        (b"!<arch>\ndebian-binary", r"\.deb"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"\x1f\x8b\x08\0", "compressed file in a compressed file"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"#!/bin/sh\n", "not a tar archive"),
    ],
)
@pytest.mark.parametrize("length", [0, 4096])
def test_other_formats_are_refused_by_name(start: bytes, what: str, length: int) -> None:
    with pytest.raises(FormatError, match=what):
        read(start.ljust(length, b"x"))
