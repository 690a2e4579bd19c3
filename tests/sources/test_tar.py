"""The tar format: everything that is said of a member in its various ways, and what is damaged or hostile."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass

import pytest

from flistfs.errors import FormatError
from flistfs.sources.tar import FILE, BadMember, Member, TarReader
from flistfs.sources.tar_headers import MemberError
from tests.sources.tars import END, GNU, POSIX, V7, base256, entry, extended, header, octal, padded

HOLES = b"\0" * 100_000 + b"Q" * 1000 + b"\0" * 99_000
TIMES = octal(1_600_000_000, 12) * 2


@dataclass
class Found:
    member: Member
    content: bytes


def read(*parts: bytes) -> dict[bytes, Found | str]:
    """Read members with their content, and why others are none."""
    reader = TarReader(io.BytesIO(b"".join(parts)))
    found: dict[bytes, Found | str] = {}
    for member in reader.members():
        if isinstance(member, BadMember):
            found[member.name] = member.reason
        elif member.extents is None:
            found[member.name] = Found(member, reader.read(member.size) if member.kind == FILE else b"")
        else:
            content = bytearray(member.size)
            for offset, length in zip(*member.extents, strict=True):
                content[offset : offset + length] = reader.read(length)
            found[member.name] = Found(member, bytes(content))
    return found


def contents(*parts: bytes) -> dict[bytes, bytes | str]:
    found = read(*parts)
    return {name: each if isinstance(each, str) else each.content for name, each in found.items()}


def only(*parts: bytes) -> Member:
    ((_, found),) = read(*parts).items()
    assert isinstance(found, Found)
    return found.member


# Names


def test_gnu_headers_have_times_where_others_have_the_prefix_of_a_name() -> None:
    names = contents(
        entry(b"gnu", magic=GNU, tail=TIMES),
        entry(b"posix", magic=POSIX, tail=b"a/directory"),
        entry(b"star", magic=POSIX, tail=b"of/star".ljust(131, b"\0") + TIMES + b"\0\0\0\0\0\0\0\0tar\0"),
        entry(b"v7", magic=V7, tail=b"nothing"),
        entry(b"n" * 100, magic=POSIX, tail=b"p" * 155),
        END,
    )
    assert set(names) == {
        b"gnu",
        b"a/directory/posix",
        b"of/star/star",
        b"v7",
        b"p" * 155 + b"/" + b"n" * 100,
    }


def test_the_longest_way_to_write_a_name_counts() -> None:
    long_name, long_link = entry(b"././@LongLink", b"n" * 300 + b"\0", b"L"), entry(b"x", b"l" * 300, b"K")
    member = only(long_link, long_name, entry(b"short", kind=b"2", link=b"short", magic=GNU), END)
    assert (member.name, member.link) == (b"n" * 300, b"l" * 300)
    member = only(long_name, extended(("path", b"pax"), ("linkpath", b"\xff")), entry(b"x", kind=b"1"), END)
    assert (member.name, member.link) == (b"pax", b"\xff")
    assert only(extended(("path", b"")), entry(b"empty"), END).name == b"empty"


def test_records_for_all_members_and_for_one() -> None:
    found = read(
        extended(("mtime", b"1"), ("uid", b"5"), ("comment", b"abc"), kind=b"g"),
        entry(b"all"),
        extended(("uid", b"6"), ("mtime", b"")),
        entry(b"one"),
        extended(("gid", b"7"), kind=b"X"),
        entry(b"solaris"),
        END,
    )
    owners = {
        name: (each.member.uid, each.member.gid) for name, each in found.items() if isinstance(each, Found)
    }
    assert owners == {b"all": (5, 0o1751), b"one": (6, 0o1751), b"solaris": (5, 7)}
    times = [each.member.mtime_ns // 10**9 for each in found.values() if isinstance(each, Found)]
    assert times == [1, 1_600_000_000, 1]


def test_extended_attributes_as_everybody_writes_them() -> None:
    member = only(
        extended(
            ("SCHILY.xattr.user.both", b"a\n\0b"),
            ("LIBARCHIVE.xattr.user.both", b"YQoAYg"),
            ("LIBARCHIVE.xattr.user.a%3Db", b"dmFsdWU="),
            ("SCHILY.acl.access", b"user::rwx"),
        ),
        entry(b"f"),
        END,
    )
    assert member.xattrs == {b"user.both": b"a\n\0b", b"user.a=b": b"value"}


# Kinds


@pytest.mark.parametrize("kind", [b"0", b"\0", b"7"])
@pytest.mark.parametrize("magic", [V7, POSIX, GNU])
def test_files_and_directories_before_there_was_a_type_for_them(kind: bytes, magic: bytes) -> None:
    found = read(entry(b"d/", kind=kind, magic=magic), entry(b"d/f", b"x", kind, magic=magic), END)
    kinds = {
        name: (each.member.kind, each.content) for name, each in found.items() if isinstance(each, Found)
    }
    assert kinds == {b"d/": (b"5", b""), b"d/f": (b"0", b"x")}


def test_a_directory_with_content_is_not_taken_for_one() -> None:
    found = contents(entry(b"d/", b"content"), entry(b"after", b"x"), END)
    assert "has content" in str(found[b"d/"])
    assert found[b"after"] == b"x"


def test_what_gnu_tar_adds_for_itself() -> None:
    dump = b"Yfile\0Ddirectory\0\0"
    found = read(
        entry(b"weekly", kind=b"V", magic=GNU), entry(b"d/", dump, b"D", magic=GNU), entry(b"d/f", b"x"), END
    )
    assert {name: each.member.kind for name, each in found.items() if isinstance(each, Found)} == {
        b"d/": b"5",
        b"d/f": b"0",
    }


def test_access_control_lists_of_solaris_are_no_members() -> None:
    assert contents(entry(b"f", b"1000007\0acl", b"A"), entry(b"f", b"x"), END) == {b"f": b"x"}


def test_the_rest_of_a_file_on_another_volume() -> None:
    volume = extended(("GNU.volume.filename", b"f"), ("GNU.volume.offset", b"512"), kind=b"g")
    for begin in (entry(b"f", b"rest", b"M", magic=GNU), volume + entry(b"f", b"rest")):
        found = contents(begin, entry(b"after", b"x"), END)
        assert "another volume" in str(found[b"f"])
        assert found[b"after"] == b"x"


def test_sizes_of_what_has_no_content() -> None:
    sized = [header(b"k" + kind, kind, size=4096) for kind in (b"2", b"3", b"4", b"5", b"6")]
    assert set(read(*sized, entry(b"after", b"x"), END)) == {b"k2", b"k3", b"k4", b"k5", b"k6", b"after"}


@pytest.mark.parametrize("size", [1, 511, 512, 513, 5000])
def test_a_hard_link_may_have_a_size_with_content_or_without(size: int) -> None:
    link = header(b"h", b"1", size=size, link=b"f")
    after = entry(b"after", b"x")
    for parts in ((link, after), (link, padded(b"c" * size), after)):
        assert contents(*parts, END) == {b"h": b"", b"after": b"x"}
    assert contents(link, END) == {b"h": b""}
    assert contents(link) == {b"h": b""}


# Numbers


def test_numbers_in_all_their_ways() -> None:
    member = only(entry(b"f", uid=base256(3_000_000_000, 8), mtime=base256(-5, 12), gid=b"     17\0"), END)
    assert (member.uid, member.gid, member.mtime_ns) == (3_000_000_000, 0o17, -5 * 10**9)
    member = only(entry(b"f", uid=b"\0" * 8, gid=b"\0    17 ", mode=b"644\0junk"), END)
    assert (member.uid, member.gid, member.mode) == (0, 0o17, 0o644)
    assert contents(header(b"f", size=base256(3, 12)) + padded(b"abc"), END) == {b"f": b"abc"}
    assert contents(extended(("size", b"3")), header(b"f", size=0) + padded(b"abc"), END) == {b"f": b"abc"}


@pytest.mark.parametrize(
    ("text", "time"),
    [
        (b"1700000000.999999999", 1_700_000_000_999_999_999),
        (b"1.5", 1_500_000_000),
        (b"-1.5", -1_500_000_000),
        (b"12.0000000019", 12_000_000_001),
        (b"7.", 7_000_000_000),
    ],
)
def test_times_with_fractions(text: bytes, time: int) -> None:
    assert only(extended(("mtime", text)), entry(b"f"), END).mtime_ns == time


@pytest.mark.parametrize(
    "text", [b"nan", b"1e9", b"x", b"inf", b"-1e30", b"9" * 20, b"9" * 5000, b"1_0", b" 1"]
)
def test_times_that_make_no_sense(text: bytes) -> None:
    member = only(extended(("mtime", text)), entry(b"f"), END)
    with pytest.raises(MemberError, match="time"):
        _ = member.mtime_ns


def test_numbers_that_are_none() -> None:
    for uid in (b"9999999\0", b"-000001\0", b"0x00017\0", b"00_0017\0"):
        with pytest.raises(MemberError, match="uid is not a number"):
            _ = only(entry(b"f", uid=uid), END).uid
    for size in (b"99999999999\0", base256(-1, 12), base256(2**63, 12)):
        with pytest.raises(FormatError, match="size"):
            read(header(b"f", size=size), END)


def test_checksums_of_signed_bytes() -> None:
    assert set(read(entry(b"\xff\xfe", signed=True), entry(b"\xff"), END)) == {b"\xff\xfe", b"\xff"}


# Sparse files


def gnu_map(*extents: tuple[int, int]) -> bytes:
    return b"".join(octal(offset, 12) + octal(length, 12) for offset, length in extents)


def gnu_sparse(extents: list[tuple[int, int]], size: int, data: bytes) -> bytes:
    """A sparse file of GNU tar, with as many blocks of its map as it takes."""
    more, tail = extents[4:], bytes(41) + gnu_map(*extents[:4]).ljust(96, b"\0")
    blocks = [more[start : start + 21] for start in range(0, len(more), 21)]
    tail += bytes([bool(more)]) + octal(size, 12)
    head = header(b"sp", b"S", size=len(data), magic=GNU, tail=tail)
    for number, block in enumerate(blocks):
        head += (gnu_map(*block).ljust(504, b"\0") + bytes([number + 1 < len(blocks)])).ljust(512, b"\0")
    return head + padded(data)


def test_sparse_files_in_old_headers() -> None:
    extents = [(number * 1024, 512) for number in range(60)]
    data = os.urandom(60 * 512)
    wanted = b"".join(data[start : start + 512] + bytes(512) for start in range(0, len(data), 512))
    assert contents(gnu_sparse(extents, 61_440, data), entry(b"after", b"x"), END) == {
        b"sp": wanted,
        b"after": b"x",
    }
    assert contents(gnu_sparse([(5000, 0)], 5000, b""), END) == {b"sp": bytes(5000)}


REAL = "GNU.sparse.realsize", b"200000"
NAME = "GNU.sparse.name", b"sp"
VERSION = ("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")
SIZE = "GNU.sparse.size", b"200000"
MAP = "GNU.sparse.map", b"100000,1000,200000,0"
IN_CONTENT = padded(b"2\n100000\n1000\n200000\n0\n") + b"Q" * 1000
EXTENTS = (
    ("GNU.sparse.offset", b"100000"),
    ("GNU.sparse.numbytes", b"1000"),
    ("GNU.sparse.offset", b"200000"),
    ("GNU.sparse.numbytes", b"0"),
)
PAX_SPARSE = {
    "0.0": ((("path", b"sp"), SIZE, ("GNU.sparse.numblocks", b"2"), *EXTENTS), b"Q" * 1000),
    "0.1": ((NAME, SIZE, ("GNU.sparse.numblocks", b"2"), MAP), b"Q" * 1000),
    "1.0": ((*VERSION, NAME, REAL), IN_CONTENT),
}


@pytest.mark.parametrize("version", PAX_SPARSE)
@pytest.mark.parametrize("where", ["header", "record before", "record after"])
def test_sparse_files_of_pax(version: str, where: str) -> None:
    """What is stored has one size, the file another, wherever they are written."""
    records, data = PAX_SPARSE[version]
    size = ("size", b"%d" % len(data))
    if where == "record before":
        records = (size, *records)
    elif where == "record after":
        records = (*records, size)
    member = header(b"GNUSparseFile.1/sp", size=len(data) if where == "header" else 0) + padded(data)
    assert contents(extended(*records), member, entry(b"after", b"x"), END) == {b"sp": HOLES, b"after": b"x"}


def test_the_name_of_a_sparse_file_is_not_the_one_that_others_are_to_see() -> None:
    records, data = PAX_SPARSE["1.0"]
    found = contents(
        extended(("path", b"GNUSparseFile.7/sp"), *records), entry(b"GNUSparseFile.7/sp", data), END
    )
    assert found == {b"sp": HOLES}


def test_content_that_the_map_does_not_name_is_skipped() -> None:
    assert contents(extended(NAME, SIZE, MAP), entry(b"x", b"Q" * 1600), entry(b"after", b"x"), END) == {
        b"sp": HOLES,
        b"after": b"x",
    }


BAD_MAPS = {
    "overlap": b"0,600,500,100",
    "backwards": b"1000,10,0,10",
    "beyond the end": b"199999,2",
    "more than stored": b"0,1001",
    "odd": b"0,1,2",
    "negative": b"0,-1",
    "huge": b"9223372036854775807,9223372036854775807",
    "empty": b"",
    "no numbers": b"a,b",
}


@pytest.mark.parametrize("case", BAD_MAPS)
def test_maps_of_holes_that_make_no_sense(case: str) -> None:
    found = contents(
        extended(NAME, SIZE, ("GNU.sparse.map", BAD_MAPS[case])),
        entry(b"x", b"Q" * 1000),
        extended(*VERSION, NAME, SIZE, ("path", b"in content")),
        entry(
            b"x",
            padded(b"%d\n" % (BAD_MAPS[case].count(b",") // 2 + 1) + BAD_MAPS[case].replace(b",", b"\n")),
        ),
        entry(b"after", b"x"),
        END,
    )
    assert "map of holes" in str(found[b"sp"])
    assert found[b"after"] == b"x"


@pytest.mark.parametrize(
    "records",
    [
        (NAME, MAP),
        (NAME, SIZE),
        (("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0"), NAME, REAL),
        (NAME, ("GNU.sparse.size", b"-1"), MAP),
        (("path", b"sp"), ("SUN.holesdata", b" 0 0 12288")),
    ],
)
def test_sparse_files_that_cannot_be_read(records: tuple[tuple[str, bytes], ...]) -> None:
    found = contents(extended(*records), entry(b"x", b"Q" * 1000), entry(b"after", b"x"), END)
    assert isinstance(found[b"sp"], str)
    assert found[b"after"] == b"x"


def test_sparse_files_of_star() -> None:
    star = header(b"sp", b"S", size=512, tail=bytes(131) + TIMES)
    assert "star" in str(contents(star, bytes(512), entry(b"after", b"x"), END)[b"sp"])
