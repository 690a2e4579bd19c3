"""A sealed flist with the content of its files: to be encoded anew, for another format."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from typing import NamedTuple, cast

from flistfs.reading.content import Piece as Chunk
from flistfs.reading.content import ahead, fetch
from flistfs.sources.data import BytesSource
from flistfs.sources.item import Item, Piece
from flistfs.sources.sealed import BaseSource
from flistfs.stores import Store
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef, Stored


class _Wanted(NamedTuple):
    """A chunk of a file that is to be fetched."""

    path: bytes
    number: int
    stored: Stored


class DecodedSource:
    """A `TreeSource` of the tree that another has, its blocks fetched, decoded and checked.

    A few threads fetch ahead, across files: memory is that of some chunks, however large files are.
    """

    def __init__(self, base: BaseSource, store: Store) -> None:
        """Take the tree of `base`, and its blocks from a store; `close` closes neither."""
        self.base = base
        self._store = store
        self._total = 0
        self._skipped = 0
        self._is_there: Callable[[bytes], bool] = lambda _: False

    def skip(self, is_there: Callable[[bytes], bool]) -> None:
        """Yield no entry, but directories, whose path is in a tree already, and fetch no block of it."""
        self._is_there = is_there

    def items(self) -> Iterator[Item]:
        """Yield the tree; see `BaseSource.items`.

        Raises also:
            BlockMissingError: the store lacks a block; the message names the file.
            BlockCorruptError: a block is not what the flist says.
            StoreError: the store cannot be reached.
        """
        results = ahead(self._work, self._jobs())
        for result in results:
            item = cast("Item", result)
            count = len(item.stored)
            pieces = islice(cast("Iterator[Piece]", results), count)
            yield replace(item, stored=(), pieces=pieces, count=count)
            for _ in pieces:  # of an item that was not taken
                pass

    def measure(self) -> None:
        """Add up the sizes of all files (blocks)."""
        self._total = sum(node.size for layer in self.base.layers for node in layer.flist.files())

    def extent(self, size: int) -> tuple[int, int]:
        """Return how many bytes of content of how many are done."""
        return size + self._skipped, self._total

    def named(self, path: bytes) -> str:
        """Return a path of the tree."""
        return self.base.named(path)

    def close(self) -> None:
        """Do nothing: who opened the flist closes it."""

    def _jobs(self) -> Iterator[Item | _Wanted]:
        for item in self.base.items():
            if not stat.S_ISDIR(item.mode) and self._is_there(item.path):
                self._skipped += item.size
                continue
            yield item
            yield from (_Wanted(item.path, number, stored) for number, stored in enumerate(item.stored))

    def _work(self, job: Item | _Wanted) -> Item | Piece:
        if isinstance(job, Item):
            return job
        length, block_hash, key = job.stored
        chunk = Chunk(job.number * CHUNK_SIZE, length, BlockRef(block_hash, key))
        return Piece(job.number, BytesSource(fetch(self._store, job.path, chunk)))
