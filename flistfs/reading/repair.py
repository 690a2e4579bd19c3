"""Sources of valid blocks, to replace corrupt or missing ones in a store.

They come from another store, or are encoded again from files: a chunk of the right content becomes the same
block. Every block is decoded first, and checked against the hash and key in the flist.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from flistfs.format.base import Block, Codec
from flistfs.reading.content import Piece
from flistfs.stores import Store
from flistfs.stores.copying import right_copy
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Wanted:
    """A block to find, and a place in the tree with its content."""

    path: bytes
    piece: Piece

    @property
    def ref(self) -> BlockRef:
        """The block's reference in the flist."""
        return self.piece.ref


class Supply(Protocol):
    """A source of valid blocks."""

    def at_once(self, wanted: Wanted) -> Block | None:
        """Return a block if it is found quickly."""

    def search(self, wanted: Iterable[Wanted]) -> Iterator[Block]:
        """Search with more effort; yield the blocks found, each at most once."""


class StoreSupply:
    """Valid blocks from another store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def at_once(self, wanted: Wanted) -> Block | None:
        """Fetch the block.

        Raises:
            StoreError: the store cannot be reached.
        """
        return right_copy(self._store, wanted.ref)

    def search(self, wanted: Iterable[Wanted]) -> Iterator[Block]:  # noqa: ARG002  a Supply's signature
        """Yield nothing: the store was already queried."""
        yield from ()


class DirectorySupply:
    """Valid blocks from the content of files: of the same path, else of any file in a directory."""

    def __init__(self, root: Path, codec: Codec) -> None:
        self._root = os.fsencode(root)
        self._codec = codec

    def at_once(self, wanted: Wanted) -> Block | None:
        """Read the chunk at the same path and offset."""
        path = b"/".join((self._root, wanted.path))
        find = {wanted.ref.key: wanted.ref}.get
        return next(_blocks(self._codec, path, find, wanted.piece.offset, wanted.piece.length), None)

    def search(self, wanted: Iterable[Wanted]) -> Iterator[Block]:
        """Search all files."""
        missing = {each.ref.key: each.ref for each in wanted}
        for directory, _, names in os.walk(self._root):
            for name in names:
                if not missing:
                    return
                for block in _blocks(self._codec, b"/".join((directory, name)), missing.get):
                    missing.pop(block.key, None)
                    yield block


def _blocks(
    codec: Codec,
    path: bytes,
    find: Callable[[bytes], BlockRef | None],
    start: int = 0,
    length: int | None = None,
) -> Iterator[Block]:
    """Encode the wanted chunks of a file; with a length, only the one at `start`."""
    try:
        with open(os.open(path, _FLAGS), "rb", buffering=0) as file:  # noqa: PTH123  a descriptor
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return
            position = start
            while chunk := os.pread(file.fileno(), length or CHUNK_SIZE, position):
                ref = find(codec.key(chunk))
                # Compression libraries differ for a few chunks: then the block differs, and is useless here.
                if ref is not None and (block := codec.encode(chunk)).hash == ref.hash:
                    yield block
                if length is not None:
                    return
                position += len(chunk)
    except OSError:  # an unreadable file cannot serve as a source
        return
