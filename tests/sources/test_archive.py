"""Archives from strangers: whatever they hold, items, problems or a clear error come out of them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flistfs.errors import SourceError
from flistfs.sources.archive import TarSource
from flistfs.sources.data import BytesSource
from flistfs.sources.excludes import excluding
from flistfs.sources.item import Item, Note, Problem
from flistfs.tree.chunks import CHUNK_SIZE
from tests.sources.tars import END, GNU, entry, extended, header, octal, padded


def archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def member(name: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def read(raw: bytes, *patterns: str) -> list[Item | Problem | Note]:
    """Read a whole archive, contents too."""
    source = TarSource(io.BytesIO(raw), "archive", excluded=excluding(patterns))
    found = []
    for each in source.items():
        found.append(each)
        if isinstance(each, Item):
            assert b"".join(cast(BytesSource, piece.source).data for piece in each.pieces) is not None
    return found


def chunks(raw: bytes) -> tuple[Item, dict[int, bytes]]:
    """Read an archive of one file."""
    walk = TarSource(io.BytesIO(raw), "archive").items()
    item = next(walk)
    assert isinstance(item, Item)
    found = {piece.number: cast(BytesSource, piece.source).data for piece in item.pieces}
    assert not list(walk)
    return item, found


def notes(raw: bytes) -> list[str]:
    return [found.text for found in read(raw) if isinstance(found, Note)]


def items(raw: bytes, *patterns: str) -> dict[bytes, Item]:
    found = read(raw, *patterns)
    assert not [entry for entry in found if isinstance(entry, Problem)]
    return {entry.path: entry for entry in found if isinstance(entry, Item)}


def test_times_keep_their_fractions_exactly() -> None:
    """A float would round 0.999999999 up to the next second."""
    exact = member("f", pax_headers={"mtime": "1700000000.999999999"})
    found = items(archive((exact, b""), (member("g", mtime=5), b""), (member("h", mtime=-1.5), b"")))
    assert found[b"f"].mtime_ns == 1_700_000_000_999_999_999
    assert found[b"g"].mtime_ns == 5_000_000_000
    assert found[b"h"].mtime_ns == -1_500_000_000


def test_what_lies_in_an_excluded_directory_is_excluded() -> None:
    raw = archive((member("./keep"), b""), (member("cache/a/b"), b"x"), (member("x.o"), b"o"))
    assert set(items(raw, "/cache/", "*.o")) == {b"keep"}


def test_extended_attributes_are_found() -> None:
    raw = archive((member("f", pax_headers={"SCHILY.xattr.user.name": "value"}), b""))
    assert items(raw)[b"f"].xattrs == {b"user.name": b"value"}


def test_names_that_are_not_utf_8() -> None:
    assert set(items(archive((member("n\udcff"), b"")))) == {b"n\xff"}


@pytest.mark.parametrize("text", ["nan", "1e999999999", "x", "inf", "-1e30"])
def test_times_that_make_no_sense(text: str) -> None:
    (found,) = read(archive((member("f", pax_headers={"mtime": text}), b"")))
    assert found == Problem(b"f", "its time is invalid")


def test_headers_without_end_take_no_memory() -> None:
    raw = header(b"././@PaxHeader", b"x", size=octal(4 << 30, 12)) + bytes(8 << 20)
    with pytest.raises(SourceError, match="headers of a member are too long"):
        read(raw)


def test_extended_attributes_of_bsdtar_are_found() -> None:
    raw = extended(("LIBARCHIVE.xattr.user.name", b"dmFsdWU")) + entry(b"f") + END
    assert items(raw)[b"f"].xattrs == {b"user.name": b"value"}


def test_absolute_names_lose_their_slash_and_that_is_said_once() -> None:
    raw = (
        entry(b"./", kind=b"5")
        + entry(b"/opt/", kind=b"5")
        + entry(b"//opt/x", b"x")
        + header(b"/opt/h", b"1", link=b"/opt/x")
        + header(b"/opt/s", b"2", link=b"/opt/x")
        + END
    )
    found = {each.path: each for each in read(raw) if isinstance(each, Item)}
    assert list(found) == [b"", b"opt", b"opt/x", b"opt/h", b"opt/s"]
    assert (found[b"opt/h"].link, found[b"opt/s"].target) == (b"opt/x", b"/opt/x")
    assert notes(raw) == ["archive has absolute names; the leading slashes were removed"]
    assert not notes(entry(b"./x") + END)


# Content


def test_a_file_of_several_chunks() -> None:
    data = bytes(range(256)) * 5000
    item, found = chunks(entry(b"f", data) + END)
    assert (item.size, item.count) == (len(data), 3)
    assert b"".join(found.values()) == data
    assert list(map(len, found.values())) == [CHUNK_SIZE, CHUNK_SIZE, len(data) - 2 * CHUNK_SIZE]


def sparse(size: int, *parts: tuple[int, bytes]) -> bytes:
    numbers = ",".join(f"{offset},{len(data)}" for offset, data in parts)
    records = ("GNU.sparse.size", b"%d" % size), ("GNU.sparse.map", numbers.encode())
    return extended(*records) + entry(b"f", b"".join(data for _, data in parts)) + END


def test_holes_are_neither_read_nor_stored() -> None:
    item, found = chunks(sparse(60 << 30, (40 << 30, b"x" * 292), (60 << 30, b"")))
    assert (item.size, item.count) == (60 << 30, 1)
    assert found == {81920: b"x" * 292 + bytes(CHUNK_SIZE - 292)}


def test_parts_of_chunks() -> None:
    parts = [
        (10, b"a" * 5),
        (20, b"b" * (CHUNK_SIZE - 10)),
        (2 * CHUNK_SIZE, b"c" * CHUNK_SIZE),
        (4 * CHUNK_SIZE, b"d"),
    ]
    size = 6 * CHUNK_SIZE + 7
    item, found = chunks(sparse(size, *parts, (size - 1, b"e")))
    whole = bytearray(size)
    for offset, data in (*parts, (size - 1, b"e")):
        whole[offset : offset + len(data)] = data
    assert found == {
        number: whole[number * CHUNK_SIZE : (number + 1) * CHUNK_SIZE] for number in (0, 1, 2, 4, 6)
    }
    assert item.count == len(found)


# The end of an archive


def test_no_end_of_archive_marker() -> None:
    """A plain archive may be cut off then; one stream of a compressed file shows that it is not."""
    bare = entry(b"a", b"x") + entry(b"b", b"y")
    *_, last = read(bare)
    assert "no end-of-archive marker" in str(last)
    for whole in (
        gzip.compress(bare),
        lzma.compress(bare),
        bz2.compress(bare),
        gzip.compress(bare + bytes(512)),
    ):
        assert set(items(whole)) == {b"a", b"b"}
    *_, last = read(gzip.compress(entry(b"a", b"x")) + gzip.compress(entry(b"b", b"y")))
    assert "no end-of-archive marker" in str(last)
    assert set(items(gzip.compress(entry(b"a", b"x")) + gzip.compress(entry(b"b", b"y") + END))) == {
        b"a",
        b"b",
    }


def test_content_without_padding_at_the_end() -> None:
    assert set(items(gzip.compress(entry(b"a", b"x" * 600)[: 512 + 600]))) == {b"a"}


def test_one_block_of_zeros_is_an_end() -> None:
    assert set(items(entry(b"a", b"x") + bytes(512))) == {b"a"}
    assert set(items(bytes(512))) == set()


def test_the_rest_of_the_input_is_read_to_its_end() -> None:
    file = io.BytesIO(entry(b"a", b"x") + END + bytes(3 << 20) + b"junk")
    assert [each for each in TarSource(file, "archive").items() if not isinstance(each, Item)] == []
    assert file.read() == b""


def test_damage_behind_the_end_is_damage() -> None:
    whole = gzip.compress(entry(b"a", b"x") + END)
    with pytest.raises(SourceError, match="incorrect data check"):
        read(whole[:-8] + b"12345678")


def test_several_archives_in_one_file() -> None:
    first, second = entry(b"a", b"x") + END, entry(b"b", b"y") + END
    assert notes(first + bytes(4096) + second) == [
        "archive is followed by another archive, which was not read"
    ]


def test_zeros_before_something_else_are_no_archive() -> None:
    with pytest.raises(SourceError, match="not a tar archive"):
        read(bytes(32 << 10) + b"\1CD001" + bytes(1 << 20))


def test_an_empty_file() -> None:
    for raw in (b"", gzip.compress(b"")):
        with pytest.raises(SourceError, match="it is empty"):
            read(raw)


SOUND = archive(
    (member("directory", type=tarfile.DIRTYPE), b""),
    (member("directory/file", pax_headers={"mtime": "12.5", "SCHILY.xattr.user.x": "y"}), b"content" * 100),
    (member("n" * 150), b"long name"),
    (member("link", type=tarfile.SYMTYPE, linkname="directory/file"), b""),
    (member("hard", type=tarfile.LNKTYPE, linkname="directory/file"), b""),
    (member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
)
SPARSE = (
    extended(("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"4096"))
    + entry(b"one", padded(b"2\n512\n3\n4096\n0\n") + b"one")
    + header(
        b"old",
        b"S",
        size=2,
        magic=GNU,
        tail=bytes(41) + octal(0, 12) + octal(2, 12) + bytes(73) + octal(9, 12),
    )
    + padded(b"ol")
)


def test_what_is_changed_below_is_sound() -> None:
    found = items(SPARSE + SOUND)
    assert (found[b"one"].size, found[b"old"].size, len(found)) == (4096, 9, 8)


@given(data=st.data(), zipped=st.booleans())
def test_a_changed_archive_gives_items_problems_or_a_source_error(
    data: st.DataObject, *, zipped: bool
) -> None:
    raw = bytearray(gzip.compress(SPARSE + SOUND, mtime=0) if zipped else SPARSE + SOUND)
    for _ in range(data.draw(st.integers(1, 8))):
        where = data.draw(st.integers(0, len(raw) - 1))
        raw[where] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    try:
        found = read(bytes(raw[:cut]))
    except SourceError:
        return
    for each in found:
        if isinstance(each, Item):
            assert not each.path.startswith(b"/")
            assert b".." not in each.path.split(b"/")
            assert 0 <= each.uid < 2**32
