"""Records: round trips, a real flist, and messages made to hurt."""

from __future__ import annotations

import struct
import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flistfs.errors import FormatError
from flistfs.format.zeroos.records import (
    BLOCK_SIZE_UNIT,
    Aci,
    Attributes,
    Directory,
    Entry,
    File,
    Link,
    Right,
    Special,
    SpecialKind,
    SubDirectory,
    decode_aci,
    decode_directory,
    encode_aci,
    encode_directory,
)
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef
from tests.format.conftest import Records

REF = BlockRef(b"a" * 64, b"b" * 64)
EMPTY = Directory(b"", b"", (), b"", 0, b"", 0, 0)

texts = st.binary(max_size=40)
unsigned_32 = st.integers(0, 2**32 - 1)
unsigned_64 = st.integers(0, 2**64 - 1)
signed_64 = st.integers(-(2**63), 2**63 - 1)
refs = st.builds(BlockRef, texts, texts)
attributes = st.one_of(
    st.none(),
    st.builds(SubDirectory, texts),
    st.builds(File, st.lists(refs, max_size=5).map(tuple), st.integers(0, 2**16 - 1)),
    st.builds(Link, texts),
    st.builds(Special, st.sampled_from(SpecialKind), texts),
)
entries = st.builds(Entry, texts, unsigned_64, attributes, texts, unsigned_32, unsigned_32)
directories = st.builds(
    Directory,
    texts,
    texts,
    st.lists(entries, max_size=6).map(tuple),
    texts,
    unsigned_64,
    texts,
    unsigned_32,
    unsigned_32,
)
rights = st.builds(Right, texts, st.integers(0, 2**16 - 1))
acis = st.builds(
    Aci,
    texts,
    texts,
    st.integers(0, 2**16 - 1),
    st.lists(rights, max_size=3).map(tuple),
    unsigned_32,
    signed_64,
    signed_64,
)


def _sample() -> Directory:
    kinds: tuple[Attributes, ...] = (
        File((REF, REF)),
        File(()),
        Link(b"target"),
        SubDirectory(b"c" * 64),
        *(Special(kind, b"1,3") for kind in SpecialKind),
    )
    children = tuple(Entry(b"name\xff%d" % i, i, kind, b"d" * 32, 1, 2) for i, kind in enumerate(kinds))
    return Directory(b"etc", b"x/etc", children, b"e" * 64, 4096, b"d" * 32, 3, 4)


@given(directory=directories)
def test_directories_survive(directory: Directory) -> None:
    assert decode_directory(encode_directory(directory)) == directory


@given(aci=acis)
def test_acis_survive(aci: Aci) -> None:
    assert decode_aci(encode_aci(aci)) == aci


def test_constants_fit_each_other() -> None:
    assert File(()).block_size * BLOCK_SIZE_UNIT == CHUNK_SIZE


def test_text_has_its_closing_nul_on_the_wire_and_data_has_none() -> None:
    raw = encode_directory(_sample())
    assert b"x/etc\0" in raw
    assert b"name\xff0\0" in raw
    assert struct.pack("<I", (64 << 3) | 2) in raw  # a list of 64 bytes: hashes are Data
    assert struct.pack("<I", (65 << 3) | 2) in raw  # a list of 65 bytes: keys of directories are Text


def test_aci_lies_on_the_wire_as_the_reference_writer_put_it(real_records: Records) -> None:
    # The 2017 writer knew no uid and gid: newer ones add two words, XORed with the default of -1.
    old = dict(real_records)[b"405e2ceb2705e84a40e7cf509dd67a34"]
    new = encode_aci(Aci(b"root", b"root", 0o40755))
    assert old[16:24] == new[16:24]  # mode and id
    assert new[24:40] == bytes(16)
    assert old[-16:] == new[-16:] == b"root\0\0\0\0root\0\0\0\0"
    assert decode_aci(old) == decode_aci(new)


@pytest.mark.parametrize(
    "wrong",
    [
        replace(EMPTY, size=-1),
        replace(EMPTY, size=2**64),
        replace(EMPTY, modification_time=-1),
        replace(EMPTY, creation_time=2**32),
        replace(EMPTY, entries=(Entry(b"f", 0, File((), 2**16), b"", 0, 0),)),
    ],
)
def test_number_that_does_not_fit_is_refused(wrong: Directory) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode_directory(wrong)


def test_real_flist_decodes_and_encodes_equal(real_records: Records) -> None:
    kinds: Counter[str] = Counter()
    special: Counter[SpecialKind] = Counter()
    for key, raw in real_records:
        if len(key) == 32:
            aci = decode_aci(raw)
            assert decode_aci(encode_aci(aci)) == aci
            kinds["aci"] += 1
            continue
        directory = decode_directory(raw)
        assert decode_directory(encode_directory(directory)) == directory
        for entry in directory.entries:
            kinds[type(entry.attributes).__name__] += 1
            if isinstance(entry.attributes, Special):
                special[entry.attributes.kind] += 1
    assert kinds == {"File": 8970, "Link": 1811, "SubDirectory": 1083, "Special": 79, "aci": 32}
    assert set(special) == {SpecialKind.BLOCK, SpecialKind.CHAR}


