"""What every block store can do.

A store maps hashes to stored values and knows nothing else: no files, no keys, no encryption. Blocks are
named by a hash of their value, so storing one twice is harmless, and nothing is ever deleted: others may
share the block.

All methods may be called by several threads at once. They block, and the time they take is bounded.
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
"""The largest stored value, in bytes. 0-db takes no more; a 512 KiB chunk needs a sixteenth of it even
where it does not compress. What a store claims to hold beyond it is never read into memory."""

STORE_TIMEOUT: Final = 300.0
"""Seconds to wait for a store that accepts nothing, by default, before giving up."""

DEFAULT_TIMEOUT: Final = 20.0
"""Seconds without any progress after which a server counts as hung. redis-py's 5 s are short for a large
batch on a busy store; more would make 0-db's occasional stalls (sending again cures them) hurt."""

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
        """How the blocks are made that it holds."""

    @property
    def url(self) -> str:
        """Where the store is, without any password: for logs and for the user."""

    @property
    def readers_router(self) -> Router | None:
        """What a package says of where its blocks are, without any password; None if readers can't use it."""

    @property
    def unreadable(self) -> str | None:
        """What of the store readers cannot use, and why; None if all of it can be named to them."""

    @property
    def trouble(self) -> str | None:
        """What is wrong though the store works: a server that others stand in for."""

    def check(self) -> None:
        """Reach the store and prove the password. Says nothing about whether blocks can be written."""

    def missing(self, hashes: Sequence[bytes], sizes: Mapping[bytes, int] | None = None) -> set[bytes]:
        """Return which of these the store does not hold; any number of them, repeats allowed.

        `sizes` says how many bytes blocks have as stored, of those where it is known: a store that can be
        left with a part of a block, by a power cut, takes one of another size for missing.
        """

    def put(self, blocks: Sequence[Block]) -> None:
        """Store blocks; returns when the store has acknowledged every one. Right ones go over wrong ones.

        After an error some of them may be stored. Calling it again with the same blocks is right.
        """

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002 - the format's word
        """Return a block's stored value; raises `BlockMissingError` if the store does not hold it.

        It ends by the deadline, a time on the monotonic clock, whatever servers do; by default that is
        `reading_deadline()`, with the store's own limit of silence.
        """

    def copies(self, hash: bytes) -> list[bytes]:  # noqa: A002 - the format's word
        """Return a block's stored value from each server that holds it; none if the store does not.

        A server that cannot be asked is passed over where another one holds it.
        """

    def wrong(self, hashes: Sequence[bytes], *, thorough: bool) -> set[bytes]:
        """Return which of these have a copy whose bytes do not match its name; `put` replaces it.

        With `thorough` each is fetched and compared. Without it only those are that may have changed unseen:
        a directory's that were not compared since the machine started. Servers look after theirs themselves.
        """

    def sync(self) -> None:
        """Make what `put` has returned for survive a power cut, as far as the store's disk keeps its word.

        A server follows its own policy, which no command that all servers understand could change: there
        this does nothing.
        """

    def close(self) -> None:
        """Let go of connections and files. Whatever still runs in other threads ends with an error."""


def check_size(block: Block, codec: Codec, url: str) -> None:
    """Raise `StoreRefusedError` for a block that no store would give back (see `MAX_BLOCK_SIZE`)."""
    if block.size > MAX_BLOCK_SIZE:
        raise StoreRefusedError(
            f"block {codec.show(block.hash)} of {block.size} bytes is too large for {url}: "
            f"the limit is {MAX_BLOCK_SIZE} bytes"
        )
