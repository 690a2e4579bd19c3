"""What a directory may have in it: the sizes that records really get, and the largest file."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flistfs.errors import OutputError
from flistfs.format.zeroos.dialect import GENERATION_1
from flistfs.format.zeroos.limits import MAX_FILE_SIZE, MAX_RECORD, READERS_LIMIT, check_record, entries_size
from flistfs.format.zeroos.records import (
    Directory,
    Entry,
    File,
    Link,
    Special,
    SpecialKind,
    SubDirectory,
    encode_directory,
)
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef

EMPTY = Directory(b"name", b"path/name", (), b"p" * 64, 4096, b"a" * 32, 0, 0)
BLOCK = BlockRef(b"0" * 64, b"1" * 64)

texts = st.binary(min_size=1, max_size=255).filter(lambda text: b"\0" not in text)
attributes = st.one_of(
    st.integers(0, 300).map(lambda count: File((BLOCK,) * count)),
    texts.map(Link),
    st.just(SubDirectory(b"k" * 64)),
    st.sampled_from([Special(SpecialKind.FIFO), Special(SpecialKind.CHAR, b"1,23")]),
)
entries = st.builds(
    Entry, texts, st.just(1), attributes, st.sampled_from([b"", b"a" * 32]), st.just(0), st.just(0)
)


@given(st.lists(entries, max_size=40))
def test_what_entries_take_in_a_record(found: list[Entry]) -> None:
    grown = len(encode_directory(replace(EMPTY, entries=found))) - len(encode_directory(EMPTY))
    size = entries_size(found, GENERATION_1.block_bytes)
    # Besides the list's own word there are the pointers from one segment of the message to the next.
    assert size <= grown <= size + 16 + size // 8


def test_the_largest_file_fits_into_a_record_that_readers_take() -> None:
    blocks = (BLOCK,) * (MAX_FILE_SIZE // CHUNK_SIZE)
    entry = Entry(b"n" * 255, MAX_FILE_SIZE, File(blocks), b"a" * 32, 0, 0)
    size = len(encode_directory(replace(EMPTY, entries=[entry])))
    assert size <= MAX_RECORD < READERS_LIMIT
    check_record("name", size, MAX_FILE_SIZE)
    with pytest.raises(OutputError, match="the directory usr/lib of the tree is too large"):
        check_record("usr/lib", MAX_RECORD + 1, MAX_FILE_SIZE)
