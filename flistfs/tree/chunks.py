"""Chunks of files, and references to their blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

CHUNK_SIZE: Final = 512 * 1024
"""Plain bytes per chunk; a file's last chunk may be shorter."""


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A reference to a chunk's block: its name in the store, and its decryption key. Both are opaque."""

    hash: bytes
    key: bytes


def pieces(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Split a range of a file at chunk boundaries: (index, start in the chunk, end in the chunk)."""
    end = offset + length
    while offset < end:
        index, start = divmod(offset, CHUNK_SIZE)
        stop = min(CHUNK_SIZE, start + end - offset)
        yield index, start, stop
        offset += stop - start


def chunk_length(size: int, index: int) -> int:
    """Return the length of chunk `index` of a file of `size` bytes."""
    return max(0, min(CHUNK_SIZE, size - index * CHUNK_SIZE))


class Stored(NamedTuple):
    """A chunk that the store holds: its plain length in bytes, and its block."""

    length: int
    hash: bytes
    key: bytes
