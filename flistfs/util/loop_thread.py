"""Run async work for synchronous callers, in an event loop in a thread of its own.

The caller's thread may already run a loop, of trio or another library, and loops cannot nest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

import trio

T = TypeVar("T")

# Python misses a signal that arrives just before it starts to wait: wait at most this long (seconds).
_LOOK_UP = 0.5


def run_in_thread(work: Callable[[], Awaitable[T]]) -> T:
    """Run async work to completion; return its result or raise its error.

    An exception in the caller's thread meanwhile, such as KeyboardInterrupt, cancels the work and is reraised
    when the work has ended.
    """
    scope = trio.CancelScope()
    tokens: list[trio.lowlevel.TrioToken] = []
    is_left = False

    async def main() -> T:
        tokens.append(trio.lowlevel.current_trio_token())
        if is_left:
            scope.cancel()
        with scope:
            return await work()
        raise _CancelledError

    with ThreadPoolExecutor(1, thread_name_prefix="flistfs") as thread:
        # On exit the pool waits for the threads it knows; it would miss one if Ctrl-C came during its start.
        thread.submit(int).result()
        try:
            running = thread.submit(trio.run, main)
            while not running.done():
                wait([running], _LOOK_UP)
            return running.result()
        except BaseException:
            # Whenever Ctrl-C was pressed, either `main` sees this or its token exists.
            is_left = True
            for token in tokens:
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(scope.cancel)
            raise


class _CancelledError(Exception):
    """The work was cancelled; never seen by callers, which have an error of their own."""
