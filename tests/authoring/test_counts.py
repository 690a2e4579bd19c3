"""What a session says that it has stored: each block once, however often it was sent."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from flistfs.authoring.filesystem.chunks import Counts
from flistfs.authoring.filesystem.values import Caller
from flistfs.authoring.request import AddRequest
from flistfs.authoring.session import Session, open_session
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.settings import Settings
from flistfs.authoring.upload.encoder import Batch, Encoder, LocalEncoder, StoredChunk
from flistfs.authoring.upload.known_blocks import KnownBlocks
from flistfs.format.rocksdb.generation1 import ROCKSDB
from flistfs.sources.data import Source
from flistfs.sources.directory import DirectorySource, starting_points
from flistfs.stores import Store
from flistfs.util.progress import quiet
from tests.generation1 import open_store


class Unaware(LocalEncoder):
    """An encoder that never meets what another has just stored, as it asks the store at the same time."""

    def store(self, sources: Sequence[Source], *, check_content: bool = False) -> Batch:
        """Store, and call everything new."""
        batch = super().store(sources, check_content=check_content)
        return batch._replace(
            results=[
                result._replace(is_new=True) if isinstance(result, StoredChunk) else result
                for result in batch.results
            ]
        )


async def add_twice(directory: SessionDirectory, store: Store, files: Path) -> Session:
    def unaware(spool: int) -> list[Encoder]:
        return [Unaware(store, spool, KnownBlocks())]

    async with open_session(directory, ROCKSDB, store, Caller(0, 0), make_encoders=unaware) as session:
        for to in ("one", "two"):
            source = DirectorySource(starting_points([str(files)]))
            await session.add(source, AddRequest((), to=to), quiet, owner=Caller(0, 0))
    return session


def test_a_block_that_was_encoded_twice_is_new_once(tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    content = os.urandom(1000)
    for name in "ab":
        (files / name).write_bytes(content)
    store = open_store(f"dir://{tmp_path}/blocks")
    directory = SessionDirectory(tmp_path / "session")
    lock = directory.lock()
    directory.create(Settings("", store.url, "rocksdb", 0.0))
    session = trio.run(add_twice, directory, store, files)
    lock.release()
    (block,) = (path for path in (tmp_path / "blocks").rglob("*") if path.is_file())
    assert session.parts.content.counts == Counts(1, block.stat().st_size, 3)


async def lose_and_seal_again(
    directory: SessionDirectory, store: Store, stored: Callable[[bytes], Path]
) -> list[Counts]:
    """Write a file, let the store lose its block, and have it sent again."""
    seen = []
    async with open_session(directory, ROCKSDB, store, Caller(0, 0)) as session:
        _, handle = session.vfs.create(1, b"file", 0o644, os.O_WRONLY, Caller(0, 0))
        await session.vfs.write(handle, 0, b"content")
        await session.sync(60, quiet)
        seen.append(session.parts.content.counts)
        with session.parts.journal.freeze(directory.view) as view:
            ((key, name, _),) = view.blocks()
        block = stored(name)
        block.unlink()
        with session.parts.journal.change() as change:  # as a seal does that finds it missing
            change.drop_block(key)
        assert session.parts.content.store_again({name}) == {name}
        await session.sync(60, quiet)
        assert block.exists()
        seen.append(session.parts.content.counts)
        await session.vfs.write(handle, 0, b"another")
        await session.sync(60, quiet)
        seen.append(session.parts.content.counts)
        session.vfs.release(handle)
    return seen


def test_a_block_that_is_sent_again_is_counted_once(tmp_path: Path) -> None:
    store = open_store(f"dir://{tmp_path}/blocks")
    directory = SessionDirectory(tmp_path / "session")
    lock = directory.lock()
    directory.create(Settings("", store.url, "rocksdb", 0.0))

    def stored(name: bytes) -> Path:
        (path,) = (tmp_path / "blocks").rglob(name.decode())
        return path

    first, again, later = trio.run(lose_and_seal_again, directory, store, stored)
    lock.release()
    assert first == again
    assert (first.new_blocks, first.shared_blocks) == (1, 0)
    assert (later.new_blocks, later.shared_blocks) == (2, 0)
