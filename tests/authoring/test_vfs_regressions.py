"""Mistakes of `Vfs` and `Content` that were found once, each in its smallest form."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, NoReturn

import pytest
import trio
import trio.testing

from flistfs.authoring.filesystem import content as content_module
from flistfs.authoring.filesystem.values import Attributes, Caller
from flistfs.authoring.filesystem.vfs import Vfs
from flistfs.authoring.session import Session, open_session
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.disk import Disk
from flistfs.authoring.state.records import ROOT_INO
from flistfs.authoring.state.spool import Spool
from flistfs.format.rocksdb.generation1 import ROCKSDB
from flistfs.tree.chunks import CHUNK_SIZE
from tests.authoring.model import Create, TroubledStore, Truncate, Write, play

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

CALLER = Caller(os.geteuid(), os.getegid())


class SlowStore(TroubledStore):
    """A store that gives a block back only after `go` is set."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked, self.go = threading.Event(), threading.Event()

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002  the protocol's
        self.asked.set()
        self.go.wait()
        return super().get(hash, deadline)


def in_session(
    path: Path, store: TroubledStore, scenario: Callable[[Session, TroubledStore], Awaitable[None]]
) -> None:
    async def run() -> None:
        (path / "state").mkdir()
        with trio.fail_after(20):
            async with open_session(SessionDirectory(path / "state"), ROCKSDB, store, CALLER) as session:
                try:
                    await scenario(session, store)
                finally:
                    store.let_go()
                    if isinstance(store, SlowStore):
                        store.go.set()

    trio.run(run)


async def new_file(vfs: Vfs, name: bytes, data: bytes) -> int:
    _, handle = vfs.create(ROOT_INO, name, 0o644, os.O_RDWR, CALLER)
    await vfs.write(handle, 0, data)
    return handle


def test_a_write_of_nothing_behind_the_end_changes_nothing(tmp_path: Path) -> None:
    play(tmp_path, [Create(0, b"a"), Write(0, offset=1, length=0)])
    play(tmp_path, [Create(0, b"a"), Write(0, 0, 5), Truncate(0, 2), Write(0, CHUNK_SIZE + 1, 0)])


def test_a_read_that_waits_for_the_store_gets_nothing_of_other_files(tmp_path: Path) -> None:
    async def scenario(session: Session, store: TroubledStore) -> None:
        assert isinstance(store, SlowStore)
        vfs, content = session.vfs, session.parts.content
        handle = await new_file(vfs, b"a", b"a" * 2 * CHUNK_SIZE)
        await content.drain()
        content.forget_copies()
        result = []

        async def read() -> None:
            result.append(await vfs.read(handle, 0, 2 * CHUNK_SIZE))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.to_thread.run_sync(store.asked.wait)
            secret = await new_file(vfs, b"secret", b"s" * CHUNK_SIZE)
            vfs.release(secret)
            vfs.unlink(ROOT_INO, b"secret")
            vfs.forget(secret >> 1)
            await vfs.setattr(handle >> 1, Attributes(size=0))
            await vfs.write(handle, 0, b"new")
            store.go.set()
        # What was there before and what is there now are both right answers.
        assert set(result[0]) <= set(b"anew\0")
        assert result[0] == b"new" or set(result[0]) == {ord("a")}

    in_session(tmp_path, SlowStore(tmp_path / "blocks"), scenario)


def test_fsync_does_not_make_a_drain_return_early(tmp_path: Path) -> None:
    async def scenario(session: Session, store: TroubledStore) -> None:
        vfs, content = session.vfs, session.parts.content
        handle = await new_file(vfs, b"a", b"a" * 1000)
        other = await new_file(vfs, b"b", b"b" * 1000)
        store.hold()
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                await content.drain()
                # Nothing was written since: what the drain waited for must be in the store.
                assert handle >> 1 not in {spooled.ino for spooled in session.parts.journal.spooled()}

            nursery.start_soon(drain)
            await trio.testing.wait_all_tasks_blocked()
            await vfs.fsync(handle)
            vfs.release(other)
            vfs.unlink(ROOT_INO, b"b")
            vfs.forget(other >> 1)
            await trio.testing.wait_all_tasks_blocked()
            store.let_go()

    in_session(tmp_path, TroubledStore(tmp_path / "blocks"), scenario)