def test_large_directory_decodes_in_bounded_time() -> None:
    entry = Entry(b"", 5, File((REF,)), b"d" * 32, 1, 2)
    many = tuple(replace(entry, name=b"file%d" % i) for i in range(100_000))
    large = replace(EMPTY, entries=(*many, replace(entry, attributes=File((REF,) * 400_000))))
    start = time.process_time()
    raw = encode_directory(large)
    encoded = time.process_time()
    # 8 MiB of words is the library's own limit for what may be visited: this is beyond it.
    assert len(raw) > 64 << 20
    assert decode_directory(raw) == large
    # About 10 µs; what goes through the list anew for each entry takes milliseconds.
    assert (encoded - start) / len(many) < 500e-6


@given(raw=st.binary(max_size=400))
def test_random_bytes_are_a_record_or_a_format_error(raw: bytes) -> None:
    _decode_both(raw)


@settings(max_examples=400)
@given(data=st.data())
def test_damaged_records_are_records_or_format_errors(data: st.DataObject) -> None:
    source = data.draw(st.sampled_from([encode_directory(_sample()), encode_aci(Aci(b"u", b"g", 0o644))]))
    damaged = bytearray(source)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    _decode_both(bytes(damaged))
    _decode_both(bytes(damaged[:cut]))


def test_every_cut_is_refused() -> None:
    raw = encode_directory(_sample())
    for size in range(len(raw)):
        with pytest.raises(FormatError):
            decode_directory(raw[:size])


def test_error_is_one_line() -> None:
    with pytest.raises(FormatError) as caught:
        decode_directory(b"\0\0\0\0\x01\0\0\0" + b"\xff" * 8)
    assert str(caught.value).startswith("malformed directory record: ")
    assert "\n" not in str(caught.value)


def _decode_both(raw: bytes) -> None:
    for decode in (decode_directory, decode_aci):
        try:
            decode(raw)
        except FormatError:
            continue


def _message(*words: int) -> bytes:
    return struct.pack(f"<II{len(words)}Q", 0, len(words), *words)


def _struct_pointer(offset: int, data: int, pointers: int) -> int:
    return offset << 2 | data << 32 | pointers << 48


def _list_pointer(offset: int, kind: int, count: int) -> int:
    return 1 | offset << 2 | kind << 32 | count << 35


# A Dir with two words of data (size, times) and five pointers; contents is the third.
_ROOT = _struct_pointer(0, 2, 5)


def test_list_of_a_billion_structs_without_fields_is_refused_at_once() -> None:
    tag = (2**29 - 1) << 2  # the count stands where a pointer has its offset
    raw = _message(_ROOT, 0, 0, 0, 0, _list_pointer(2, 7, 0), 0, 0, tag)
    start = time.process_time()
    with pytest.raises(FormatError):
        decode_directory(raw)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("kind", range(8))
def test_long_lists_in_short_messages_are_refused_at_once(kind: int) -> None:
    raw = _message(_ROOT, 0, 0, 0, 0, _list_pointer(2, kind, 2**29 - 1), 0, 0)
    start = time.process_time()
    with pytest.raises(FormatError):
        decode_directory(raw)
    assert time.process_time() - start < 5


def test_list_of_bytes_that_passes_for_entries_is_refused() -> None:
    words = [0] * 500
    with pytest.raises(FormatError, match="a list of 4000"):
        decode_directory(_message(_ROOT, 0, 0, 0, 0, _list_pointer(2, 2, 4000), 0, 0, *words))


def test_many_pointers_to_one_text_are_refused() -> None:
    # 2,000 entries whose names are all the same 64 KiB: 128 MiB of names in 120 KiB of message.
    count, words, text_words = 2000, 3 + 4, 8192
    children = []
    size = count * words
    for index in range(count):
        name_at = index * words + 3  # the first pointer, counted from the list's first element
        children += [0, 0, 0, _list_pointer(size - name_at - 1, 2, text_words * 8), 0, 0, 0]
    tag = count << 2 | 3 << 32 | 4 << 48
    body = [*children, *([0] * text_words)]
    raw = _message(_ROOT, 0, 0, 0, 0, _list_pointer(2, 7, size), 0, 0, tag, *body)
    with pytest.raises(FormatError):
        decode_directory(raw)
    one = _message(_ROOT, 0, 0, 0, 0, _list_pointer(2, 7, size), 0, 0, tag, *children[:3], 0, *children[4:7],
                   *([0] * (size - words)), *([0] * text_words))  # fmt: skip
    assert len(decode_directory(one).entries) == count  # the message is sound but for the names


def test_unknown_kinds_are_refused() -> None:
    raw = bytearray(encode_directory(replace(EMPTY, entries=(Entry(b"", 0, Link(b"x"), b"", 0, 0),))))
    decode_directory(bytes(raw))
    tag_at = raw.index(struct.pack("<IHH", 1 << 2, 3, 3))  # one element: three words of data, three pointers
    union_at = tag_at + 8 + 8
    assert raw[union_at] == 2  # a link
    raw[union_at] = 9
    with pytest.raises(FormatError):
        decode_directory(bytes(raw))


def test_unknown_special_file_is_refused() -> None:
    special = Special(SpecialKind.UNKNOWN, b"data")
    raw = encode_directory(replace(EMPTY, entries=(Entry(b"", 0, special, b"", 0, 0),)))
    assert raw.count(b"\x04\0\0\0\0\0\0\0") == 1
    with pytest.raises(FormatError, match="5 is not a kind"):
        decode_directory(raw.replace(b"\x04\0\0\0\0\0\0\0", b"\x05\0\0\0\0\0\0\0"))


def test_text_without_closing_nul_is_refused() -> None:
    raw = encode_aci(Aci(b"root", b"wheel", 0o644))
    with pytest.raises(FormatError, match="trailing NUL"):
        decode_aci(raw.replace(b"wheel\0", b"wheel!"))
