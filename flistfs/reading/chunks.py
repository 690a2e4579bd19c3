"""Chunks for repeated reads: a bounded cache, and read-ahead.

All of it runs in one event loop; only `fetch` runs in threads. Between awaits nothing else runs, so that a
chunk is either kept, on its way (others that want it wait for it), or neither.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import trio

from flistfs.errors import BlockCorruptError, FlistfsError
from flistfs.reading.content import Piece, fetch
from flistfs.stores import Store
from flistfs.stores.slow import SlowFailures
from flistfs.tree.chunks import BlockRef
from flistfs.tree.names import printable

log = logging.getLogger(__name__)

DEFAULT_LIMIT: Final = 64 << 20
"""Bytes of chunks to cache."""

# Chunks fetched at the same time.
_FETCHERS: Final = 8


class Chunks:
    """The chunks of an flist's files, from a store."""

    def __init__(self, store: Store, limit: int = DEFAULT_LIMIT) -> None:
        self._store = store
        self._limit = limit
        self._kept: OrderedDict[BlockRef, bytes] = OrderedDict()  # least recently used first
        self._size = 0
        self._coming: dict[BlockRef, trio.Event] = {}
        self._failures = SlowFailures()
        self._fetchers = trio.CapacityLimiter(_FETCHERS)

    @property
    def size(self) -> int:
        """The bytes cached now."""
        return self._size

    async def get(self, path: bytes, piece: Piece) -> bytes:
        """Return a chunk of the file at `path`.

        Raises:
            FlistfsError: as `fetch` does.
        """
        while (chunk := self._kept.get(piece.ref)) is None:
            if (event := self._coming.get(piece.ref)) is None:
                return await self._fetch(path, piece)
            await event.wait()
        self._kept.move_to_end(piece.ref)
        if len(chunk) != piece.length:
            raise BlockCorruptError(
                f"{printable(path)} cannot be read: a block has {len(chunk)} bytes, not {piece.length}"
            )
        return chunk

    async def prefetch(self, path: bytes, pieces: Sequence[Piece]) -> None:
        """Fetch chunks ahead of time; errors surface when the chunks are read."""
        for piece in pieces:
            if piece.ref in self._kept or piece.ref in self._coming:
                continue
            try:
                await self._fetch(path, piece)
            except FlistfsError as error:
                log.debug("reading ahead: %s", error)
                return

    async def _fetch(self, path: bytes, piece: Piece) -> bytes:
        event = self._coming[piece.ref] = trio.Event()
        try:
            with self._failures.watched(piece.ref.hash):
                chunk = await trio.to_thread.run_sync(
                    fetch, self._store, path, piece, limiter=self._fetchers, abandon_on_cancel=True
                )
        finally:
            del self._coming[piece.ref]
            event.set()
        self._keep(piece.ref, chunk)
        return chunk

    def _keep(self, ref: BlockRef, chunk: bytes) -> None:
        self._kept[ref] = chunk
        self._size += len(chunk)
        while self._size > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._size -= len(oldest)