def test_a_name_that_is_replaced_is_listed_once(tmp_path: Path) -> None:
    """As `find . -exec sed -i …` meets it: each file is replaced while the directory is being listed."""

    async def scenario(session: Session, _: TroubledStore) -> None:
        vfs = session.vfs
        names = [b"%d" % n for n in range(5)]
        for name in names:
            vfs.release(await new_file(vfs, name, b""))
        seen: list[bytes] = []
        position = 0
        while len(seen) < 20 and (entry := next(vfs.readdir(ROOT_INO, position), None)):
            seen.append(entry.name)
            position = entry.cookie
            vfs.release(await new_file(vfs, b".new", b"new"))
            vfs.rename(ROOT_INO, b".new", ROOT_INO, entry.name)
        assert [name for name in seen if name != b".new"] == names

    in_session(tmp_path, TroubledStore(tmp_path / "blocks"), scenario)


def test_renaming_what_is_listed_comes_to_an_end(tmp_path: Path) -> None:
    """As `for entry in os.scandir(): os.rename(…)` does: each file is met once, not again by its new name."""

    async def scenario(session: Session, _: TroubledStore) -> None:
        vfs = session.vfs
        for n in range(5):
            vfs.release(await new_file(vfs, b"%d" % n, b""))
        position = steps = 0
        for steps in itertools.count():
            entry = next(vfs.readdir(ROOT_INO, position), None)
            if entry is None or steps > 20:
                break
            position = entry.cookie
            vfs.rename(ROOT_INO, entry.name, ROOT_INO, entry.name + b"~")
        assert steps == 5

    in_session(tmp_path, TroubledStore(tmp_path / "blocks"), scenario)


def test_a_drain_waits_for_what_was_there_though_it_was_added_to(tmp_path: Path) -> None:
    async def scenario(session: Session, store: TroubledStore) -> None:
        vfs, content = session.vfs, session.parts.content
        handle = await new_file(vfs, b"log", b"before")
        other = await new_file(vfs, b"other", b"x" * 1000)
        store.hold()
        done = False
        async with trio.open_nursery() as nursery:

            async def drain() -> None:
                nonlocal done
                await content.drain()
                done = True

            nursery.start_soon(drain)
            await trio.testing.wait_all_tasks_blocked()
            await vfs.write(handle, 6, b" and after")
            vfs.release(other)
            vfs.unlink(ROOT_INO, b"other")
            vfs.forget(other >> 1)  # wakes whoever waits
            await trio.testing.wait_all_tasks_blocked()
            assert not done
            store.let_go()

    in_session(tmp_path, TroubledStore(tmp_path / "blocks"), scenario)


def test_a_file_ends_where_its_record_would_be_too_large(tmp_path: Path) -> None:
    async def scenario(session: Session, _: TroubledStore) -> None:
        handle = await new_file(session.vfs, b"large", b"x")
        await session.vfs.setattr(handle >> 1, Attributes(size=ROCKSDB.limits.file_size))
        for size in (ROCKSDB.limits.file_size + 1, 1 << 50):
            with pytest.raises(OSError, match="File too large"):
                await session.vfs.setattr(handle >> 1, Attributes(size=size))
        with pytest.raises(OSError, match="File too large"):
            await session.vfs.write(handle, ROCKSDB.limits.file_size, b"x")

    in_session(tmp_path, TroubledStore(tmp_path / "blocks"), scenario)


# A disk that is nearly full

READERS = 24
BORDER = CHUNK_SIZE - 1000


