"""No operation costs more with what the session had once: RocksDB passes none of it."""

from __future__ import annotations

import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio
from rocksdict import Options

from flistfs.authoring.filesystem.values import Attributes, Caller
from flistfs.authoring.filesystem.vfs import Vfs
from flistfs.authoring.session import Session, open_session
from flistfs.authoring.state import journal as journal_module
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.options import journal_options
from flistfs.authoring.state.records import ROOT_INO
from flistfs.format.rocksdb.generation1 import ROCKSDB
from flistfs.tree.chunks import CHUNK_SIZE
from tests.authoring.model import TroubledStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

CALLER = Caller(os.geteuid(), os.getegid())

# Files that the session had once, and how many keys an operation may pass that are no more: far fewer.
ONCE = 600
FEW = 40


class Steps:
    """Counts the keys that RocksDB's iterators pass without giving them: removed ones, and old versions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._options: list[Options] = []
        make = journal_options

        def make_counting() -> Options:
            options = make()
            options.enable_statistics()
            self._options.append(options)
            return options

        monkeypatch.setattr(journal_module, "journal_options", make_counting)

    def count(self) -> int:
        found = re.search(
            r"rocksdb\.number\.iter\.skip COUNT : (\d+)", self._options[0].get_statistics() or ""
        )
        assert found
        return int(found[1])

    @contextmanager
    def few(self, what: str) -> Iterator[None]:
        """See that what is done meanwhile passes few keys."""
        before = self.count()
        yield
        assert self.count() - before < FEW, what


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def in_session(path: Path, scenario: Callable[[Session], Awaitable[None]]) -> None:
    async def run() -> None:
        (path / "state").mkdir(exist_ok=True)
        store = TroubledStore(path / "blocks")
        with trio.fail_after(60):
            async with open_session(SessionDirectory(path / "state"), ROCKSDB, store, CALLER) as session:
                await scenario(session)

    trio.run(run)


async def write(vfs: Vfs, parent: int, name: bytes, data: bytes = b"data") -> int:
    """Make a file and close it."""
    inode, handle = vfs.create(parent, name, 0o644, os.O_RDWR, CALLER)
    await vfs.write(handle, 0, data)
    vfs.release(handle)
    return inode.ino


def remove(vfs: Vfs, parent: int, name: bytes) -> None:
    inode = vfs.lookup(parent, name)
    assert inode is not None
    vfs.unlink(parent, name)
    vfs.forget(inode.ino)


async def have_had(session: Session, parent: int) -> None:
    """Make files, have them stored, and remove them."""
    for number in range(ONCE):
        await write(session.vfs, parent, b"once %d" % number)
    await session.parts.content.drain()
    for number in range(ONCE):
        remove(session.vfs, parent, b"once %d" % number)


def test_operations_pass_nothing_of_what_other_files_had(tmp_path: Path, steps: Steps) -> None:
    async def scenario(session: Session) -> None:
        vfs, content = session.vfs, session.parts.content
        directory = vfs.mkdir(ROOT_INO, b"directory", 0o755, CALLER).ino
        inner = vfs.mkdir(directory, b"inner", 0o755, CALLER).ino
        empty = vfs.mkdir(directory, b"empty", 0o755, CALLER).ino
        files = [await write(vfs, directory, b"%d" % number) for number in range(6)]
        large = await write(vfs, directory, b"large", bytes(3 * CHUNK_SIZE))
        await content.drain()
        other = vfs.mkdir(ROOT_INO, b"other", 0o755, CALLER).ino
        await have_had(session, other)
        spooled = await write(vfs, directory, b"spooled")

        with steps.few("O_TRUNC"):
            handle = await vfs.open(files[0], os.O_RDWR | os.O_TRUNC, CALLER)
        with steps.few("write"):
            await vfs.write(handle, 0, b"new")
        with steps.few("fsync"):
            await vfs.fsync(handle)
        with steps.few("fsync of what is stored"):
            await vfs.fsync(files[1] << 1)
        with steps.few("truncate"):
            await vfs.setattr(files[1], Attributes(size=2))
            await vfs.setattr(files[1], Attributes(size=7))
            await vfs.setattr(large, Attributes(size=2 * CHUNK_SIZE))
        with steps.few("unlink"):
            vfs.unlink(directory, b"2")
            vfs.forget(files[2])
            vfs.unlink(directory, b"spooled")
            vfs.forget(spooled)
            vfs.unlink(directory, b"large")
            vfs.forget(large)
        with steps.few("rename over"):
            vfs.rename(directory, b"3", directory, b"4")
            vfs.forget(files[4])
        with steps.few("readdir"):
            assert len(list(vfs.readdir(directory, 0))) == 6
            assert not list(vfs.readdir(empty, 0))
        with steps.few("rmdir"):
            vfs.rmdir(directory, b"inner")
            vfs.forget(inner)
        with steps.few("inodes and chunks of a directory"):
            numbers = range(directory, files[-1] + 1)
            assert session.parts.journal.inodes_among(numbers)
            assert session.parts.journal.first_chunks(numbers)
        vfs.release(handle)

    in_session(tmp_path, scenario)


def test_a_listing_passes_what_was_removed_from_the_directory_once(tmp_path: Path, steps: Steps) -> None:
    async def scenario(session: Session) -> None:
        vfs = session.vfs
        directory = vfs.mkdir(ROOT_INO, b"directory", 0o755, CALLER).ino
        names: list[bytes] = []

        def listed() -> list[bytes]:
            return [entry.name for entry in vfs.readdir(directory, 0)]

        for round in range(3):  # noqa: A001  what was removed lies before, between and behind what is there
            await have_had(session, directory)
            assert listed() == names
            with steps.few(f"an unchanged directory with {names}"):
                assert listed() == names
            names.append(b"file %d" % round)
            await write(vfs, directory, names[-1])
            with steps.few(f"a directory to which the last of {names} was added"):
                assert listed() == names
        remove(vfs, directory, names.pop(1))
        assert listed() == names
        with steps.few("a directory from which a name was removed"):
            assert listed() == names

    in_session(tmp_path, scenario)


def test_a_truncated_file_passes_chunks_that_it_had_once(tmp_path: Path, steps: Steps) -> None:
    async def scenario(session: Session) -> None:
        vfs = session.vfs
        inode, handle = vfs.create(ROOT_INO, b"sparse", 0o644, os.O_RDWR, CALLER)
        for index in range(2 * FEW):
            await vfs.write(handle, index * CHUNK_SIZE, b"x")
        await session.parts.content.drain()
        await vfs.setattr(inode.ino, Attributes(size=0))
        await vfs.write(handle, 0, b"x")
        await session.parts.content.drain()
        with steps.few("truncate to nothing"):
            await vfs.setattr(inode.ino, Attributes(size=0))
        vfs.release(handle)

    in_session(tmp_path, scenario)


def test_extended_attributes_of_an_earlier_mount_go_with_their_file(tmp_path: Path) -> None:
    async def scenario(session: Session) -> None:
        ino = await write(session.vfs, ROOT_INO, b"file")
        with session.parts.journal.change() as change:
            change.put_xattr(ino, b"user.name", b"value")

    async def resumed(session: Session) -> None:
        remove(session.vfs, ROOT_INO, b"file")
        assert not session.parts.journal.count_xattrs()

    in_session(tmp_path, scenario)
    in_session(tmp_path, resumed)
