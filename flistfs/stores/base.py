"""The interface of every block store.

A store maps hashes to stored values and knows nothing else: no files, no keys, no encryption. Blocks are
named by a hash of their value, so storing one twice is harmless, and nothing is ever deleted: others may
share the block.

All methods are thread-safe. They block, for a bounded time.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

from flistfs.errors import StoreRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flistfs.format.base import Block, Codec
    from flistfs.format.router import Router

MAX_BLOCK_SIZE: Final = 8 * 1024 * 1024
"""The largest stored value, in bytes: 0-db's limit. A 512 KiB chunk needs a sixteenth of it even
where it does not compress. A larger value that a store claims to hold is never read into memory."""

STORE_TIMEOUT: Final = 300.0
"""Seconds to wait for a store that accepts nothing, by default, before giving up."""

DEFAULT_TIMEOUT: Final = 20.0
"""Seconds without any progress after which a server counts as hung. redis-py's 5 s are too short for a large
batch on a busy store; more would make 0-db's occasional stalls (which sending again cures) expensive."""

_DEADLINE_FACTOR: Final = 1.5
"""An exchange with all its tries takes this many times the limit of silence at most, and more only for the
bytes of blocks that are sent. With the default those are 30 s: enough for one stall of 0-db's and then a
block of 0.6 MiB at 64 KiB a second."""


def reading_deadline(timeout: float = DEFAULT_TIMEOUT) -> float:
    """Return when reading a block that begins now must be over; `timeout` is the limit of silence."""
    return time.monotonic() + _DEADLINE_FACTOR * timeout


class Store(Protocol):
    """A place where blocks live.

    Every method may raise `StoreUnavailableError` (it may work later), `StoreRefusedError` (it will not,
    until somebody changes something) or a plain `StoreError` (the store behaves unexpectedly).
    """

    @property
    def codec(self) -> Codec:
        """The codec of the blocks that it holds."""

    @property
    def url(self) -> str:
        """The store's URL without any password: for logs and messages."""

    @property
    def readers_router(self) -> Router | None:
        """The router to write into a package, without any password; None if readers can't use the store."""

    @property
    def unreadable(self) -> str | None:
        """Which part of the store readers cannot use, and why; None if they can use all of it."""

    @property
    def trouble(self) -> str | None:
        """What is wrong though the store works, such as a failed server that others stand in for."""

    def check(self) -> None:
        """Connect to the store and verify the password. Does not check whether blocks can be written."""

    def missing(self, hashes: Sequence[bytes], sizes: Mapping[bytes, int] | None = None) -> set[bytes]:
        """Return which of these the store does not hold; any number of them, repeats allowed.

        `sizes` holds the stored sizes in bytes, where they are known: a store that a power cut can leave
        with a part of a block treats one of another size as missing.
        """

    def put(self, blocks: Sequence[Block]) -> None:
        """Store blocks; return when the store has acknowledged all of them. Corrupt copies are replaced.

        After an error some of them may be stored. It is safe to call it again with the same blocks.
        """

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002 - the format's word
        """Return a block's stored value; raise `BlockMissingError` if the store does not hold it.

        It returns by the deadline, a time on the monotonic clock, whatever servers do; the default is
        `reading_deadline()` with the store's own timeout.
        """

    def copies(self, hash: bytes) -> list[bytes]:  # noqa: A002 - the format's word
        """Return a block's stored value from each server that holds it; an empty list if none does.

        A server that fails is skipped if another one holds the block.
        """

    def wrong(self, hashes: Sequence[bytes], *, thorough: bool) -> set[bytes]:
        """Return which of these have a copy whose bytes do not match its name; `put` replaces it.

        With `thorough`, all are fetched and compared; without it, only those that may have changed unnoticed:
        in a directory, those not compared since the machine booted. Servers look after their own.
        """

    def sync(self) -> None:
        """Make the blocks that `put` has stored survive a power cut, as far as the store's disk is honest.

        Does nothing for servers: each follows its own policy, which no command common to all of them changes.
        """

    def close(self) -> None:
        """Close connections and files. Calls still running in other threads end with an error."""


def check_size(block: Block, codec: Codec, url: str) -> None:
    """Raise `StoreRefusedError` for a block that no store would return (see `MAX_BLOCK_SIZE`)."""
    if block.size > MAX_BLOCK_SIZE:
        raise StoreRefusedError(
            f"block {codec.show(block.hash)} of {block.size} bytes is too large for {url}: "
            f"the limit is {MAX_BLOCK_SIZE} bytes"
        )
