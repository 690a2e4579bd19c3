"""The journal stays quick as it grows, and finds many at once as it finds one."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flistfs.authoring import journal as journal_module
from flistfs.authoring.journal import Dirent, Inode, Journal, Stored, View

COUNT = 40_000


def bytes_read() -> int:
    """Bytes that this process has read so far, from the page cache too."""
    (line,) = (line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar:"))
    return int(line.split()[1])


def test_a_look_up_reads_a_few_blocks_however_many_names_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with millions of names and the usual sizes: what tells where a key is exceeds the cache.
    monkeypatch.setattr(journal_module, "_WRITE_BUFFER", 1 << 20)
    monkeypatch.setattr(journal_module, "_BLOCK_CACHE", 64 << 10)
    journal = Journal(tmp_path / "journal")
    try:
        for number in range(2, COUNT):
            with journal.change() as change:
                change.put_inode(Inode(number, stat.S_IFREG, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b""))
                change.put_name(1, Dirent(b"%d" % number, number, number, stat.S_IFREG))
        before = bytes_read()
        for number in range(1000):
            assert journal.child(1, b"%d" % (number * 40 + 2)) is not None
            assert journal.child(1, b"no %d" % number) is None
        assert (bytes_read() - before) / 2000 < 32 << 10
    finally:
        journal.close()


# Runs and gaps of numbers; files have one chunk, several, none, or a hole where the first would be.
NUMBERS = [*range(2, 60), *range(100, 180, 2), *range(300, 900, 25), 2**63]
CHUNKS = {number: ((0,), (0, 1, 2), (), (1,))[number % 4] for number in NUMBERS}


def file(number: int) -> Inode:
    return Inode(number, stat.S_IFREG, 0, 0, 1, 0, number, len(CHUNKS[number]), 0, 0, 0, 0, b"")


def chunk(number: int, index: int) -> Stored:
    return Stored(index + 1, b"%d hash" % number, b"%d key" % index)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    journal = Journal(tmp_path_factory.mktemp("journal"))
    with journal.change() as change:
        for number in NUMBERS:
            change.put_inode(file(number))
            for index in CHUNKS[number]:
                change.put_stored(number, index, chunk(number, index))
    yield journal.snapshot()
    journal.close()


@given(
    st.one_of(
        st.lists(st.integers(0, 1000) | st.sampled_from(NUMBERS), max_size=60),
        st.builds(range, st.integers(0, 400), st.integers(0, 1000), st.integers(1, 40)).map(list),
    )
)
def test_many_inodes_and_chunks_are_found_as_one_by_one(view: View, numbers: list[int]) -> None:
    there = CHUNKS.keys() & set(numbers)
    assert view.inodes_among(numbers) == {number: file(number) for number in there}
    assert view.first_chunks(numbers) == {number: chunk(number, 0) for number in there if 0 in CHUNKS[number]}
