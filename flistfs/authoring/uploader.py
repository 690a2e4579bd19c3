"""Settled chunks become blocks in the store, in batches, in worker threads.

What runs at the same time, and why it is safe:

- The event loop's thread calls `submit`, `status` and `close`; the workers take jobs from the queue. One
  lock guards the queue and the counters; nobody blocks while holding it.
- A worker reads a chunk's slot while the event loop may be writing to it or may have given it to another
  chunk. What it reads may be torn, but it is read once, into bytes of its own, so that block, hash and key
  belong together whatever they hold. `report` gets the job back, and the event loop's thread decides with
  the job's version whether the chunk is still what was read (see `content`); else the block is a harmless
  extra one.
- Stores are safe for several threads; `known` reads the journal, which is too.
- A batch that could not be stored stays with its worker and is sent again, whole, until it is stored or
  the uploader is closed: every block is named by its content, so sending one twice changes nothing. Chunks
  that were not reported are still spooled in the journal, and are submitted again when the session resumes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flistfs.authoring.journal import Stored
from flistfs.authoring.spool import Spool
from flistfs.errors import StoreError, StoreUnavailableError
from flistfs.format.codec import Block, chunk_key, encode_block
from flistfs.stores import Store

log = logging.getLogger(__name__)

# A batch is full with this many chunks or bytes, whichever comes first: 16 to 64 small blocks in a pipeline
# are 2 to 5 times quicker than one by one, large ones gain little, and two workers hold at most
# 2 x (4 MiB plain + 4 MiB encoded) of memory.
_BATCH_CHUNKS = 64
_BATCH_BYTES = 4 << 20

# Seconds that a batch waits to become full.
_LINGER = 0.02

_WORKERS = 2
_RECENT_KEYS = 4096

# Seconds that a batch on its way may take when the uploader is closed; what is cut off is sent again later.
_LAST_WORDS = 2.0

# Seconds between tries: growing while the store does not answer, long from the start where it refuses.
_FIRST_PAUSE = 0.5
_REFUSED_PAUSE = 10.0
_LONGEST_PAUSE = 30.0


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """A settled chunk.

    `owner` and `version` are the submitter's, handed back with the outcome. A `durable` chunk is reported
    only when its block survives a power cut.
    """

    owner: T
    version: int
    slot: int
    length: int
    durable: bool = False


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """A chunk that is in the store now: `new_bytes` of it were not there before (0: it was shared)."""

    job: Job[T]
    stored: Stored
    new_bytes: int


@dataclass(frozen=True, slots=True)
class UploadStatus:
    """How the uploads are.

    `trouble_since` is in seconds since 1970; `latency` is how long the last batch took to be stored.
    """

    queued: int
    queued_bytes: int
    trouble: str | None
    trouble_since: float | None
    latency: float | None


@dataclass(slots=True)
class _Encoded(Generic[T]):
    """A batch on its way: blocks to send by key, and the hash of every chunk's block."""

    jobs: list[Job[T]]
    keys: list[bytes]
    hashes: dict[bytes, bytes]
    blocks: dict[bytes, Block]


