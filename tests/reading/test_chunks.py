"""The cache of chunks: bounded, each fetched once however many want it, and never wrong."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest
import trio
import trio.testing

from flistfs.errors import BlockCorruptError, BlockMissingError
from flistfs.reading.chunks import Chunks
from flistfs.reading.content import Piece
from flistfs.stores import Store
from flistfs.stores.directory import DirectoryStore
from tests.generation1 import CODEC, encode_block

CONTENTS = [b"%d" % number * 100 for number in range(10)]


class CountingStore(DirectoryStore):
    """A store that counts what is asked for, and answers when it may."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, CODEC)
        self.asked: Counter[bytes] = Counter()
        self.may_answer = threading.Event()
        self.may_answer.set()

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002  the protocol's
        self.asked[hash] += 1
        assert self.may_answer.wait(10)
        return super().get(hash, deadline)


@pytest.fixture
def counting(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path / "blocks")


def stored(store: Store, content: bytes) -> Piece:
    block = encode_block(content)
    store.put([block])
    return Piece(0, len(content), block.ref)


def test_no_more_is_kept_than_allowed(counting: CountingStore) -> None:
    pieces = [stored(counting, content) for content in CONTENTS]

    async def main() -> None:
        chunks = Chunks(counting, limit=350)
        for piece, content in zip(pieces, CONTENTS, strict=True):
            assert await chunks.get(b"f", piece) == content
            assert chunks.size <= 350
        await chunks.get(b"f", pieces[-3])  # is the one that was used last now
        assert counting.asked.total() == 10
        await chunks.get(b"f", pieces[0])
        await chunks.get(b"f", pieces[-3])
        assert counting.asked.total() == 11
        await chunks.get(b"f", pieces[-2])
        assert counting.asked.total() == 12

    trio.run(main)


def test_who_wants_what_is_on_its_way_waits_for_it(counting: CountingStore) -> None:
    piece = stored(counting, b"content")
    found = []

    async def want(chunks: Chunks) -> None:
        found.append(await chunks.get(b"f", piece))

    async def main() -> None:
        counting.may_answer.clear()
        chunks = Chunks(counting)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chunks.prefetch, b"f", [piece, piece])
            for _ in range(5):
                nursery.start_soon(want, chunks)
            await trio.testing.wait_all_tasks_blocked(0.05)
            counting.may_answer.set()
        assert found == [b"content"] * 5
        assert counting.asked.total() == 1

    trio.run(main)


def test_an_error_is_told_to_all_and_kept_for_none(counting: CountingStore) -> None:
    block = encode_block(b"late")
    piece = Piece(0, 4, block.ref)

    async def main() -> None:
        chunks = Chunks(counting)
        await chunks.prefetch(b"f", [piece])  # says nothing
        for _ in range(2):
            with pytest.raises(BlockMissingError, match="f cannot be read"):
                await chunks.get(b"f", piece)
        counting.put([block])
        assert await chunks.get(b"f", piece) == b"late"

    trio.run(main)


def test_a_chunk_of_another_length_is_refused_from_the_cache_too(counting: CountingStore) -> None:
    piece = stored(counting, b"content")

    async def main() -> None:
        chunks = Chunks(counting)
        await chunks.get(b"f", piece)
        for length in (6, 8):
            with pytest.raises(BlockCorruptError, match="g cannot be read"):
                await chunks.get(b"g", Piece(0, length, piece.ref))

    trio.run(main)
