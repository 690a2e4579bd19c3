"""A file of an flist as a seekable Python file object, whose blocks are fetched and checked on reading."""

from __future__ import annotations

import errno
import io
import os
from typing import TYPE_CHECKING

from flistfs.reading.content import ahead, fetch, pieces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import WriteableBuffer

    from flistfs.reading.content import Piece
    from flistfs.stores import Store
    from flistfs.tree.node import Node


class Content(io.RawIOBase):
    """The content of a file, unbuffered; the last chunk read is cached."""

    def __init__(self, store: Store, node: Node) -> None:
        """Read from `store`, which must stay open.

        Raises:
            FormatError: it is not a file, or its entry is invalid.
        """
        self._store = store
        self._path = node.path
        self._size = node.size
        self._pieces: Sequence[Piece] = list(pieces(node, store.codec))
        self._position = 0
        self._kept: tuple[int, bytes] | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        self._check_open()
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move the position, which may lie beyond the end; reads there return nothing."""
        self._check_open()
        starts = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}
        if whence not in starts:
            raise ValueError(f"whence is {whence}; it must be 0, 1 or 2")
        position = starts[whence] + offset
        if position < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as for a regular file
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Read up to the end of a chunk.

        Raises:
            BlockMissingError: the store lacks the block.
            BlockCorruptError: its bytes do not match the flist.
            StoreError: the store cannot be reached.
        """
        self._check_open()
        if self._position >= self._size:
            return 0
        index = self._index()
        offset = self._position - self._pieces[index].offset
        target = memoryview(buffer).cast("B")
        part = memoryview(self._chunk(index))[offset : offset + len(target)]
        target[: len(part)] = part
        self._position += len(part)
        return len(part)

    def readall(self) -> bytes:
        """Read the rest, several blocks at a time. Raises as `readinto` does."""
        self._check_open()
        if self._position >= self._size:
            return b""
        index = self._index()
        offset = self._position - self._pieces[index].offset
        chunks = ahead(lambda piece: fetch(self._store, self._path, piece), self._pieces[index:])
        data = b"".join(chunk[offset:] if number == 0 else chunk for number, chunk in enumerate(chunks))
        self._position = self._size
        return data

    def close(self) -> None:
        """Drop the cached chunk; the store stays open."""
        self._kept = None
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("the file is closed")

    def _index(self) -> int:
        """Return the index of the chunk at the position: all but the last have the same length."""
        return self._position // self._pieces[0].length

    def _chunk(self, index: int) -> bytes:
        if self._kept is None or self._kept[0] != index:
            self._kept = index, fetch(self._store, self._path, self._pieces[index])
        return self._kept[1]
