"""Copy blocks from one store to another: those that are missing or corrupt there.

Every block is decoded and checked against its hash and its key before it is sent.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from flistfs.errors import BlockCorruptError, BlockMissingError, FlistfsError
from flistfs.format.base import Block
from flistfs.stores import Store
from flistfs.tree.chunks import BlockRef

BATCH = 256
"""Blocks per query of one thread to the target."""

# A group is sent at this many blocks or bytes, whichever comes first (see `authoring.uploader`).
_GROUP_BLOCKS = 64
_GROUP_BYTES = 4 << 20

# Each thread holds one group, so together they hold less than 40 MiB.
_THREADS = 8


def right_copy(store: Store, ref: BlockRef) -> Block | None:
    """Return a valid copy of a block from any of a store's servers; None if there is none.

    Raises:
        StoreError: the store cannot be queried.
    """
    for stored in store.copies(ref.hash):
        try:
            store.codec.decode(stored, ref)
        except BlockCorruptError:
            continue
        return Block(ref.hash, ref.key, (stored,))
    return None


class Copier:
    """Threads that copy batches of blocks; a context manager. One lock guards the counters."""

    def __init__(
        self,
        source: Store,
        target: Store,
        total: int,
        progress: Callable[[int, int], None],
        note: Callable[[BlockRef, FlistfsError], None],
        *,
        check_content: bool = False,
    ) -> None:
        """Copy from one store to another.

        Args:
            source: Where blocks are.
            target: Where they go, if they are not there.
            total: How many there will be in all batches.
            progress: Called from any thread with how many of how many are done.
            note: Called for each block that the source lacks or holds corrupt, by one thread at a time; it
                does not keep the others from being copied.
            check_content: Whether all that the target has is fetched and compared (see `Store.wrong`).
        """
        self.sent = self.sent_bytes = self.replaced = 0
        self._check_content = check_content
        self._source = source
        self._target = target
        self._total = total
        self._progress = progress
        self._note = note
        self._done = 0
        self._lock = threading.Lock()
        self._stopped = False
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="copy")
        self._waiting: deque[Future[None]] = deque()

    def submit(self, batch: Sequence[BlockRef]) -> None:
        """Queue a batch for copying; wait while many are in flight.

        Raises the error of an earlier batch.
        """
        while len(self._waiting) >= 2 * _THREADS:
            self._waiting.popleft().result()
        self._waiting.append(self._threads.submit(self._copy, batch))

    def finish(self) -> None:
        """Wait for all batches; raise the error of one that failed."""
        while self._waiting:
            self._waiting.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Start nothing new and wait for batches in flight; after Ctrl-C closing the store ends those."""
        self._stopped = True
        is_interrupted = kind is not None and not issubclass(kind, Exception)
        self._threads.shutdown(wait=not is_interrupted, cancel_futures=True)

    def _copy(self, batch: Sequence[BlockRef]) -> None:
        hashes = list(dict.fromkeys(ref.hash for ref in batch))
        absent = self._target.missing(hashes)
        there = [block_hash for block_hash in hashes if block_hash not in absent]
        wrong = self._target.wrong(there, thorough=self._check_content)
        wanted = [ref for ref in dict.fromkeys(batch) if ref.hash in absent or ref.hash in wrong]
        self._count(len(batch) - len(wanted))
        group: list[Block] = []
        for ref in wanted:
            if self._stopped:
                return
            try:
                stored = self._source.get(ref.hash)
                self._source.codec.decode(stored, ref)
            except (BlockMissingError, BlockCorruptError) as error:
                with self._lock:
                    self._note(ref, error)
                continue
            group.append(Block(ref.hash, ref.key, (stored,)))
            if len(group) == _GROUP_BLOCKS or sum(block.size for block in group) >= _GROUP_BYTES:
                self._send(group, wrong)
                group = []
        self._send(group, wrong)

    def _send(self, group: Sequence[Block], wrong: Collection[bytes]) -> None:
        if not group or self._stopped:
            return
        self._target.put(group)
        with self._lock:
            self.sent += len(group)
            self.replaced += sum(block.hash in wrong for block in group)
            self.sent_bytes += sum(block.size for block in group)
        self._count(len(group))

    def _count(self, blocks: int) -> None:
        with self._lock:
            self._done += blocks
            self._progress(self._done, self._total)
