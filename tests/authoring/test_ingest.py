"""What reaches the tree, in which order, whatever comes first: the reader's items or reports of chunks."""

from __future__ import annotations

import stat
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import pytest
import trio

from flistfs.authoring.importing.importer import Imported, Importer, Ready
from flistfs.authoring.importing.ingest import Ingest
from flistfs.authoring.importing.ingest import Piece as Owner
from flistfs.authoring.upload.uploader import Failure, Finished, Job, Outcome
from flistfs.errors import SourceError
from flistfs.format.rocksdb.generation1 import ROCKSDB
from flistfs.sources.data import BytesSource
from flistfs.sources.item import Item, Note, Piece, Problem
from flistfs.tree.chunks import CHUNK_SIZE, Stored
from flistfs.util.nurseries import unwrapped


def directory(path: bytes) -> Item:
    return Item(path, stat.S_IFDIR | 0o755, 0, 0, 0, 0)


def file(path: bytes, *chunks: bytes) -> Item:
    pieces = [Piece(number, BytesSource(chunk)) for number, chunk in enumerate(chunks)]
    size = sum(map(len, chunks))
    return Item(path, stat.S_IFREG | 0o644, 0, 0, 0, 0, size=size, pieces=pieces, count=len(pieces))


def link(path: bytes, target: bytes) -> Item:
    return Item(path, stat.S_IFREG | 0o644, 0, 0, 0, 0, link=target)


MAX_SIZE = ROCKSDB.limits.file_size


class ListSource:
    """A source that has what it is given."""

    def __init__(self, entries: Iterable[Item | Problem | Note]) -> None:
        self._entries = entries

    def items(self) -> Iterator[Item | Problem | Note]:
        yield from self._entries

    def measure(self) -> None: ...

    def extent(self, size: int) -> tuple[int, int]:
        return size, 0

    def named(self, path: bytes) -> str:
        return path.decode()

    def close(self) -> None: ...


