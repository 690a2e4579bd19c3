"""Chunks to blocks and back.

A chunk is compressed with snappy, encrypted with XXTEA and stored under the hash of the result. The key is
the chunk's own hash, so that equal chunks make equal blocks. Snappy libraries differ in what they make of a
few inputs: then equal chunks have different hashes but always the same key, and everything decodes.

All calls that touch a chunk's bytes (hashlib, cramjam, xxtea, zlib.crc32) release the GIL: encoding runs in
as many threads as there are cores.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from abc import ABC, abstractmethod
from typing import ClassVar, Final

from flistfs.errors import BlockCorruptError
from flistfs.format.base import Block
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef

# Bytes of a key that XXTEA takes: 128 bits.
_CIPHER_KEY_SIZE: Final = 16

_SHA256_DIGITS: Final = re.compile(rb"[0-9a-f]{64}")

# BLAKE2b-128: bytes of a hash or key of generation 2.
_BLAKE2B_SIZE: Final = 16

# The most that snappy makes of a chunk (32 + n + n/6, from its own sources), and the padding.
_MAX_SECRET_SIZE: Final = 32 + CHUNK_SIZE + CHUNK_SIZE // 6 + 8


class _SnappyXxtea(ABC):
    """What the codecs have in common: all but the hash, and what comes before the secret."""

    no_block: ClassVar[bytes]
    _header_size: ClassVar[int]

    @staticmethod
    @abstractmethod
    def _digest(data: bytes | memoryview) -> bytes:
        """Return the hash that names blocks and makes keys."""

    @staticmethod
    @abstractmethod
    def _parts(secret: bytes) -> tuple[bytes, ...]:
        """Return what is stored of a secret."""

    @abstractmethod
    def show(self, block_hash: bytes) -> str:
        """Return a hash or key as people have it; see `Codec`."""

    def key(self, chunk: bytes | memoryview) -> bytes:
        """Return the hash of the plain bytes."""
        return self._digest(chunk)

    def encode(self, chunk: bytes | memoryview, key: bytes | None = None) -> Block:
        """Return the block of a chunk; see `Codec`."""
        import cramjam  # noqa: PLC0415  listing an flist needs neither, and they take 5 ms to load
        import xxtea  # noqa: PLC0415

        if len(chunk) > CHUNK_SIZE:
            raise ValueError(f"a chunk has at most {CHUNK_SIZE} bytes, not {len(chunk)}")
        if key is None:
            key = self._digest(chunk)
        packed = memoryview(cramjam.snappy.compress_raw(chunk))
        # Zeros to a multiple of four, then the length as a little-endian 32-bit word.
        padding = xxtea.LENGTH_WORD_SUFFIX
        secret: bytes = xxtea.encrypt(packed, key[:_CIPHER_KEY_SIZE], padding=padding)
        return Block(self._digest(secret), key, self._parts(secret))

    def decode(self, stored: bytes | memoryview, ref: BlockRef) -> bytes:
        """Return the chunk of a block; see `Codec`.

        A header is skipped unread, as all readers do: old writers left out leading zeros of its checksum. The
        hash of the secret and the key of the chunk are checked instead.
        """
        secret = memoryview(stored)[self._header_size :]
        if len(secret) > _MAX_SECRET_SIZE:
            raise self._corrupt(ref, f"{len(secret)} bytes are more than any chunk encodes to")
        if self._digest(secret) != ref.hash:
            raise self._corrupt(ref, "its bytes do not match that hash")
        chunk = self._decrypt(secret, ref)
        if self._digest(chunk) != ref.key:
            raise self._corrupt(ref, "its content does not match its key")
        return chunk

    def has_hash(self, stored: bytes | memoryview, block_hash: bytes) -> bool:
        """Return whether these are the stored bytes of the block of that name."""
        return self._digest(memoryview(stored)[self._header_size :]) == block_hash

    def _decrypt(self, secret: memoryview, ref: BlockRef) -> bytes:
        import cramjam  # noqa: PLC0415  see `encode`
        import xxtea  # noqa: PLC0415

        try:
            packed = xxtea.decrypt(secret, ref.key[:_CIPHER_KEY_SIZE], padding=xxtea.LENGTH_WORD_SUFFIX)
            promised = cramjam.snappy.decompress_raw_len(packed)
            if promised > CHUNK_SIZE:
                raise self._corrupt(ref, f"it claims to unpack to {promised} bytes")
            return bytes(cramjam.snappy.decompress_raw(packed))
        except (ValueError, cramjam.DecompressionError) as error:
            raise self._corrupt(ref, f"it cannot be decoded with its key ({error})") from error

    def _corrupt(self, ref: BlockRef, why: str) -> BlockCorruptError:
        return BlockCorruptError(f"block {self.show(ref.hash)} is corrupt: {why}")


class Generation1(_SnappyXxtea):
    """The codec of generation 1: SHA-256 in hex digits, of which XXTEA takes the first 16 of the key.

    Before the secret there is a header of 16 bytes: a version, and the CRC-32 of the secret as hex digits.
    """

    no_block = b"0" * 64
    _header_size = 16

    @staticmethod
    def _digest(data: bytes | memoryview) -> bytes:
        return hashlib.sha256(data).hexdigest().encode()

    @staticmethod
    def _parts(secret: bytes) -> tuple[bytes, ...]:
        return (b"10000000%08x" % zlib.crc32(secret), secret)

    def is_ref(self, ref: BlockRef) -> bool:
        """Return whether hash and key are 64 hex digits each."""
        return bool(_SHA256_DIGITS.fullmatch(ref.hash) and _SHA256_DIGITS.fullmatch(ref.key))

    def show(self, block_hash: bytes) -> str:
        """Return the hex digits, which a hash is made of."""
        return block_hash.decode("ascii", "backslashreplace")

    def compact(self, name: bytes) -> bytes:
        """Return the digest itself, half as long as its digits; what is invalid stays as it is."""
        try:
            return bytes.fromhex(name.decode())
        except ValueError:
            return name


class Generation2(_SnappyXxtea):
    """The codec of generation 2: BLAKE2b-128 in 16 raw bytes, which are the key of XXTEA; no header.

    121 blocks that zflist 2.3.0 had stored in a 0-db came out equal.
    """

    no_block = bytes(_BLAKE2B_SIZE)
    _header_size = 0

    @staticmethod
    def _digest(data: bytes | memoryview) -> bytes:
        return hashlib.blake2b(data, digest_size=_BLAKE2B_SIZE).digest()

    @staticmethod
    def _parts(secret: bytes) -> tuple[bytes, ...]:
        return (secret,)

    def is_ref(self, ref: BlockRef) -> bool:
        """Return whether hash and key are 16 bytes each."""
        return len(ref.hash) == len(ref.key) == _BLAKE2B_SIZE

    def show(self, block_hash: bytes) -> str:
        """Return the bytes in hexadecimal."""
        return block_hash.hex()

    def compact(self, name: bytes) -> bytes:
        """Return the name as it is."""
        return name
