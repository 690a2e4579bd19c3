"""Blocks of generation 2: vectors of other programs, and every kind of damage."""

from __future__ import annotations

import hashlib
import json

import cramjam
import pytest
import xxtea
from hypothesis import given
from hypothesis import strategies as st

from flistfs.errors import BlockCorruptError
from flistfs.format.base import Codec
from flistfs.format.codecs import Generation1, Generation2
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef
from tests.format.conftest import Vector
from tests.format.test_codecs import COMPRESSED_DIFFERENTLY
from tests.needs import needs_data

CODEC = Generation2()
_: Codec = CODEC


def sealed(packed: bytes) -> tuple[bytes, BlockRef]:
    """A block with a sound hash around any "packed" bytes, as an enemy would make it."""
    key = bytes(range(16))
    secret = xxtea.encrypt(packed, key, padding=xxtea.LENGTH_WORD_SUFFIX)
    return secret, BlockRef(hashlib.blake2b(secret, digest_size=16).digest(), key)


def test_vectors_encode_and_decode(vectors2: list[Vector]) -> None:
    different = set()
    for vector in vectors2:
        block = CODEC.encode(vector.chunk)
        assert block.key == CODEC.key(vector.chunk) == vector.ref.key, vector.name
        assert CODEC.decode(memoryview(block.stored), block.ref) == vector.chunk, vector.name
        if block.hash != vector.ref.hash:
            different.add(vector.name)
        else:
            assert hashlib.sha256(block.stored).hexdigest() == vector.stored_sha256, vector.name
    assert len(vectors2) == 100
    assert different <= COMPRESSED_DIFFERENTLY


def test_blocks_that_zflist_stored() -> None:
    data = json.loads(needs_data("vectors-gen2.json").read_text())
    assert len(data["blocks"]) > 3
    for each in data["blocks"]:
        stored = bytes.fromhex(each["stored"])
        plain = bytes(4096) if each["plain"] == "zeros 4096" else bytes.fromhex(each["plain"])
        ref = BlockRef(bytes.fromhex(each["hash"]), bytes.fromhex(each["key"]))
        assert CODEC.decode(stored, ref) == plain
        assert CODEC.encode(plain).stored == stored
    zeros = CODEC.encode(bytes(CHUNK_SIZE))
    wanted = data["zero_chunk"]
    assert (zeros.hash.hex(), zeros.key.hex(), zeros.size) == (
        wanted["hash"],
        wanted["key"],
        wanted["stored_len"],
    )


@given(chunk=st.binary(max_size=5000))
def test_any_chunk_survives(chunk: bytes) -> None:
    block = CODEC.encode(chunk)
    assert CODEC.decode(block.stored, block.ref) == chunk
    assert block == CODEC.encode(chunk, key=CODEC.key(chunk))
    assert CODEC.is_ref(block.ref)
    assert CODEC.has_hash(block.stored, block.hash)
    assert CODEC.show(block.hash) == block.hash.hex()
    assert CODEC.compact(block.hash) == block.hash


def test_the_codecs_share_no_name() -> None:
    block = Generation1().encode(b"hello")
    assert not CODEC.is_ref(block.ref)
    assert not Generation1().is_ref(CODEC.encode(b"hello").ref)
    assert not CODEC.has_hash(block.stored, block.hash)


@pytest.mark.parametrize("part", ["stored", "hash", "key"])
def test_a_damaged_bit_is_found(part: str) -> None:
    block = CODEC.encode(b"hello, hello, hello")
    for number in range(8 * len(getattr(block, part))):
        parts = {name: bytearray(getattr(block, name)) for name in ("stored", "hash", "key")}
        parts[part][number // 8] ^= 1 << number % 8
        with pytest.raises(BlockCorruptError):
            CODEC.decode(bytes(parts["stored"]), BlockRef(bytes(parts["hash"]), bytes(parts["key"])))


@pytest.mark.parametrize("length", [0, 1, 3, 4, 7, 8])
def test_a_short_block_is_refused(length: int) -> None:
    stored = bytes(length)
    ref = BlockRef(hashlib.blake2b(stored, digest_size=16).digest(), bytes(16))
    with pytest.raises(BlockCorruptError):
        CODEC.decode(stored, ref)


def test_what_unpacks_to_more_than_a_chunk_is_refused() -> None:
    for size in (CHUNK_SIZE + 1, 1 << 30):
        packed = bytes(cramjam.snappy.compress_raw(bytes(min(size, CHUNK_SIZE + 1))))
        if size == 1 << 30:
            packed = b"\x80\x80\x80\x80\x04" + packed
        with pytest.raises(BlockCorruptError, match=r"claims to unpack|cannot be decoded"):
            CODEC.decode(*sealed(packed))
    with pytest.raises(BlockCorruptError, match="more than any chunk encodes to"):
        CODEC.decode(bytes(1 << 20), BlockRef(bytes(16), bytes(16)))


def test_content_of_another_key_is_refused() -> None:
    with pytest.raises(BlockCorruptError, match="does not match its key"):
        CODEC.decode(*sealed(bytes(cramjam.snappy.compress_raw(b"other"))))
    with pytest.raises(ValueError, match="at most"):
        CODEC.encode(bytes(CHUNK_SIZE + 1))