class CountingStore(TroubledStore):
    """A store that counts how often blocks are asked for."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.given: Counter[bytes] = Counter()

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002 - the protocol's word
        self.given[hash] += 1
        return super().get(hash, deadline)


async def two_chunks_away(session: Session) -> list[int]:
    """Make files of two chunks each, of which the store alone has the bytes; returns their handles."""
    handles = [await new_file(session.vfs, b"%d" % n, bytes([n]) * 2 * CHUNK_SIZE) for n in range(READERS)]
    await session.parts.content.drain()
    session.parts.content.forget_copies()
    return handles


def refuse(*_: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("is_known", [True, False], ids=["low", "full unawares"])
def test_reading_needs_no_room_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_known: bool
) -> None:
    async def scenario(session: Session, store: TroubledStore) -> None:
        assert isinstance(store, CountingStore)
        vfs = session.vfs
        handles = await two_chunks_away(session)
        monkeypatch.setattr(Disk, "is_low", lambda _: is_known)
        monkeypatch.setattr(Spool, "write", refuse)

        async def read(n: int) -> None:
            assert await vfs.read(handles[n], BORDER, 2000) == bytes([n]) * 2000

        async with trio.open_nursery() as nursery:
            for n in range(READERS):
                nursery.start_soon(read, n)
        store.given.clear()
        for start in range(0, CHUNK_SIZE, CHUNK_SIZE // 4):
            assert await vfs.read(handles[0], start, CHUNK_SIZE // 4) == bytes(CHUNK_SIZE // 4)
        assert store.given.total() <= 1  # a chunk that is read piece by piece
        assert not session.parts.content.status().cached_chunks
        assert len(session.parts.content._in_memory) <= 16

    in_session(tmp_path, CountingStore(tmp_path / "blocks"), scenario)


def test_writers_that_need_several_chunks_each_do_not_evict_each_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(session: Session, _: TroubledStore) -> None:
        vfs = session.vfs
        handles = await two_chunks_away(session)
        monkeypatch.setattr(content_module, "_CACHED_CHUNKS", 1)

        async def write(n: int) -> None:
            await vfs.write(handles[n], BORDER, b"x" * 2000)
            assert await vfs.read(handles[n], BORDER - 1, 2002) == bytes([n]) + b"x" * 2000 + bytes([n])

        async with trio.open_nursery() as nursery:
            for n in range(READERS):
                nursery.start_soon(write, n)
        await session.parts.content.drain()
        assert session.parts.content.status().cached_chunks == 1
        assert not session.parts.content._pins

    in_session(tmp_path, TroubledStore(tmp_path / "blocks"), scenario)


def test_on_a_full_disk_what_needs_no_room_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(session: Session, store: TroubledStore) -> None:
        vfs = session.vfs
        handles = await two_chunks_away(session)
        spooled = await new_file(vfs, b"spooled", b"x")
        store.down = True
        monkeypatch.setattr(Disk, "is_low", lambda _: True)
        monkeypatch.setattr(Spool, "write", refuse)
        monkeypatch.setattr(session.parts.content, "_is_stuck", lambda: True)
        with pytest.raises(OSError, match="No space") as refused:  # a part of a chunk needs a slot
            await vfs.setattr(handles[0] >> 1, Attributes(size=1))
        assert refused.value.errno == errno.ENOSPC
        assert (await vfs.setattr(handles[0] >> 1, Attributes(size=CHUNK_SIZE))).size == CHUNK_SIZE
        assert (await vfs.setattr(handles[0] >> 1, Attributes(size=0))).chunks == 0
        assert (await vfs.setattr(spooled >> 1, Attributes(size=0))).chunks == 0
        assert not session.parts.content._spool._warm  # its space was given back
        vfs.unlink(ROOT_INO, b"1")

    in_session(tmp_path, TroubledStore(tmp_path / "blocks"), scenario)
