"""Blocks to store: made up, since stores know nothing of what is in them."""

from __future__ import annotations

import hashlib
import random

from flistfs.format.base import Block


def block(size: int = 100, seed: int = 0) -> Block:
    """A block of `size` stored bytes in two parts, named like one of generation 1."""
    value = random.Random(f"{size} {seed}").randbytes(size)
    # Only sizes above 16 bytes, the header's, are those of blocks; stores take any.
    named = value[16:] or value
    return Block(hashlib.sha256(named).hexdigest().encode(), b"key", (value[:16], value[16:]))


def blocks(count: int, size: int = 100) -> list[Block]:
    return [block(size, seed) for seed in range(count)]


def value_of(block: Block) -> bytes:
    return b"".join(block.parts)