class Recorder:
    """An importer that only takes note."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def import_(self, batch: Sequence[Ready]) -> Imported:
        self.taken += [ready.item.path for ready in batch]
        return Imported()


class Uploads:
    """Reports chunks: at once, or in the opposite order of their submission at the end."""

    def __init__(self, *, last_first: bool = False) -> None:
        self._last_first = last_first
        self.ingest: Ingest | None = None
        self._jobs: list[Job[Owner]] = []
        self._token = trio.lowlevel.current_trio_token()
        self.failing: set[bytes] = set()

    def submit(self, job: Job[Owner]) -> None:
        self._jobs.append(job)
        if not self._last_first or len(self._jobs) == 4:
            for each in reversed(self._jobs):
                self._token.run_sync_soon(self._report, each)
            self._jobs = []

    def _report(self, job: Job[Owner]) -> None:
        assert self.ingest is not None
        report: Finished[Owner] = Outcome(job, Stored(job.source.length, b"hash", b"key"), 1, is_new=True)
        if job.owner.arrival.item.path in self.failing:
            report = Failure(job, "it fails")
        self.ingest.report(job.owner, report)


async def ingested(
    entries: Iterable[Item | Problem | Note], uploads: Uploads, *, keep_going: bool = False
) -> tuple[list[bytes], Ingest]:
    async def changed(_: Imported) -> None:
        await trio.lowlevel.checkpoint()

    recorder = Recorder()
    importer = cast(Importer, recorder)
    ingest = uploads.ingest = Ingest(
        ListSource(entries), importer, uploads.submit, changed, max_size=MAX_SIZE, keep_going=keep_going
    )
    with trio.fail_after(20):
        await ingest.run()
    return recorder.taken, ingest


def test_a_directory_comes_before_what_is_in_it() -> None:
    entries: list[Item | Problem] = []
    for number in range(200):
        entries += [directory(b"d%d" % number), file(b"d%d/f" % number, b"x"), file(b"d%d/empty" % number)]

    async def run() -> list[bytes]:
        taken, _ = await ingested(entries, Uploads())
        return taken

    taken = trio.run(run)
    assert len(taken) == 600
    place = {path: where for where, path in enumerate(taken)}
    assert all(place[b"d%d" % n] < place[b"d%d/f" % n] for n in range(200))


def test_everything_comes_in_the_order_of_the_source_whatever_is_stored_first() -> None:
    entries = [
        file(b"first", b"1", b"2"),
        link(b"second", b"first"),
        file(b"first", b"3"),
        file(b"last", b"4"),
    ]

    async def run() -> list[bytes]:
        taken, _ = await ingested(entries, Uploads(last_first=True))
        return taken

    taken = trio.run(run)
    assert taken == [b"first", b"second", b"first", b"last"]


def test_a_file_of_which_a_chunk_fails_is_a_problem() -> None:
    entries: list[Item | Problem] = [
        file(b"bad", b"1", b"2"),
        file(b"good", b"3"),
        Problem(b"unreadable", "why"),
    ]

    async def run(*, keep_going: bool) -> tuple[list[bytes], Ingest]:
        uploads = Uploads()
        uploads.failing = {b"bad"}
        return await ingested(entries, uploads, keep_going=keep_going)

    async def keep_going() -> None:
        taken, ingest = await run(keep_going=True)
        assert taken == [b"good"]
        assert [str(each) for each in ingest.left_out] == ["bad: it fails", "unreadable: why"]
        assert ingest.left_out_count == 2

    async def stop() -> None:
        with pytest.raises(SourceError, match=r"bad: it fails|unreadable: why"), unwrapped():
            await run(keep_going=False)

    trio.run(keep_going)
    trio.run(stop)


def test_memory_does_not_grow_with_a_file() -> None:
    """What was stored of it is not kept until all of it is."""
    count = 256

    def chunks() -> Iterator[Piece]:
        for number in range(count):
            yield Piece(number, BytesSource(bytes([number]) * CHUNK_SIZE))

    item = Item(b"f", stat.S_IFREG, 0, 0, 0, 0, size=count * CHUNK_SIZE, pieces=chunks(), count=count)

    async def run() -> Ingest:
        _, ingest = await ingested([item], Uploads())
        return ingest

    tracemalloc.start()
    try:
        assert trio.run(run).counts.size == count * CHUNK_SIZE
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < count * CHUNK_SIZE / 3


@pytest.mark.parametrize("size", [MAX_SIZE, MAX_SIZE + 1, 1 << 60])
def test_a_size_that_no_file_may_have_is_refused_before_anything_is_read(size: int) -> None:
    def read() -> Iterator[Piece]:
        assert size <= MAX_SIZE
        yield from ()

    item = Item(b"f", stat.S_IFREG, 0, 0, 0, 0, size=size, pieces=read())

    async def run() -> tuple[list[bytes], Ingest]:
        return await ingested([item, file(b"after", b"x")], Uploads(), keep_going=True)

    taken, ingest = trio.run(run)
    if size <= MAX_SIZE:
        assert taken == [b"f", b"after"]
    else:
        assert taken == [b"after"]
        assert f"f: it has {size:,} bytes" in str(ingest.left_out[0])


def test_notes_are_kept() -> None:
    async def run() -> list[str]:
        _, ingest = await ingested([Note("one"), directory(b"d"), Note("two")], Uploads())
        return ingest.notes

    assert trio.run(run) == ["one", "two"]


def test_more_than_the_budget_goes_through() -> None:
    entries = [file(b"f%d" % number, *[bytes(1 << 19)] * 20) for number in range(8)]

    async def run() -> list[bytes]:
        taken, ingest = await ingested(entries, Uploads())
        assert ingest.counts.size == 8 * 20 << 19
        return taken

    assert len(trio.run(run)) == 8


def test_memory_does_not_grow_with_extended_attributes_and_targets() -> None:
    """A batch of items alone would be four times the budget."""
    size = 4 << 20

    def entries() -> Iterator[Item]:
        for number in range(64):
            if number % 2:
                yield replace(directory(b"d%d" % number), xattrs={b"user.a": bytes(size)})
            else:
                yield replace(directory(b"l%d" % number), mode=stat.S_IFLNK | 0o777, target=bytes(size))

    tracemalloc.start()
    try:
        taken, _ = trio.run(lambda: ingested(entries(), Uploads()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(taken) == 64
    assert peak < 32 * size


def test_extended_attributes_of_more_than_the_budget_go_through() -> None:
    """Also those of a file, whose chunks wait for room while they take it."""
    xattrs = {b"user.a": bytes(33 << 20)}
    entries = [replace(directory(b"d"), xattrs=xattrs), replace(file(b"f", b"x", b"y"), xattrs=xattrs)]
    taken, _ = trio.run(lambda: ingested(entries * 2, Uploads()))
    assert taken == [b"d", b"f"] * 2
