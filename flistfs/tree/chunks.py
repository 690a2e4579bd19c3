"""Chunks of files, and where the blocks that hold them are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

CHUNK_SIZE: Final = 512 * 1024
"""Plain bytes in a chunk; a file's last chunk may be shorter."""


@dataclass(frozen=True, slots=True)
class BlockRef:
    """Where a chunk is: the block's name in the store, and the key that decrypts it. Both are opaque."""

    hash: bytes
    key: bytes


def pieces(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Cut a range of a file at the chunks' borders: (index, start in the chunk, end in the chunk)."""
    end = offset + length
    while offset < end:
        index, start = divmod(offset, CHUNK_SIZE)
        stop = min(CHUNK_SIZE, start + end - offset)
        yield index, start, stop
        offset += stop - start


def chunk_length(size: int, index: int) -> int:
    """How many bytes of a file of `size` bytes lie in its chunk `index`."""
    return max(0, min(CHUNK_SIZE, size - index * CHUNK_SIZE))


class Stored(NamedTuple):
    """A chunk that the store holds: its plain length in bytes, and the block it became."""

    length: int
    hash: bytes
    key: bytes
