"""Archives from strangers: whatever they hold, items, problems or a clear error come out of them."""

from __future__ import annotations

import gzip
import io
import stat
import tarfile
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flistfs.authoring.encoder import BytesSource
from flistfs.authoring.excludes import excluding
from flistfs.authoring.source import Item, Problem
from flistfs.authoring.tarball import TarSource
from flistfs.errors import SourceError


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


def read(raw: bytes, *patterns: str) -> list[Item | Problem]:
    """Read a whole archive, contents too."""
    source = TarSource(io.BytesIO(raw), "archive", excluded=excluding(patterns))
    found = []
    for entry in source.items():
        found.append(entry)
        if isinstance(entry, Item):
            assert b"".join(cast(BytesSource, piece.source).data for piece in entry.pieces) is not None
    return found


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


def test_directories_that_are_not_named_are_made_once_and_give_way() -> None:
    found = read(
        archive(
            (member("a/b/c", mtime=7), b"x"),
            (member("a/b/d"), b"y"),
            (member("a", type=tarfile.DIRTYPE), b""),
        )
    )
    shown = [(entry.path, entry.is_implied) for entry in found if isinstance(entry, Item)]
    assert shown == [(b"a", True), (b"a/b", True), (b"a/b/c", False), (b"a/b/d", False), (b"a", False)]
    first = found[0]
    assert isinstance(first, Item)
    assert (stat.S_IMODE(first.mode), first.mtime_ns) == (0o755, 7_000_000_000)


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
    found = read(archive((member("f", pax_headers={"mtime": text}), b"")))
    assert all(isinstance(entry, Problem) or abs(entry.mtime_ns) < 2**63 for entry in found)


def test_headers_without_end_take_no_memory() -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 4 << 30
    raw = header.tobuf(tarfile.USTAR_FORMAT) + bytes(8 << 20)
    with pytest.raises(SourceError, match="headers of a member are too long"):
        read(raw)


def test_a_tar_that_ends_between_two_members_is_cut_off() -> None:
    whole = archive((member("a"), b"x" * 512), (member("b"), b"y" * 512))
    *_, last = read(whole[:1024])
    assert isinstance(last, Problem)
    assert last.path == b"a"


SOUND = archive(
    (member("folder", type=tarfile.DIRTYPE), b""),
    (member("folder/file", pax_headers={"mtime": "12.5", "SCHILY.xattr.user.x": "y"}), b"content" * 100),
    (member("n" * 150), b"long name"),
    (member("link", type=tarfile.SYMTYPE, linkname="folder/file"), b""),
    (member("hard", type=tarfile.LNKTYPE, linkname="folder/file"), b""),
    (member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
)


@given(data=st.data(), zipped=st.booleans())
def test_a_changed_archive_gives_items_problems_or_a_source_error(
    data: st.DataObject, *, zipped: bool
) -> None:
    raw = bytearray(gzip.compress(SOUND, mtime=0) if zipped else SOUND)
    for _ in range(data.draw(st.integers(1, 8))):
        where = data.draw(st.integers(0, len(raw) - 1))
        raw[where] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    try:
        found = read(bytes(raw[:cut]))
    except SourceError:
        return
    for entry in found:
        if isinstance(entry, Item):
            assert not entry.path.startswith(b"/")
            assert b".." not in entry.path.split(b"/")
            assert 0 <= entry.uid < 2**32
