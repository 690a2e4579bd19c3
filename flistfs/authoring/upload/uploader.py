"""Store settled chunks as blocks, in batches, in worker threads.

What runs concurrently, and why it is safe:

- The event loop's thread calls `submit`, `status` and `close`; the workers take jobs from the queue. One
  lock guards the queue and the counters, and is never held while blocking.
- Each worker has its own encoder and only waits for it: the work is done in another process (see
  `encoder_process`), which reads the chunks from the spool file itself.
- An encoder reads a chunk's slot while the event loop may be writing to it or may have given it to another
  chunk. The data may be torn, but it is read only once, so block, hash and key are consistent in any case.
  `report` gets the job back, and the event loop's thread decides by the job's version whether the chunk is
  unchanged (see `content`); otherwise the block is a harmless extra one.
- A batch that could not be stored stays with its worker and is sent again, whole, until it is stored or
  the uploader is closed: every block is named by its content, so sending one twice changes nothing. Chunks
  that were not reported are still spooled in the journal, and are submitted again when the session resumes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flistfs.authoring.upload.encoder import Encoder
from flistfs.errors import StoreError, StoreUnavailableError
from flistfs.sources.data import Source, Unreadable
from flistfs.tree.chunks import Stored

log = logging.getLogger(__name__)

# A batch is full at this many chunks or bytes, whichever comes first: 16 to 64 small blocks in a pipeline
# are 2 to 5 times faster than one by one, large ones gain little, and an encoder holds at most 4 MiB plain
# and 4 MiB encoded.
_BATCH_CHUNKS = 64
_BATCH_BYTES = 4 << 20

# The most seconds that a batch waits to become full, and that it waits while nothing is added to it. Each
# batch costs the event loop a round trip to the worker and a change of the journal: for 5,000 small files, 80
# batches instead of 410 save a tenth of its time.
_LINGER = 0.1
_LULL = 0.02

# Seconds that a batch in flight may take when the uploader is closed; an aborted one is sent again later.
_CLOSE_TIMEOUT = 2.0

# Seconds between tries: growing while the store does not answer, long from the start if it refuses.
_FIRST_PAUSE = 0.5
_REFUSED_PAUSE = 10.0
_LONGEST_PAUSE = 30.0


T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Job(Generic[T_co]):
    """A settled chunk.

    `owner` and `version` are the submitter's, and are returned with the outcome. A `durable` chunk is
    reported only when its block survives a power cut. With `check_content` a block that is already stored is
    fetched, and replaced if it is corrupt.
    """

    owner: T_co
    version: int
    source: Source
    durable: bool = False
    check_content: bool = False


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T_co]):
    """A chunk that is now in the store, as a block of `size` bytes, which was newly stored or shared.

    `replaced` is whether it replaced a corrupt block.
    """

    job: Job[T_co]
    stored: Stored
    size: int
    is_new: bool
    replaced: bool = False


@dataclass(frozen=True, slots=True)
class Failure(Generic[T_co]):
    """A chunk of a file outside the session that could not be read, and why."""

    job: Job[T_co]
    reason: str


Finished = Outcome[T] | Failure[T]


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """The state of the uploads.

    `trouble_since` is in seconds since 1970; `latency` is how long the last batch took to be stored, and
    `store_trouble` what was wrong then with a server that others stood in for.
    """

    queued: int
    queued_bytes: int
    trouble: str | None
    trouble_since: float | None
    latency: float | None
    store_trouble: str | None


class Uploader(Generic[T]):
    """Worker threads that store chunks and report what they stored."""

    def __init__(
        self,
        encoders: Sequence[Encoder],
        sync_store: Callable[[], None],
        report: Callable[[list[Finished[T]]], None],
    ) -> None:
        """Start a worker for each encoder.

        Args:
            encoders: Encoders that store chunks. Each is used only when those before it are busy.
            sync_store: Makes all that was stored survive a power cut (blocks).
            report: Called from a worker's thread with each batch of stored chunks.
        """
        self._encoders = encoders
        self._sync_store = sync_store
        self._report = report
        self._lock = threading.Lock()
        self._jobs = [threading.Condition(self._lock) for _ in encoders]  # each worker's own
        self._again = threading.Condition(self._lock)
        self._queue: deque[Job[T]] = deque()
        self._pending = 0
        self._pending_bytes = self._waiting_bytes = 0
        self._latency: float | None = None
        self._store_trouble: str | None = None
        self._trouble: str | None = None
        self._trouble_since: float | None = None
        self._closed = False
        self._sync_lock = threading.Lock()
        self._unsynced = True  # blocks of an earlier daemon of this session may be unsynced
        self._threads = [
            threading.Thread(target=self._work, args=(number, encoder), name=f"uploader-{number}")
            for number, encoder in enumerate(encoders)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job[T]) -> None:
        """Queue a settled chunk. The submitter bounds their number (the spool's limit)."""
        with self._lock:
            batches = self._batches()
            self._queue.append(job)
            self._pending += 1
            self._pending_bytes += job.source.length
            self._waiting_bytes += job.source.length
            # No worker is woken needlessly, which would cost the caller 30 µs each time.
            if self._batches() > batches:
                self._wake()
            elif len(self._queue) == 1:
                self._jobs[0].notify()

    def sync_store(self) -> None:
        """Make every block stored so far survive a power cut (blocks; from any thread).

        Raises:
            StoreError: the store cannot guarantee it.
        """
        with self._sync_lock:  # a second caller waits for the first: it may rely on the same blocks
            if not self._unsynced:
                return
            self._unsynced = False
            try:
                self._sync_store()
            except StoreError:
                self._unsynced = True
                raise

    def retry_now(self) -> None:
        """End the pause between two tries, because a caller waits for the result."""
        with self._lock:
            self._again.notify_all()

    def status(self) -> UploadStatus:
        """Return the status of the uploads."""
        with self._lock:
            return UploadStatus(
                queued=self._pending,
                queued_bytes=self._pending_bytes,
                trouble=self._trouble,
                trouble_since=self._trouble_since,
                latency=self._latency,
                store_trouble=self._store_trouble,
            )

    def close(self) -> None:
        """Stop after the batches in flight; queued chunks stay spooled (blocks until the workers end).

        A batch that takes too long is aborted.
        """
        with self._lock:
            self._closed = True
            self._wake()
            self._again.notify_all()
        deadline = time.monotonic() + _CLOSE_TIMEOUT
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))
        for encoder in self._encoders:
            encoder.close()
        for thread in self._threads:
            thread.join()

    def _work(self, number: int, encoder: Encoder) -> None:
        while batch := self._take(number):
            for pause in _pauses():
                try:
                    self._store(batch, encoder)
                    break
                except StoreError as error:
                    wait = pause if isinstance(error, StoreUnavailableError) else max(pause, _REFUSED_PAUSE)
                    self._note_trouble(str(error))
                except Exception as error:
                    log.exception("storing %d chunks failed; trying again", len(batch))
                    wait = max(pause, _REFUSED_PAUSE)
                    self._note_trouble(f"storing failed unexpectedly: {error}")
                if self._wait_closed(wait):
                    return

    def _take(self, number: int) -> list[Job[T]]:
        """Wait for jobs and return a batch; an empty one means that the uploader was closed."""
        with self._lock:
            while not self._closed:
                # A worker waits until there are batches for all workers before it too: those are then busy.
                if self._batches() > number or (number == 0 and self._queue):
                    self._linger(number)
                    if batch := self._next_batch():
                        return batch
                else:
                    self._jobs[number].wait()
            return []

    def _linger(self, number: int) -> None:
        """Let an incomplete batch wait briefly for more; another worker may take everything meanwhile."""
        deadline, seen = time.monotonic() + _LINGER, 0
        while len(self._queue) > seen and not self._batches() and not self._closed:
            if time.monotonic() > deadline:
                return
            seen = len(self._queue)
            self._jobs[number].wait(_LULL)

    def _next_batch(self) -> list[Job[T]]:
        """Take a batch off the queue; an empty one if there is nothing, or the uploader is closing."""
        batch: list[Job[T]] = []
        size = 0
        while self._queue and len(batch) < _BATCH_CHUNKS and size < _BATCH_BYTES and not self._closed:
            batch.append(self._queue.popleft())
            size += batch[-1].source.length
        self._waiting_bytes -= size
        if self._queue:
            self._wake()
        return batch

    def _wake(self) -> None:
        for jobs in self._jobs:
            jobs.notify()

    def _batches(self) -> int:
        """Return how many workers have enough to do; of large chunks a quarter of a batch is enough."""
        return max(len(self._queue) // _BATCH_CHUNKS, self._waiting_bytes // (_BATCH_BYTES // 4))

    def _store(self, batch: list[Job[T]], encoder: Encoder) -> None:
        results, seconds, store_trouble = encoder.store(
            [job.source for job in batch], check_content=any(job.check_content for job in batch)
        )
        self._unsynced = True  # existing blocks may be another session's, and not durable yet
        if any(job.durable for job in batch):
            self.sync_store()
        outcomes: list[Finished[T]] = []
        for job, result in zip(batch, results, strict=True):
            if isinstance(result, Unreadable):
                outcomes.append(Failure(job, result.reason))
            else:
                stored = Stored(job.source.length, result.hash, result.key)
                outcomes.append(Outcome(job, stored, result.size, result.is_new, result.replaced))
        with self._lock:
            self._latency, self._store_trouble = seconds, store_trouble
        self._finish(batch, outcomes)

    def _finish(self, batch: list[Job[T]], outcomes: list[Finished[T]]) -> None:
        with self._lock:
            self._pending -= len(batch)
            self._pending_bytes -= sum(job.source.length for job in batch)
            if self._trouble is not None:
                log.info("the store works again")
                self._again.notify_all()  # ends the pauses of the other workers
            self._trouble = self._trouble_since = None
        self._report(outcomes)

    def _note_trouble(self, reason: str) -> None:
        with self._lock:
            if self._closed:
                return  # the store was closed meanwhile
            if self._trouble != reason:
                log.warning("uploads are waiting: %s", reason)
            self._trouble = reason
            self._trouble_since = self._trouble_since or time.time()

    def _wait_closed(self, seconds: float) -> bool:
        """Wait for `seconds`, or until a retry is requested; return whether the uploader is closed."""
        with self._lock:
            if not self._closed:
                self._again.wait(seconds)
            return self._closed


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 2, _LONGEST_PAUSE)
