"""Threads that fetch the content of files and write it into files that are already open."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final, Self

from flistfs.errors import OutputError
from flistfs.reading.content import THREADS, Piece, fetch, pieces
from flistfs.stores import Store
from flistfs.tree.chunks import CHUNK_SIZE
from flistfs.tree.names import join, printable
from flistfs.tree.node import Node
from flistfs.util.progress import Progress, Report

# Chunks in flight at a time, each of which keeps a file open.
_AHEAD: Final = 8 * THREADS

# A whole chunk of zeros needs no block: unwritten parts of a file read as zeros.
_ZEROS: Final = bytes(CHUNK_SIZE)


@contextmanager
def explained(target: Path, path: bytes) -> Iterator[None]:
    """Convert a system error to one that names the path below `target`.

    Raises:
        OutputError: instead of OSError.
    """
    try:
        yield
    except OSError as error:
        where = printable(join(os.fsencode(target), path) if path else os.fsencode(target))
        reason = "the disk is full: make room" if error.errno == errno.ENOSPC else error.strerror
        raise OutputError(f"{where} cannot be created: {reason}") from error


class _Output:
    """A file that several threads write to; the one that writes the last chunk completes it."""

    def __init__(self, descriptor: int, chunks: int, complete: Callable[[int], None]) -> None:
        self._descriptor = descriptor
        self._complete = complete
        self._lock = Lock()
        self._unwritten = chunks
        self._users = chunks

    def write(self, offset: int, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written
        with self._lock:
            self._unwritten -= 1
            is_whole = not self._unwritten
        if is_whole:
            self._complete(self._descriptor)

    def release(self) -> None:
        """Record that one chunk is done, written or not."""
        with self._lock:
            self._users -= 1
            is_last = not self._users
        if is_last:
            os.close(self._descriptor)


class Writers:
    """The threads that fetch and write."""

    def __init__(self, store: Store, target: Path, total: int, progress: Progress) -> None:
        self._store = store
        self._key_of_zeros = store.codec.key(_ZEROS)
        self._target = target
        self._total = total
        self._progress = progress
        self._done = 0
        self._pool = ThreadPoolExecutor(THREADS)
        self._running: deque[Future[int]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            while error is None and self._running:
                self._await_one()
        finally:
            # After an error, running work is not waited for: closing the store ends it.
            self._pool.shutdown(wait=False, cancel_futures=True)

    def write(self, descriptor: int, node: Node, complete: Callable[[int], None]) -> None:
        """Fill a new file; `complete` is called with the descriptor at the end, before it is closed."""
        waiting: deque[Piece | None] = deque(
            piece
            for piece in pieces(node, self._store.codec)
            if piece.ref.key != self._key_of_zeros or piece.length != CHUNK_SIZE
        )
        if not waiting:
            waiting.append(None)
        output = _Output(descriptor, len(waiting), complete)
        try:
            while waiting:
                self._start(output, node.path, waiting[0])
                waiting.popleft()
        finally:
            for _ in waiting:  # empty unless something failed
                output.release()

    def _start(self, output: _Output, path: bytes, piece: Piece | None) -> None:
        if len(self._running) >= _AHEAD:
            self._await_one()
        future = self._pool.submit(self._fill, output, path, piece)
        future.add_done_callback(partial(_release_cancelled, output))
        self._running.append(future)

    def _fill(self, output: _Output, path: bytes, piece: Piece | None) -> int:
        """Write a chunk, or complete a file without chunks."""
        try:
            chunk = b"" if piece is None else fetch(self._store, path, piece)
            with explained(self._target, path):
                output.write(0 if piece is None else piece.offset, chunk)
        finally:
            output.release()
        return len(chunk)

    def _await_one(self) -> None:
        self._done += self._running.popleft().result()
        self._progress(Report("extract", self._done, self._total))


def _release_cancelled(output: _Output, future: Future[int]) -> None:
    if future.cancelled():
        output.release()
