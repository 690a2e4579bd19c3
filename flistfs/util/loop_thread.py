"""Async work for callers of any kind: in an event loop in a thread of its own.

The caller's thread may run a loop already, trio's or another, and no two nest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import TypeVar

import trio

T = TypeVar("T")

# Python does not see a signal that comes the moment before it begins to wait: so long at most, in seconds.
_LOOK_UP = 0.5


def run_in_thread(work: Callable[[], Awaitable[T]]) -> T:
    """Run async work to its end, and return or raise what it does.

    Whatever reaches the caller's thread meanwhile, such as Ctrl-C, cancels the work, and goes on when that
    has ended.
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
        # At its end the pool waits for the threads that it knows; Ctrl-C while one starts would leave it out.
        thread.submit(int).result()
        try:
            running = thread.submit(trio.run, main)
            while not running.done():
                wait([running], _LOOK_UP)
            return running.result()
        except BaseException:
            # Wherever Ctrl-C was pressed: either `main` sees this, or its token is there.
            is_left = True
            for token in tokens:
                with suppress(trio.RunFinishedError):
                    token.run_sync_soon(scope.cancel)
            raise


class _CancelledError(Exception):
    """The work was cancelled; the caller, who has an error of its own, never sees this."""
