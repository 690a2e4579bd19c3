"""Blocks that may be in any of several stores, for reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flistfs.errors import StoreError, StoreRefusedError
from flistfs.stores.base import reading_deadline
from flistfs.stores.combined.fanout import all_copies, first_that_has, most_telling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flistfs.format.base import Block, Codec
    from flistfs.stores.base import Store


class FallbackStore:
    """A `Store` for reading: of several, the first that has a block gives it.

    A store that cannot be asked is passed over; if none of the others has the block, its error is raised, as
    it may be there.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        """Read from these stores (at least one), in this order; they are closed with it."""
        self._stores = stores

    @property
    def codec(self) -> Codec:
        """How the blocks of all of them are made."""
        return self._stores[0].codec

    @property
    def url(self) -> str:
        """Where the stores are."""
        return " or ".join(store.url for store in self._stores)

    @property
    def readers_router(self) -> None:
        """Do nothing: this store is never written to."""

    @property
    def unreadable(self) -> None:
        """Do nothing: this store is never written to."""

    @property
    def trouble(self) -> str | None:
        """What is wrong with any of them."""
        return "; ".join(store.trouble for store in self._stores if store.trouble) or None

    def check(self) -> None:
        """Reach every store."""
        for store in self._stores:
            store.check()

    def missing(self, hashes: Sequence[bytes], sizes: Mapping[bytes, int] | None = None) -> set[bytes]:
        """Return which of these no store holds."""
        absent = set(hashes)
        errors: list[StoreError] = []
        for store in self._stores:
            try:
                absent = store.missing(list(absent), sizes) if absent else absent
            except StoreError as error:
                errors.append(error)
        if absent and errors:
            raise most_telling(errors)
        return absent

    def put(self, blocks: Sequence[Block]) -> None:  # noqa: ARG002  the protocol's signature
        """Refuse: it is not said which of them is to have it."""
        raise StoreRefusedError(f"{self.url} was opened for reading")

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002 - the format's word
        """Ask one store after the other."""
        return first_that_has(hash, self._stores, self.codec, self.url, deadline or reading_deadline())

    def copies(self, hash: bytes) -> list[bytes]:  # noqa: A002 - the format's word
        """Return what all stores hold."""
        return all_copies(hash, self._stores)

    def wrong(self, hashes: Sequence[bytes], *, thorough: bool) -> set[bytes]:
        """Ask all stores."""
        return set().union(*(store.wrong(hashes, thorough=thorough) for store in self._stores))

    def sync(self) -> None:
        """Do nothing: nothing is written."""

    def close(self) -> None:
        """Close all of them."""
        for store in self._stores:
            store.close()
