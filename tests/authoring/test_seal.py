"""A seal while the tree goes on changing, move by move: what is packaged is the tree of one moment."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from flistfs.authoring.filesystem.values import Attributes, Caller
from flistfs.authoring.request import SealOptions, SealRequest
from flistfs.authoring.session import Session, open_session
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.disk import Disk
from flistfs.authoring.state.records import ROOT_INO
from flistfs.authoring.state.settings import Settings
from flistfs.authoring.summaries import SealSummary
from flistfs.errors import OutputError, StoreUnavailableError
from flistfs.format.rocksdb.generation1 import ROCKSDB
from flistfs.format.zeroos import limits
from flistfs.reading.flist import Flist
from flistfs.reading.verify import verify
from flistfs.tree.chunks import CHUNK_SIZE
from flistfs.tree.names import MAX_PATH
from flistfs.util.progress import Report
from tests.generation1 import open_store
from tests.independent_reader import Node, read_flist

CALLER = Caller(os.geteuid(), os.getegid())
OLD, NEW = b"old content", b"the new one"

Change = Callable[[Session], Awaitable[None]]


async def fill(session: Session) -> None:
    """A tree with some of everything, all of it stored."""
    vfs = session.vfs
    for directory in range(4):
        ino = vfs.mkdir(ROOT_INO, b"directory %d" % directory, 0o755, CALLER).ino
        for number in range(5):
            _, handle = vfs.create(ino, b"file %d" % number, 0o644, os.O_RDWR, CALLER)
            await vfs.write(handle, 0, OLD)
            vfs.release(handle)
        vfs.mkdir(ino, b"inner", 0o755, CALLER)
    vfs.symlink(ROOT_INO, b"link", b"target", CALLER)


def child(session: Session, *names: bytes) -> int:
    ino = ROOT_INO
    for name in names:
        inode = session.vfs.lookup(ino, name)
        assert inode is not None
        ino = inode.ino
    return ino


async def make_directories(session: Session) -> None:
    for number in range(3):
        ino = session.vfs.mkdir(ROOT_INO, b"a new one %d" % number, 0o700, CALLER).ino
        session.vfs.mkdir(ino, b"inside", 0o700, CALLER)
        session.vfs.mkdir(child(session, b"directory 1"), b"and one %d" % number, 0o700, CALLER)


async def remove(session: Session) -> None:
    for directory in (b"directory 0", b"directory 2"):
        ino = child(session, directory)
        for number in range(5):
            file = child(session, directory, b"file %d" % number)
            session.vfs.unlink(ino, b"file %d" % number)
            session.vfs.forget(file)
        session.vfs.rmdir(ino, b"inner")
        session.vfs.rmdir(ROOT_INO, directory)


async def give_new_owners(session: Session) -> None:
    for number in range(5):
        ino = child(session, b"directory 3", b"file %d" % number)
        await session.vfs.setattr(ino, Attributes(uid=1000 + number, gid=7, mode=stat.S_IFREG | 0o600))


async def make_sparse(session: Session) -> None:
    for number in range(5):
        size = CHUNK_SIZE * number + 1000 * number
        await session.vfs.setattr(child(session, b"directory 3", b"file %d" % number), Attributes(size=size))


async def write_anew(session: Session) -> None:
    handle = await session.vfs.open(child(session, b"directory 1", b"file 1"), os.O_RDWR, CALLER)
    await session.vfs.write(handle, 0, NEW)
    session.vfs.release(handle)


async def move(session: Session) -> None:
    session.vfs.rename(ROOT_INO, b"directory 3", child(session, b"directory 1"), b"moved")


CHANGES = [make_directories, remove, give_new_owners, make_sparse, write_anew, move]


def sealed(
    directory: Path, scenario: Callable[[Session, Path], Awaitable[SealSummary]]
) -> tuple[SealSummary, dict[bytes, Node]]:
    """Fill a session, seal it as `scenario` does, and return what that says and the tree of the package."""

    async def run() -> SealSummary:
        state = SessionDirectory(directory / "state")
        lock = state.lock()
        state.create(Settings("", f"dir://{directory}/blocks", format="rocksdb", created=0.0))
        store = open_store(state.settings().store)
        with trio.fail_after(60):
            async with open_session(state, ROCKSDB, store, CALLER) as session:
                await fill(session)
                summary = await scenario(session, directory / "out.flist")
        lock.release()
        return summary

    summary = trio.run(run)
    assert not list(directory.glob("state/view*"))
    assert not list(directory.glob(".flistfs*"))
    return summary, read_flist(directory / "out.flist")


def meddling(session: Session, change: Change, phase: str) -> Callable[..., None]:
    """A progress that makes a change the first time that `phase` is told, which is in a thread."""
    waiting = [phase]

    def progress(report: Report) -> None:
        if report.phase in waiting:
            waiting.remove(report.phase)
            trio.from_thread.run(change, session)

    return progress


async def nothing() -> None:
    """An unmount that finds nothing to do."""


@pytest.mark.parametrize("phase", ["check", "catalog"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_what_changes_until_the_unmount_is_packaged_again(tmp_path: Path, change: Change, phase: str) -> None:
    async def quietly(session: Session, out: Path) -> SealSummary:
        await change(session)
        return await session.seal(SealRequest(out), nothing, lambda *_: None)

    async def meddled(session: Session, out: Path) -> SealSummary:
        return await session.seal(SealRequest(out), nothing, meddling(session, change, phase))

    trees = []
    for scenario in (quietly, meddled):
        with tempfile.TemporaryDirectory(dir=tmp_path) as directory:
            trees.append(without_times(sealed(Path(directory), scenario)[1]))
    assert trees[1] == trees[0]


def without_times(tree: dict[bytes, Node]) -> dict[bytes, Node]:
    return {path: replace(node, mtime=0, ctime=0) for path, node in tree.items()}


@pytest.mark.parametrize("limit", [1000, 1500])  # by what its entries take at least, and by its record
def test_a_directory_with_too_much_in_it_is_refused_before_the_unmount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    async def scenario(session: Session, out: Path) -> SealSummary:
        unmounted = []

        async def unmount() -> None:
            unmounted.append(True)

        with monkeypatch.context() as small:
            small.setattr(limits, "MAX_RECORD", limit)
            with pytest.raises(
                OutputError, match=r"directory directory \d of the tree is too large for an flist.*spread it"
            ):
                await session.seal(SealRequest(out), unmount, lambda *_: None)
        assert not unmounted
        return await session.seal(SealRequest(out), unmount, lambda *_: None)

    sealed(tmp_path, scenario)


def test_a_tree_that_is_too_deep_is_refused_before_the_unmount(tmp_path: Path) -> None:
    async def scenario(session: Session, out: Path) -> SealSummary:
        unmounted = []

        async def unmount() -> None:
            unmounted.append(True)

        ino, depth = ROOT_INO, MAX_PATH // 256
        for _ in range(depth):
            ino = session.vfs.mkdir(ino, b"n" * 255, 0o755, CALLER).ino
        for exclude in ((), ("nothing",)):
            request = SealRequest(out, options=SealOptions(exclude=exclude))
            with pytest.raises(OutputError, match=r"has a path of 65,535 bytes, too long for an flist"):
                await session.seal(request, unmount, lambda *_: None)
        assert not unmounted
        session.vfs.rename(child(session, *[b"n" * 255] * (depth - 1)), b"n" * 255, ROOT_INO, b"up")
        return await session.seal(SealRequest(out), unmount, lambda *_: None)

    sealed(tmp_path, scenario)
    with Flist.open(tmp_path / "out.flist") as flist:
        assert verify(flist, None).faults == []


def test_a_full_disk_refuses_the_seal_and_the_tree_is_untouched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(session: Session, out: Path) -> SealSummary:
        unmounted = []

        async def unmount() -> None:
            unmounted.append(True)

        await session.sync(60, lambda *_: None)
        with monkeypatch.context() as full:
            full.setattr(Disk, "lacks", lambda *_: True)
            with pytest.raises(OutputError, match="full; make room"):
                await session.seal(SealRequest(out), unmount, lambda *_: None)
        await write_anew(session)
        with monkeypatch.context() as full:
            full.setattr(Disk, "lacks", lambda *_: True)
            with pytest.raises(StoreUnavailableError, match="the disk is full"):
                await session.seal(SealRequest(out, timeout=0), unmount, lambda *_: None)
        assert not unmounted
        return await session.seal(SealRequest(out), unmount, lambda *_: None)

    summary, tree = sealed(tmp_path, scenario)
    assert (summary.files, tree[b"directory 1/file 1"].size) == (20, len(NEW))
