"""Blocks that could not be read though much time was spent on it.

When a read fails, the kernel asks again at once, for a page instead of what it wanted to read ahead; so a
program that reads from a store which hangs would wait twice.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from flistfs.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SLOW: Final = 3.0  # seconds; a server that is down says so within one
_REMEMBERED: Final = 1.0  # seconds; the kernel asks again within a millisecond
_MOST: Final = 1024


class SlowFailures:
    """Remembers for a second which blocks could not be read in a long time. One thread uses it."""

    def __init__(self) -> None:
        self._failed: dict[bytes, tuple[float, str]] = {}

    @contextmanager
    def watched(self, block_hash: bytes) -> Iterator[None]:
        """Read a block in the `with` block, or fail as the read just before did.

        Raises:
            StoreUnavailableError: it did.
        """
        started = time.monotonic()
        until, reason = self._failed.pop(block_hash, (0.0, ""))
        if started < until:
            raise StoreUnavailableError(reason)
        try:
            yield
        except StoreUnavailableError as error:
            now = time.monotonic()
            if now - started >= _SLOW:
                if len(self._failed) >= _MOST:
                    self._failed.clear()
                self._failed[block_hash] = now + _REMEMBERED, str(error)
            raise
