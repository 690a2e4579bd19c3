"""The journal stays quick as it grows."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from flistfs.authoring import journal as journal_module
from flistfs.authoring.journal import Dirent, Inode, Journal

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
