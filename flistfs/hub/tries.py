"""How often something may be tried in vain: passwords are short enough to be guessed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from flistfs.hub.errors import TooManyError

_MAX_KEYS: Final = 10_000
"""How many are remembered: those that failed last."""


@dataclass(frozen=True, slots=True)
class _Failed:
    """How often something failed, since when."""

    count: int
    since: float


class Tries:
    """Counts what failed, by a name or an address. Its methods may be called from several threads."""

    def __init__(self, limit: int, seconds: float, now: Callable[[], float] = time.time) -> None:
        """Allow `limit` failures in so many seconds."""
        self._limit = limit
        self._seconds = seconds
        self._now = now
        self._lock = threading.Lock()
        self._failed: dict[str, _Failed] = {}

    def check(self, key: str) -> None:
        """Raise `TooManyError` for what failed too often lately."""
        with self._lock:
            found = self._lately(key)
        if found is not None and found.count >= self._limit:
            left = found.since + self._seconds - self._now()
            raise TooManyError("too many wrong passwords; try again in some minutes", int(left) + 1)

    def failed(self, key: str) -> None:
        """Count a failure."""
        with self._lock:
            found = self._lately(key) or _Failed(0, self._now())
            self._failed.pop(key, None)
            self._failed[key] = _Failed(found.count + 1, found.since)
            while len(self._failed) > _MAX_KEYS:
                del self._failed[next(iter(self._failed))]

    def succeeded(self, key: str) -> None:
        """Forget what failed."""
        with self._lock:
            self._failed.pop(key, None)

    def _lately(self, key: str) -> _Failed | None:
        found = self._failed.get(key)
        return found if found is not None and found.since > self._now() - self._seconds else None
