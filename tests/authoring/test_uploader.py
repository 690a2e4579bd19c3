"""Who takes what from the queue of settled chunks, and when."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from flistfs.authoring.upload.encoder import Batch, StoredChunk
from flistfs.authoring.upload.uploader import Finished, Job, Uploader
from flistfs.sources.data import Source, SpoolSource
from flistfs.tree.chunks import CHUNK_SIZE

# Seconds after which something that is to happen does not.
PATIENCE = 20


class Instant:
    """An encoder that needs no time, and tells what it was given."""

    def __init__(self, batches: queue.Queue[int]) -> None:
        self._batches = batches

    def store(self, sources: Sequence[Source], *, check_content: bool = False) -> Batch:  # noqa: ARG002
        self._batches.put(len(sources))
        return Batch([StoredChunk(b"hash", b"key", 1, is_new=True) for _ in sources], 0.0)

    def close(self) -> None:
        pass


@contextmanager
def uploading(
    workers: int,
) -> Iterator[tuple[Uploader[int], Callable[[int], None], queue.Queue[int], queue.Queue[int]]]:
    """Make an uploader; gives it, what submits a chunk of some length, the batches, and the reports."""
    batches: queue.Queue[int] = queue.Queue()
    reported: queue.Queue[int] = queue.Queue()
    count = 0

    def report(reports: list[Finished[int]]) -> None:
        for each in reports:
            reported.put(each.job.owner)

    def submit(length: int) -> None:
        nonlocal count
        uploader.submit(Job(count, 0, SpoolSource(0, length)))
        count += 1

    uploader: Uploader[int] = Uploader([Instant(batches) for _ in range(workers)], lambda: None, report)
    try:
        yield uploader, submit, batches, reported
    finally:
        uploader.close()


def test_a_worker_whose_batch_another_took_stays_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_for_more, taken = Uploader._linger, threading.Event()

    def be_robbed(uploader: Uploader[int], number: int) -> None:
        wait_for_more(uploader, number)
        if not taken.is_set():
            uploader._queue.clear()
            taken.set()

    monkeypatch.setattr(Uploader, "_linger", be_robbed)
    with uploading(1) as (_, submit, _, reported):
        submit(1)
        assert taken.wait(PATIENCE)
        submit(1)
        assert reported.get(timeout=PATIENCE) == 1


def test_large_and_small_chunks_find_a_worker() -> None:
    with uploading(3) as (_, submit, _, reported):
        for _ in range(50):
            for length in (1, CHUNK_SIZE, CHUNK_SIZE, CHUNK_SIZE, CHUNK_SIZE):
                submit(length)
            for _ in range(5):
                reported.get(timeout=PATIENCE)
            submit(1)  # only the first worker takes so little
            reported.get(timeout=PATIENCE)


def test_a_full_batch_waits_for_nothing() -> None:
    with uploading(1) as (_, submit, batches, reported):
        for _ in range(1000):
            submit(1000)
        for _ in range(1000):
            reported.get(timeout=PATIENCE)
        assert max(batches.queue) == 64


def test_what_is_wrong_with_a_server_is_what_the_last_batch_met() -> None:
    troubles: list[str | None] = ["it fails", None]
    met = iter(troubles)
    stored: queue.Queue[None] = queue.Queue()

    class Troubled(Instant):
        def store(self, sources: Sequence[Source], *, check_content: bool = False) -> Batch:
            return super().store(sources, check_content=check_content)._replace(store_trouble=next(met))

    uploader: Uploader[int] = Uploader([Troubled(queue.Queue())], lambda: None, lambda _: stored.put(None))
    try:
        for trouble in troubles:
            uploader.submit(Job(0, 0, SpoolSource(0, 1)))
            stored.get(timeout=PATIENCE)
            assert uploader.status().store_trouble == trouble
    finally:
        uploader.close()


def test_a_batch_is_compared_if_one_of_its_chunks_is_to_be() -> None:
    wishes: queue.Queue[bool] = queue.Queue()

    class Watched(Instant):
        def store(self, sources: Sequence[Source], *, check_content: bool = False) -> Batch:
            wishes.put(check_content)
            return super().store(sources)

    uploader: Uploader[int] = Uploader([Watched(queue.Queue())], lambda: None, lambda _: None)
    try:
        for wish in (False, True):
            uploader.submit(Job(0, 0, SpoolSource(0, 1), check_content=wish))
            assert wishes.get(timeout=PATIENCE) == wish
    finally:
        uploader.close()
