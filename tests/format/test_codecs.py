"""Blocks: the reference library's vectors, every kind of damage, and what goes to a socket."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import cramjam
import pytest
import xxtea
from hypothesis import given
from hypothesis import strategies as st

from flistfs.errors import BlockCorruptError
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef
from tests.format.conftest import Vector
from tests.generation1 import chunk_key, decode_block, encode_block

# cramjam's snappy makes other bytes of these than the reference library's libsnappy 1.1.9 did.
COMPRESSED_DIFFERENTLY = {"lines-4095-0", "lines-4096-0"}


def _seal(packed: bytes) -> tuple[bytes, BlockRef]:
    """A block with a sound hash around any "packed" bytes, as an enemy would make it."""
    key = hashlib.sha256(b"any").hexdigest().encode()
    secret = xxtea.encrypt(packed, key[:16], padding=xxtea.LENGTH_WORD_SUFFIX)
    return bytes(16) + secret, BlockRef(hashlib.sha256(secret).hexdigest().encode(), key)


def test_vectors_encode_as_the_reference_library_did(vectors: list[Vector]) -> None:
    different = set()
    for vector in vectors:
        block = encode_block(vector.chunk)
        assert block.key == chunk_key(vector.chunk) == vector.ref.key, vector.name
        if block.hash != vector.ref.hash:
            different.add(vector.name)
        elif vector.stored is not None:
            # Its header may have a checksum without its leading zeros.
            assert block.stored[16:] == vector.stored[16:], vector.name
    assert len(vectors) == 100
    assert different <= COMPRESSED_DIFFERENTLY


def test_vectors_decode(vectors: list[Vector]) -> None:
    stored = [vector for vector in vectors if vector.stored is not None]
    assert {vector.name for vector in stored} >= COMPRESSED_DIFFERENTLY
    for vector in stored:
        assert vector.stored is not None
        assert decode_block(vector.stored, vector.ref) == vector.chunk, vector.name
        assert decode_block(memoryview(vector.stored), vector.ref) == vector.chunk, vector.name
    for vector in vectors:
        block = encode_block(memoryview(vector.chunk))
        assert decode_block(block.stored, block.ref) == vector.chunk, vector.name


@given(chunk=st.binary(max_size=5000))
def test_any_chunk_survives(chunk: bytes) -> None:
    block = encode_block(chunk)
    assert decode_block(block.stored, block.ref) == chunk
    assert block.size == len(block.stored)
    assert block == encode_block(chunk, key=chunk_key(chunk))


def test_header_and_secret_are_separate_buffers() -> None:
    header, secret = encode_block(b"hello").parts
    assert header[:8] == b"10000000"
    assert len(header) == 16
    assert hashlib.sha256(secret).hexdigest().encode() == encode_block(b"hello").hash


def test_checksum_in_the_header_has_its_leading_zeros() -> None:
    short = 0
    for number in range(100):
        header, secret = encode_block(b"%d" % number).parts
        assert header == b"10000000" + zlib.crc32(secret).to_bytes(4, "big").hex().encode()
        short += zlib.crc32(secret) < 1 << 28
    assert short > 0


def test_chunk_of_more_than_512_kib_is_refused() -> None:
    assert decode_block((block := encode_block(bytes(CHUNK_SIZE))).stored, block.ref) == bytes(CHUNK_SIZE)
    with pytest.raises(ValueError, match="524288"):
        encode_block(bytes(CHUNK_SIZE + 1))


def test_every_byte_after_the_header_is_checked() -> None:
    block = encode_block(b"a small chunk, " * 5)
    for position in range(16, block.size):
        damaged = bytearray(block.stored)
        damaged[position] ^= 0x10
        with pytest.raises(
            BlockCorruptError, match=f"{block.hash.decode()} .*: its bytes do not match that hash"
        ):
            decode_block(bytes(damaged), block.ref)


def test_header_is_never_checked() -> None:
    block = encode_block(b"content")
    assert decode_block(b"?" * 16 + block.parts[1], block.ref) == b"content"


@given(data=st.data())
def test_damage_to_large_blocks_is_found(data: st.DataObject) -> None:
    chunk = hashlib.shake_128(b"seed").digest(20_000)
    block = encode_block(chunk)
    position = data.draw(st.integers(16, block.size - 1))
    bit = data.draw(st.integers(0, 7))
    damaged = bytearray(block.stored)
    damaged[position] ^= 1 << bit
    with pytest.raises(BlockCorruptError, match=block.hash.decode()):
        decode_block(bytes(damaged), block.ref)
    with pytest.raises(BlockCorruptError, match=block.hash.decode()):
        decode_block(block.stored[:position], block.ref)


@given(stored=st.binary(max_size=200), digest=st.binary(max_size=70), key=st.binary(max_size=70))
def test_random_bytes_are_refused(stored: bytes, digest: bytes, key: bytes) -> None:
    with pytest.raises(BlockCorruptError):
        decode_block(stored, BlockRef(digest, key))


@given(packed=st.binary(max_size=100))
def test_what_does_not_unpack_is_refused_though_its_hash_is_right(packed: bytes) -> None:
    stored, ref = _seal(packed)
    with pytest.raises(BlockCorruptError, match=ref.hash.decode()):
        decode_block(stored, ref)


@given(secret=st.binary(max_size=40), key=st.binary(max_size=70))
def test_what_does_not_decrypt_is_refused_though_its_hash_is_right(secret: bytes, key: bytes) -> None:
    ref = BlockRef(hashlib.sha256(secret).hexdigest().encode(), key)
    with pytest.raises(BlockCorruptError, match=ref.hash.decode()):
        decode_block(bytes(16) + secret, ref)


@pytest.mark.parametrize("key", [b"", b"short", b"0" * 64])
def test_wrong_key_is_refused(key: bytes) -> None:
    block = encode_block(b"content")
    with pytest.raises(BlockCorruptError, match=block.hash.decode()):
        decode_block(block.stored, replace(block.ref, key=key))


def test_right_cipher_key_but_wrong_chunk_hash_is_refused() -> None:
    block = encode_block(b"content")
    with pytest.raises(BlockCorruptError, match="does not match its key"):
        decode_block(block.stored, replace(block.ref, key=block.key[:16] + b"0" * 48))


@pytest.mark.parametrize("size", [CHUNK_SIZE + 1, 2**32 - 1])
def test_promise_of_more_than_a_chunk_is_refused_before_unpacking(size: int) -> None:
    header = bytearray()
    rest = size
    while rest >= 0x80:
        header.append(rest & 0x7F | 0x80)
        rest >>= 7
    header.append(rest)
    assert cramjam.snappy.decompress_raw_len(bytes(header)) == size
    stored, ref = _seal(bytes(header))
    with pytest.raises(BlockCorruptError, match=f"unpack to {size} bytes"):
        decode_block(stored, ref)


def test_secret_longer_than_any_chunk_makes_is_refused() -> None:
    secret = bytes(700_000)
    ref = BlockRef(hashlib.sha256(secret).hexdigest().encode(), b"0" * 64)
    with pytest.raises(BlockCorruptError, match="more than any chunk encodes to"):
        decode_block(bytes(16) + secret, ref)
    # The worst that snappy makes of a chunk is far below that.
    noise = hashlib.shake_128(b"noise").digest(CHUNK_SIZE)
    assert decode_block((block := encode_block(noise)).stored, block.ref) == noise


NOISE = hashlib.shake_128(b"noise").digest(CHUNK_SIZE)
SECRET = xxtea.encrypt(NOISE, b"k" * 16, padding=xxtea.LENGTH_WORD_SUFFIX)
PACKED = bytes(cramjam.snappy.compress_raw(NOISE))
STEPS: dict[str, Callable[[], object]] = {
    "hash": lambda: hashlib.sha256(NOISE),
    "checksum": lambda: zlib.crc32(NOISE),
    "compress": lambda: cramjam.snappy.compress_raw(NOISE),
    "unpack": lambda: cramjam.snappy.decompress_raw(PACKED),
    "encrypt": lambda: xxtea.encrypt(NOISE, b"k" * 16, padding=xxtea.LENGTH_WORD_SUFFIX),
    "decrypt": lambda: xxtea.decrypt(SECRET, b"k" * 16, padding=xxtea.LENGTH_WORD_SUFFIX),
    "a whole block": lambda: encode_block(NOISE),
}


@pytest.fixture
def patient_interpreter() -> Iterator[None]:
    """No thread gives way to another by itself."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("step", STEPS)
def test_other_threads_run_meanwhile(step: str, patient_interpreter: None) -> None:
    stop = threading.Event()
    was_stopped = []

    def work() -> None:
        end = time.thread_time() + 10
        while not stop.is_set() and time.thread_time() < end:
            STEPS[step]()
        was_stopped.append(stop.is_set())

    worker = threading.Thread(target=work)
    worker.start()
    # Only C code that releases the GIL lets this thread have its turns before the worker ends by itself.
    for _ in range(20):
        time.sleep(0)
    stop.set()
    worker.join()
    assert was_stopped == [True]
