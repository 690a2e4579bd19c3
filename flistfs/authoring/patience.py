"""How long to wait for a store that takes nothing."""

from __future__ import annotations

import time

import trio

from flistfs.errors import StoreUnavailableError
from flistfs.progress import Progress

# Seconds until a store that did not answer is asked again.
_ASK_AGAIN = 2.0


class Patience:
    """How long to wait for a store in trouble: `timeout` seconds from the moment that it is waited for."""

    def __init__(self, timeout: float, progress: Progress) -> None:
        """Wait for `timeout` seconds at most, and tell `progress` all the time."""
        self._timeout = timeout
        self._progress = progress
        self._troubled_since: float | None = None

    def tell(
        self,
        phase: str,
        done: int,
        total: int,
        trouble: str | None,
        counts: dict[str, int] | None = None,
    ) -> None:
        """Tell the progress; in trouble, give up when it lasts too long.

        Raises:
            StoreUnavailableError: it did.
        """
        self._progress(phase, done, total, trouble, counts)
        if trouble is None:
            self._troubled_since = None
            return
        now = time.monotonic()
        self._troubled_since = self._troubled_since or now
        if now - self._troubled_since >= self._timeout:
            raise StoreUnavailableError(
                f"gave up after {self._timeout:.0f} s: {trouble}. Everything is kept; try again later, "
                f"or with a longer --timeout"
            )

    async def wait(self, trouble: str) -> None:
        """Wait a moment before the store is asked again."""
        self.tell("check", 0, 1, trouble)
        await trio.sleep(_ASK_AGAIN)
