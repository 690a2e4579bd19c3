"""Blocks to store: made up, since stores know nothing of what is in them."""

from __future__ import annotations

import hashlib
import random

from flistfs.format.base import Block, Codec
from flistfs.format.codecs import Generation1


def block(size: int = 100, seed: int = 0) -> Block:
    """A block of `size` stored bytes in two parts, named like one of generation 1."""
    value = random.Random(f"{size} {seed}").randbytes(size)
    # Only sizes above 16 bytes, the header's, are those of blocks; stores take any.
    named = value[16:] or value
    return Block(hashlib.sha256(named).hexdigest().encode(), b"key", (value[:16], value[16:]))


class Made:
    """Blocks as one codec names them."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.absent = codec.encode(b"never stored").hash

    def block(self, size: int = 100, seed: int = 0) -> Block:
        named = block(size, seed)
        return named if isinstance(self.codec, Generation1) else self.named(named.parts)

    def blocks(self, count: int, size: int = 100) -> list[Block]:
        return [self.block(size, seed) for seed in range(count)]

    def named(self, parts: tuple[bytes, ...]) -> Block:
        """A block of these parts with a hash, which is theirs in generation 2."""
        value = b"".join(parts)
        if isinstance(self.codec, Generation1):
            return Block(hashlib.sha256(value).hexdigest().encode(), b"key", parts)
        return Block(hashlib.blake2b(value, digest_size=16).digest(), b"key", parts)


def blocks(count: int, size: int = 100) -> list[Block]:
    return [block(size, seed) for seed in range(count)]


def value_of(block: Block) -> bytes:
    return b"".join(block.parts)