class Uploader(Generic[T]):
    """Worker threads that store chunks and report what they stored."""

    def __init__(
        self,
        store: Store,
        spool: Spool,
        known: Callable[[bytes], bytes | None],
        report: Callable[[list[Outcome[T]]], None],
    ) -> None:
        """Start the workers.

        Args:
            store: Where blocks go.
            spool: Where chunks are read from.
            known: Gives the hash of a block that was stored before, by the key of its chunk.
            report: Called from a worker's thread with each batch of stored chunks.
        """
        self._store = store
        self._spool = spool
        self._known = known
        self._report = report
        self._lock = threading.Lock()
        self._jobs = threading.Condition(self._lock)
        self._again = threading.Condition(self._lock)
        self._queue: deque[Job[T]] = deque()
        self._pending = 0
        self._pending_bytes = self._waiting_bytes = 0
        self._recent: OrderedDict[bytes, bytes] = OrderedDict()
        self._latency: float | None = None
        self._trouble: str | None = None
        self._trouble_since: float | None = None
        self._closed = False
        self._sync_lock = threading.Lock()
        self._unsynced = True  # blocks of an earlier daemon of this session may not be
        self._threads = [
            threading.Thread(target=self._work, name=f"uploader-{number}") for number in range(_WORKERS)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job[T]) -> None:
        """Queue a settled chunk. The submitter bounds how many there are (the spool's limit)."""
        with self._lock:
            self._queue.append(job)
            self._pending += 1
            self._pending_bytes += job.length
            self._waiting_bytes += job.length
            if len(self._queue) == 1 or self._is_batch():
                self._jobs.notify()

    def forget(self, keys: Sequence[bytes]) -> None:
        """Trust no longer that the blocks of these chunks are in the store."""
        with self._lock:
            for key in keys:
                self._recent.pop(key, None)

    def sync_store(self) -> None:
        """Make every block that was stored so far survive a power cut (blocks; from any thread).

        Raises:
            StoreError: the store cannot promise it.
        """
        with self._sync_lock:  # a second caller waits for the first: it may rely on the same blocks
            if not self._unsynced:
                return
            self._unsynced = False
            try:
                self._store.sync()
            except StoreError:
                self._unsynced = True
                raise

    def retry_now(self) -> None:
        """End the pause between two tries, because somebody waits for the result."""
        with self._lock:
            self._again.notify_all()

    def status(self) -> UploadStatus:
        """Say how the uploads are."""
        with self._lock:
            return UploadStatus(
                queued=self._pending,
                queued_bytes=self._pending_bytes,
                trouble=self._trouble,
                trouble_since=self._trouble_since,
                latency=self._latency,
            )

    def close(self) -> None:
        """Stop after what is being sent now; queued chunks stay spooled (blocks until the workers end).

        A store that does not answer soon is closed.
        """
        with self._lock:
            self._closed = True
            self._jobs.notify_all()
            self._again.notify_all()
        deadline = time.monotonic() + _LAST_WORDS
        for thread in self._threads:
            thread.join(max(0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            self._store.close()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while batch := self._take():
            encoded: _Encoded[T] | None = None
            for pause in _pauses():
                try:
                    encoded = encoded or self._encode(batch)
                    started = time.monotonic()
                    outcomes = self._send(encoded)
                    self._finish(batch, outcomes, time.monotonic() - started)
                    break
                except StoreError as error:
                    wait = pause if isinstance(error, StoreUnavailableError) else max(pause, _REFUSED_PAUSE)
                    self._in_trouble(str(error))
                except Exception as error:
                    log.exception("storing %d chunks failed; trying again", len(batch))
                    wait = max(pause, _REFUSED_PAUSE)
                    self._in_trouble(f"storing failed unexpectedly: {error}")
                if self._wait_closed(wait):
                    return

    def _take(self) -> list[Job[T]]:
        """Wait for jobs and take a batch; an empty one means that the uploader was closed."""
        with self._lock:
            while not self._queue and not self._closed:
                self._jobs.wait()
            # A batch that is not full waits a little for more: its fixed costs are spread over more chunks.
            deadline = time.monotonic() + _LINGER
            while not self._is_batch() and not self._closed and (left := deadline - time.monotonic()) > 0:
                self._jobs.wait(left)
            if self._closed:
                return []
            batch: list[Job[T]] = []
            size = 0
            while self._queue and len(batch) < _BATCH_CHUNKS and size < _BATCH_BYTES:
                batch.append(self._queue.popleft())
                size += batch[-1].length
            self._waiting_bytes -= size
            if self._queue:
                self._jobs.notify()
            return batch

    def _is_batch(self) -> bool:
        return len(self._queue) >= _BATCH_CHUNKS or self._waiting_bytes >= _BATCH_BYTES // 4

    def _encode(self, batch: list[Job[T]]) -> _Encoded[T]:
        """Read and encode the chunks whose blocks are not known yet."""
        encoded = _Encoded(batch, [], {}, {})
        for job in batch:
            chunk = self._spool.read(job.slot, 0, job.length)
            key = chunk_key(chunk)
            encoded.keys.append(key)
            if key in encoded.hashes:
                continue
            known = self._recent.get(key) or self._known(key)
            if known is None:
                block = encode_block(chunk, key=key)
                encoded.blocks[key] = block
                known = block.hash
            encoded.hashes[key] = known
        return encoded

    def _send(self, encoded: _Encoded[T]) -> list[Outcome[T]]:
        """Store the blocks that are not there, and say what the chunks became."""
        blocks = list(encoded.blocks.values())
        if blocks:
            missing = self._store.missing([block.hash for block in blocks])
            new = [block for block in blocks if block.hash in missing]
            if new:
                self._store.put(new)
            self._unsynced = True  # what was there already may be another session's, and not last yet
        else:
            new = []
        if any(job.durable for job in encoded.jobs):
            self.sync_store()
        with self._lock:
            for block in blocks:
                self._recent[block.key] = block.hash
            while len(self._recent) > _RECENT_KEYS:
                self._recent.popitem(last=False)
        new_bytes = {block.key: block.size for block in new}
        return [
            Outcome(job, Stored(job.length, encoded.hashes[key], key), new_bytes.pop(key, 0))
            for job, key in zip(encoded.jobs, encoded.keys, strict=True)
        ]

    def _finish(self, batch: list[Job[T]], outcomes: list[Outcome[T]], seconds: float) -> None:
        with self._lock:
            self._latency = seconds
            self._pending -= len(batch)
            self._pending_bytes -= sum(job.length for job in batch)
            if self._trouble is not None:
                log.info("the store works again")
                self._again.notify_all()  # the other worker need not wait out its pause
            self._trouble = self._trouble_since = None
        self._report(outcomes)

    def _in_trouble(self, reason: str) -> None:
        with self._lock:
            if self._closed:
                return  # the store was closed under us
            if self._trouble != reason:
                log.warning("uploads wait: %s", reason)
            self._trouble = reason
            self._trouble_since = self._trouble_since or time.time()

    def _wait_closed(self, seconds: float) -> bool:
        """Wait for `seconds`, or less if somebody asks for a try now; say whether we are closed."""
        with self._lock:
            if not self._closed:
                self._again.wait(seconds)
            return self._closed


def _pauses() -> Iterator[float]:
    pause = _FIRST_PAUSE
    while True:
        yield pause
        pause = min(pause * 2, _LONGEST_PAUSE)
