"""Read blocks from several stores, in order."""

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
    """A `Store` for reading: a block comes from the first of several stores that has it.

    A store that fails is skipped; if none of the others has the block, its error is raised, as the block may
    be there.
    """

    def __init__(self, stores: Sequence[Store]) -> None:
        """Read from these stores (at least one), in this order; `close` closes them."""
        self._stores = stores

    @property
    def codec(self) -> Codec:
        """The codec of the blocks of all of them."""
        return self._stores[0].codec

    @property
    def url(self) -> str:
        """The URLs of the stores."""
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
        """Check every store."""
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
        """Refuse: it is not defined which store would get the block."""
        raise StoreRefusedError(f"{self.url} was opened for reading")

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002 - the format's word
        """Try one store after the other."""
        return first_that_has(hash, self._stores, self.codec, self.url, deadline or reading_deadline())

    def copies(self, hash: bytes) -> list[bytes]:  # noqa: A002 - the format's word
        """Return the copies of all stores."""
        return all_copies(hash, self._stores)

    def wrong(self, hashes: Sequence[bytes], *, thorough: bool) -> set[bytes]:
        """Check all stores."""
        return set().union(*(store.wrong(hashes, thorough=thorough) for store in self._stores))

    def sync(self) -> None:
        """Do nothing: nothing is written."""

    def close(self) -> None:
        """Close all of them."""
        for store in self._stores:
            store.close()
