"""Remember reads of blocks that failed after a long wait.

When a read fails, the kernel retries at once, for one page instead of the read-ahead; so a program that reads
from a store which hangs would wait twice.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from flistfs.errors import StoreUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SLOW_AFTER: Final = 3.0  # seconds; a server that is down refuses within one
_REMEMBERED_FOR: Final = 1.0  # seconds; the kernel retries within a millisecond
_MAX_REMEMBERED: Final = 1024


class SlowFailures:
    """Remembers for a second which reads failed after a long wait. For one thread."""

    def __init__(self) -> None:
        self._failed: dict[bytes, tuple[float, str]] = {}

    @contextmanager
    def watched(self, block_hash: bytes) -> Iterator[None]:
        """Guard a read of a block in the `with` block: fail at once if the read just before failed slowly.

        Raises:
            StoreUnavailableError: it failed slowly.
        """
        started = time.monotonic()
        until, reason = self._failed.pop(block_hash, (0.0, ""))
        if started < until:
            raise StoreUnavailableError(reason)
        try:
            yield
        except StoreUnavailableError as error:
            now = time.monotonic()
            if now - started >= _SLOW_AFTER:
                if len(self._failed) >= _MAX_REMEMBERED:
                    self._failed.clear()
                self._failed[block_hash] = now + _REMEMBERED_FOR, str(error)
            raise
