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
from typing import Final

from flistfs.errors import BlockCorruptError
from flistfs.format.base import Block
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef

# XXTEA takes 128 bits of key. In generation 1 those are the first 16 of the key's hex digits.
_CIPHER_KEY_SIZE: Final = 16

# What comes before the secret: the version, and the CRC-32 of the secret as hex digits.
_HEADER_SIZE: Final = 16

_DIGEST: Final = re.compile(rb"[0-9a-f]{64}")

# The most that snappy makes of a chunk (32 + n + n/6, from its own sources), and the padding.
_MAX_SECRET_SIZE: Final = 32 + CHUNK_SIZE + CHUNK_SIZE // 6 + 8


class Generation1:
    """The codec of generation 1: snappy, XXTEA, SHA-256 in hex; a header of 16 bytes with a CRC-32."""

    no_block = b"0" * 64

    def key(self, chunk: bytes | memoryview) -> bytes:
        """Return the SHA-256 of the plain bytes, as hex digits."""
        return _sha256(chunk)

    def encode(self, chunk: bytes | memoryview, key: bytes | None = None) -> Block:
        """Return the block of a chunk; see `Codec`."""
        import cramjam  # noqa: PLC0415  listing an flist needs neither, and they take 5 ms to load
        import xxtea  # noqa: PLC0415

        if len(chunk) > CHUNK_SIZE:
            raise ValueError(f"a chunk has at most {CHUNK_SIZE} bytes, not {len(chunk)}")
        if key is None:
            key = _sha256(chunk)
        packed = memoryview(cramjam.snappy.compress_raw(chunk))
        # Zeros to a multiple of four, then the length as a little-endian 32-bit word.
        padding = xxtea.LENGTH_WORD_SUFFIX
        secret: bytes = xxtea.encrypt(packed, key[:_CIPHER_KEY_SIZE], padding=padding)
        return Block(_sha256(secret), key, (b"10000000%08x" % zlib.crc32(secret), secret))

    def decode(self, stored: bytes | memoryview, ref: BlockRef) -> bytes:
        """Return the chunk of a block; see `Codec`.

        The header is skipped unread, as all readers do: old writers left out leading zeros of its checksum.
        The hash of the secret and the key of the chunk are checked instead.
        """
        secret = memoryview(stored)[_HEADER_SIZE:]
        if len(secret) > _MAX_SECRET_SIZE:
            raise self._corrupt(ref, f"{len(secret)} bytes are more than any chunk makes")
        if _sha256(secret) != ref.hash:
            raise self._corrupt(ref, "its bytes do not have that hash")
        chunk = self._decrypt(secret, ref)
        if _sha256(chunk) != ref.key:
            raise self._corrupt(ref, "its content does not have the hash that its key says")
        return chunk

    def has_hash(self, stored: bytes | memoryview, block_hash: bytes) -> bool:
        """Return whether these are the stored bytes of the block of that name."""
        return _sha256(memoryview(stored)[_HEADER_SIZE:]) == block_hash

    def is_ref(self, ref: BlockRef) -> bool:
        """Return whether hash and key are 64 hex digits each."""
        return bool(_DIGEST.fullmatch(ref.hash) and _DIGEST.fullmatch(ref.key))

    def show(self, block_hash: bytes) -> str:
        """Return the hex digits, which a hash is made of."""
        return block_hash.decode("ascii", "backslashreplace")

    def compact(self, name: bytes) -> bytes:
        """Return the digest itself, half as long as its digits; what is invalid stays as it is."""
        try:
            return bytes.fromhex(name.decode())
        except ValueError:
            return name

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


def _sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
