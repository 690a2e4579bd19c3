"""Chunks to blocks and back.

A chunk is compressed with snappy, encrypted with XXTEA and stored under the hash of the result. The key is
the chunk's own hash, so that equal chunks make equal blocks. Snappy libraries differ in what they make of a
few inputs: then equal chunks have different hashes but always the same key, and everything decodes.

All calls that touch a chunk's bytes (hashlib, cramjam, xxtea, zlib.crc32) release the GIL: encoding runs in
as many threads as there are cores.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import cramjam
import xxtea

from flistfs.errors import BlockCorruptError
from flistfs.format.generation import Generation
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef

# XXTEA takes 128 bits of key. In generation 1 those are the first 16 of the key's hex digits.
_CIPHER_KEY_SIZE: Final = 16

# Zeros to a multiple of four, then the length as a little-endian 32-bit word.
_PADDING: Final = xxtea.LENGTH_WORD_SUFFIX

# The most that snappy makes of a chunk (32 + n + n/6, from its own sources), and the padding.
_MAX_SECRET_SIZE: Final = 32 + CHUNK_SIZE + CHUNK_SIZE // 6 + 8


@dataclass(frozen=True, slots=True)
class Block:
    """A chunk as a store holds it.

    `parts` are the buffers that make up the stored bytes, in order. They are kept apart so that they can go
    to a socket as they are.
    """

    hash: bytes
    key: bytes
    parts: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Stored size in bytes."""
        return sum(map(len, self.parts))

    @property
    def stored(self) -> bytes:
        """The stored bytes in one piece: a copy."""
        return b"".join(self.parts)

    @property
    def ref(self) -> BlockRef:
        """What a file's record says of this block."""
        return BlockRef(self.hash, self.key)


@dataclass(frozen=True, slots=True)
class _Scheme:
    """Where generations differ: the digest of chunks and secrets, and what comes before the secret."""

    digest: Callable[[bytes | memoryview], bytes]
    header_size: int
    header: Callable[[bytes], bytes]


def chunk_key(chunk: bytes | memoryview, generation: Generation = Generation.ONE) -> bytes:
    """Return the key of `chunk`: the hash of its plain bytes, by which equal chunks are known."""
    return _SCHEMES[generation].digest(chunk)


def encode_block(
    chunk: bytes | memoryview, generation: Generation = Generation.ONE, key: bytes | None = None
) -> Block:
    """Return the block for `chunk`, which has at most `CHUNK_SIZE` bytes.

    `key` saves a hash where the caller already has `chunk_key(chunk)`; it is not checked.

    Raises:
        ValueError: the chunk is too long.
    """
    if len(chunk) > CHUNK_SIZE:
        raise ValueError(f"a chunk has at most {CHUNK_SIZE} bytes, not {len(chunk)}")
    scheme = _SCHEMES[generation]
    if key is None:
        key = scheme.digest(chunk)
    packed = memoryview(cramjam.snappy.compress_raw(chunk))
    secret: bytes = xxtea.encrypt(packed, key[:_CIPHER_KEY_SIZE], padding=_PADDING)
    return Block(scheme.digest(secret), key, (scheme.header(secret), secret))


def decode_block(stored: bytes | memoryview, ref: BlockRef, generation: Generation = Generation.ONE) -> bytes:
    """Return the chunk of the block `stored`, which `ref` names.

    The header is skipped unread, as all readers do: old writers left out leading zeros of its checksum. The
    hash of the secret and the key of the chunk are checked instead. No more than a chunk is ever unpacked.

    Raises:
        BlockCorruptError: the bytes are not those of `ref.hash`, or `ref.key` is not their key.
    """
    scheme = _SCHEMES[generation]
    secret = memoryview(stored)[scheme.header_size :]
    if len(secret) > _MAX_SECRET_SIZE:
        raise _corrupt(ref, f"{len(secret)} bytes are more than any chunk makes")
    if scheme.digest(secret) != ref.hash:
        raise _corrupt(ref, "its bytes do not have that hash")
    chunk = _decrypt(secret, ref)
    if scheme.digest(chunk) != ref.key:
        raise _corrupt(ref, "its content does not have the hash that its key says")
    return chunk


def has_hash(stored: bytes | memoryview, block_hash: bytes, generation: Generation = Generation.ONE) -> bool:
    """Say whether these are the stored bytes of the block of that name; no key is needed for it."""
    scheme = _SCHEMES[generation]
    return scheme.digest(memoryview(stored)[scheme.header_size :]) == block_hash


def _decrypt(secret: memoryview, ref: BlockRef) -> bytes:
    try:
        packed = xxtea.decrypt(secret, ref.key[:_CIPHER_KEY_SIZE], padding=_PADDING)
        promised = cramjam.snappy.decompress_raw_len(packed)
        if promised > CHUNK_SIZE:
            raise _corrupt(ref, f"it claims to unpack to {promised} bytes")
        return bytes(cramjam.snappy.decompress_raw(packed))
    except (ValueError, cramjam.DecompressionError) as error:
        raise _corrupt(ref, f"its key does not open it ({error})") from error


def _corrupt(ref: BlockRef, why: str) -> BlockCorruptError:
    name = ref.hash.decode("ascii", "backslashreplace")
    return BlockCorruptError(f"block {name} is corrupt: {why}")


def _sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


def _crc_header(secret: bytes) -> bytes:
    return b"10000000%08x" % zlib.crc32(secret)


_SCHEMES: Final[Mapping[Generation, _Scheme]] = {
    Generation.ONE: _Scheme(digest=_sha256, header_size=16, header=_crc_header),
}
