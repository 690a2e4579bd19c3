"""The servers of a router, and the table from hash ranges to servers."""

from __future__ import annotations

import logging
import time
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from flistfs.errors import BlockMissingError, StoreError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from flistfs.stores.base import Store

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from flistfs.stores.base import Store


DIGITS: Final = 64  # of the longest prefix; hashes of generation 1 have this many


_log = logging.getLogger(__name__)


_REST: Final = 10.0
"""A server that failed is not tried for this many times as long as the failure took, so that retries cost at
most a tenth of the time."""


_SHORTEST_REST: Final = 2.0


_LONGEST_REST: Final = 300.0


_T = TypeVar("_T")


class Server:
    """One server, and whether it is worth trying now. Concurrent updates by threads may get lost."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.trouble: str | None = None
        self._is_closed = False
        self._rests_until = 0.0

    @property
    def rests(self) -> bool:
        """Whether it failed recently."""
        return time.monotonic() < self._rests_until

    def ask(self, question: Callable[[Store], _T]) -> _T:
        """Query it, and record whether that worked."""
        started = time.monotonic()
        if self.trouble:  # one thread is enough to find out
            self._rests_until = started + _LONGEST_REST
        try:
            answer = question(self.store)
        except BlockMissingError:
            self._note_success()
            raise
        except StoreError as error:
            self._note_failure(error, time.monotonic() - started)
            raise
        self._note_success()
        return answer

    def _note_success(self) -> None:
        if self.trouble:
            _log.info("%s works again", self.store.url)
        self.trouble = None
        self._rests_until = 0.0

    def get(self, hash_: bytes, deadline: float) -> bytes:
        """Fetch a block from it."""
        return self.ask(lambda store: store.get(hash_, deadline))

    def copies(self, hash_: bytes) -> list[bytes]:
        """Fetch a block that it may not have."""
        return self.ask(lambda store: store.copies(hash_))

    def close(self) -> None:
        """Close its connections; failures that this causes do not count against it."""
        self._is_closed = True
        self.store.close()

    def _note_failure(self, error: StoreError, seconds: float) -> None:
        if self._is_closed:
            return
        if not self.trouble:
            _log.warning("a server of the router fails: %s", error)
        self.trouble = str(error)
        rest = min(max(_SHORTEST_REST, _REST * seconds), _LONGEST_REST)
        self._rests_until = time.monotonic() + rest


Route = tuple[Server, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Which servers hold which hashes. Segment i begins at `starts[i]` and ends where the next begins."""

    starts: list[int]
    routes: list[Route]

    def route(self, digits: str) -> Route:
        """Return the servers of a hash, given as hex digits."""
        return self.routes[bisect_right(self.starts, int(digits.ljust(DIGITS, "0"), 16)) - 1]

    def check_complete(self, least: int) -> None:
        """Raise `UsageError` where a segment has fewer servers than `least`."""
        for start, route in zip(self.starts, self.routes, strict=True):
            if len(route) < least:
                prefix = f"{start:0{DIGITS}X}".rstrip("0").ljust(2, "0")
                have = f"only {len(route)} of {least} servers" if route else "no server"
                raise UsageError(f"it has {have} for hashes that begin with {prefix}")
