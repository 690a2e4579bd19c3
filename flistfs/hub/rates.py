"""How much one address may ask for in a second, and how many connections it may have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import trio

_MAX_KNOWN: Final = 10_000
"""How many addresses are remembered that have no connection: those that asked last."""


@dataclass
class Asker:
    """What an address has, and when it has paid for what it asked for (trio's clock)."""

    connections: int = 0
    paid: float = 0.0


class Rates:
    """Slows addresses down that ask for more than their share: they wait, and get what they asked for."""

    def __init__(self, rate: float, connections: int) -> None:
        """Allow `rate` requests a second on average, those of one second at once, and some connections."""
        self._rate = rate
        self._connections = connections
        self._askers: dict[str, Asker] = {}

    @contextmanager
    def connected(self, address: str) -> Iterator[Asker | None]:
        """Count a connection of an address while it lasts; None for one too many."""
        asker = self._askers.pop(address, None) or Asker()
        self._askers[address] = asker  # the last one now
        if asker.connections >= self._connections:
            yield None
            return
        asker.connections += 1
        try:
            yield asker
        finally:
            asker.connections -= 1
            self._forget()

    async def pay(self, asker: Asker, requests: int) -> None:
        """Wait until an address may ask for so much."""
        now = trio.current_time()
        asker.paid = max(asker.paid, now - 1) + requests / self._rate
        if asker.paid > now:
            await trio.sleep_until(asker.paid)

    def _forget(self) -> None:
        while len(self._askers) > _MAX_KNOWN:
            idle = next((key for key, each in self._askers.items() if not each.connections), None)
            if idle is None:
                return
            del self._askers[idle]
