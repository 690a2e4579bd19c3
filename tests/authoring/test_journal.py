"""The journal stays quick as it grows, and finds many at once as it finds one."""

from __future__ import annotations

import errno
import shutil
import stat
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flistfs.authoring.state import journal as journal_module
from flistfs.authoring.state import options
from flistfs.authoring.state.change import Change
from flistfs.authoring.state.disk import Disk
from flistfs.authoring.state.journal import Journal
from flistfs.authoring.state.records import Dirent, Inode, Spooled
from flistfs.authoring.state.view import FrozenView, View
from flistfs.errors import JournalError
from flistfs.tree.chunks import Stored

COUNT = 40_000


def bytes_read() -> int:
    """Bytes that this process has read so far, from the page cache too."""
    (line,) = (line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar:"))
    return int(line.split()[1])


def test_a_look_up_reads_a_few_blocks_however_many_names_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with millions of names and the usual sizes: what tells where a key is exceeds the cache.
    monkeypatch.setattr(journal_module, "WRITE_BUFFER", 1 << 20)
    monkeypatch.setattr(options, "WRITE_BUFFER", 1 << 20)
    monkeypatch.setattr(options, "_BLOCK_CACHE", 64 << 10)
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
    journal_path = tmp_path_factory.mktemp("session")
    journal = Journal(journal_path / "journal")
    with journal.change() as change:
        for number in NUMBERS:
            change.put_inode(file(number))
            for index in CHUNKS[number]:
                change.put_stored(number, index, chunk(number, index))
    frozen = journal.freeze(journal_path / "frozen")
    yield frozen
    frozen.close()
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


# A view that stands still


def fill(change: Change) -> None:
    """One of everything: a directory (2) with files and a directory, chunks, blocks, orphans, settings."""
    for number in (1, 2, 9):
        change.put_inode(Inode(number, stat.S_IFDIR, 0, 0, 2, 0, 1, 0, 0, 0, 0, 1, b""))
    change.put_name(1, Dirent(b"directory", 2, 1, stat.S_IFDIR))
    change.put_name(2, Dirent(b"inner", 9, 2, stat.S_IFDIR))
    for number in range(3, 9):
        change.put_inode(file(number))
        change.put_name(2, Dirent(b"file %d" % number, number, number, stat.S_IFREG))
        change.put_stored(number, 0, chunk(number, 0))
        change.put_spooled(number, 1, number)
        change.put_xattr(number, b"user.name", b"value")
        change.put_block(b"%d key" % number, b"%d hash" % number, number)
    change.put_orphan(8)
    change.put_setting(b"name", b"value")


def overturn(change: Change) -> None:
    """Change, remove and add to all of it."""
    for number in (2, 9):
        change.put_inode(Inode(number, stat.S_IFDIR, 5, 5, 2, 0, 1, 0, 0, 0, 0, 1, b""))
    change.drop_name(1, Dirent(b"directory", 2, 1, stat.S_IFDIR))
    change.put_name(1, Dirent(b"moved", 2, 50, stat.S_IFDIR))
    change.put_name(2, Dirent(b"a new one", 51, 51, stat.S_IFDIR))
    for number in range(3, 9):
        change.drop_inode(number)
        change.drop_name(2, Dirent(b"file %d" % number, number, number, stat.S_IFREG))
        change.drop_stored(number, 0)
        change.put_stored(number, 2, chunk(number, 2))
        change.drop_spooled(number, 1)
        change.put_spooled(number, 3, number + 100)
        change.drop_xattr(number, b"user.name")
        change.put_xattr(number, b"user.other", b"value")
        change.drop_block(b"%d key" % number)
        change.put_block(b"%d new key" % number, b"hash", 1)
        change.put_inode(Inode(number + 100, stat.S_IFREG, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b""))
    change.put_xattr(2, b"user.more", b"value")
    change.rely_on_base()
    change.put_orphan(51)
    change.put_setting(b"name", b"another")


READERS: dict[str, Callable[[View], object]] = {
    "inode": lambda view: [view.inode(number) for number in range(120)],
    "inodes_among": lambda view: view.inodes_among(range(1, 120)),
    "inodes": lambda view: [*view.inodes()],
    "child": lambda view: [view.child(1, b"directory"), view.child(1, b"moved"), view.child(2, b"file 5")],
    "children": lambda view: [*view.children(1), *view.children(2), *view.children(2, after=4)],
    "children_by_name": lambda view: [*view.children_by_name(1), *view.children_by_name(2)],
    "directory_names": lambda view: [*view.directory_names()],
    "stored": lambda view: [view.stored(number, index) for number in range(3, 9) for index in range(3)],
    "first_chunks": lambda view: view.first_chunks(range(3, 9)),
    "stored_chunks": lambda view: [
        *view.stored_chunks(4),
        *view.stored_chunks(4, 1),
        *view.stored_chunks(4, 0, 2),
    ],
    "all_stored_chunks": lambda view: [*view.all_stored_chunks()],
    "spooled": lambda view: [*view.spooled()],
    "has_block": lambda view: view.has_block(Stored(1, b"5 hash", b"5 key")),
    "has_base": lambda view: view.has_base(),
    "has_unnoted_blocks": lambda view: view.has_unnoted_blocks(),
    "blocks": lambda view: [*view.blocks()],
    "orphans": lambda view: [*view.orphans()],
    "xattr": lambda view: [view.xattr(5, b"user.name"), view.xattr(5, b"user.other")],
    "xattrs": lambda view: [*view.xattrs(5)],
    "count_xattrs": lambda view: view.count_xattrs(),
    "setting": lambda view: view.setting(b"name"),
}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal")
    with journal.change() as change:
        fill(change)
    yield journal
    journal.close()


@pytest.fixture
def frozen(journal: Journal, tmp_path: Path) -> Iterator[FrozenView]:
    view = journal.freeze(tmp_path / "frozen")
    yield view
    view.close()


def test_all_that_reads_a_view_is_among_the_readers() -> None:
    methods = {name for name, value in vars(View).items() if callable(value) and not name.startswith("_")}
    assert methods == READERS.keys()


@pytest.mark.parametrize("name", READERS)
def test_what_is_written_later_is_not_in_a_frozen_view(
    journal: Journal, frozen: FrozenView, name: str
) -> None:
    read = READERS[name]
    before = read(journal)
    assert read(frozen) == before
    with journal.change() as change:
        overturn(change)
    assert read(frozen) == before
    assert read(journal) != before


def test_a_walk_that_has_begun_does_not_meet_later_changes(journal: Journal, frozen: FrozenView) -> None:
    walk = frozen.spooled()
    first = next(walk)
    with journal.change() as change:
        overturn(change)
    assert [first, *walk] == [Spooled(number, 1, number) for number in range(3, 9)]


def test_a_frozen_view_leaves_nothing(journal: Journal, tmp_path: Path) -> None:
    (tmp_path / "frozen").mkdir()
    (tmp_path / "frozen/left").write_bytes(b"by a daemon that died")
    for _ in range(2):
        journal.freeze(tmp_path / "frozen").close()
        assert [path.name for path in tmp_path.iterdir()] == ["journal"]


def test_a_full_disk_refuses_a_frozen_view_and_the_journal_goes_on(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as full:
        full.setattr(Disk, "lacks", lambda _, size: size > 256 << 10)
        with pytest.raises(OSError, match="full") as refusal:
            journal.freeze(tmp_path / "frozen")
    assert refusal.value.errno == errno.ENOSPC
    with journal.change() as change:
        overturn(change)
    journal.freeze(tmp_path / "frozen").close()


def test_a_walk_of_a_damaged_table_does_not_end_early(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with journal.change() as change:
        for number in range(COUNT):
            change.put_spooled(number, 0, number)
    journal.freeze(tmp_path / "frozen").close()  # puts all that is in memory into a table
    journal.close()
    table = max((tmp_path / "journal").glob("*.sst"), key=lambda path: path.stat().st_size)
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 0xFF
    table.write_bytes(data)
    journal = Journal(tmp_path / "journal")
    try:
        walk = journal.spooled()
        assert next(walk) == Spooled(0, 0, 0)
        with pytest.raises(JournalError, match="is damaged"):
            deque(walk, maxlen=0)
    finally:
        journal.close()


def test_a_journal_can_be_opened_again_while_an_error_holds_a_walk(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with journal.change() as change:
        fill(change)
    frozen = journal.freeze(tmp_path / "frozen")
    walks = [journal.inodes(), frozen.inodes(), journal.children(2)]  # as the frames of a traceback hold them
    for walk in walks:
        next(walk)
    with pytest.raises(JournalError):
        Journal(tmp_path / "journal")
    frozen.close()
    journal.close()
    Journal(tmp_path / "journal").close()
    shutil.rmtree(tmp_path / "journal")
    assert all(not [*walk] for walk in walks)
