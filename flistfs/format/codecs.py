"""Convert chunks to blocks and back.

A chunk is compressed with snappy, encrypted with XXTEA and stored under the hash of the result. The key is
the chunk's own hash, so equal chunks make equal blocks. Snappy libraries differ in their output for a few
inputs: then equal chunks have different hashes, but always the same key, and everything decodes.

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

# XXTEA takes a key of 128 bits: in generation 1 the first 16 of the key's hex digits.
_CIPHER_KEY_SIZE: Final = 16

# The header before the ciphertext: the version, and the CRC-32 of the ciphertext as hex digits.
_HEADER_SIZE: Final = 16

_DIGEST: Final = re.compile(rb"[0-9a-f]{64}")

# The largest output of snappy for a chunk (32 + n + n/6, from its own sources), and the padding.
_MAX_CIPHERTEXT_SIZE: Final = 32 + CHUNK_SIZE + CHUNK_SIZE // 6 + 8


class Generation1:
    """The codec of generation 1: snappy, XXTEA, SHA-256 in hex; a 16-byte header with a CRC-32."""

    no_block = b"0" * 64

    def key(self, chunk: bytes | memoryview) -> bytes:
        """Return the SHA-256 of the plain bytes, as hex digits."""
        return _sha256(chunk)

    def encode(self, chunk: bytes | memoryview, key: bytes | None = None) -> Block:
        """Return the block of a chunk; see `Codec`."""
        import cramjam  # noqa: PLC0415  listing an flist needs neither, and loading them takes 5 ms
        import xxtea  # noqa: PLC0415

        if len(chunk) > CHUNK_SIZE:
            raise ValueError(f"a chunk has at most {CHUNK_SIZE} bytes, not {len(chunk)}")
        if key is None:
            key = _sha256(chunk)
        packed = memoryview(cramjam.snappy.compress_raw(chunk))
        # Zeros to a multiple of four, then the length as a little-endian 32-bit word.
        padding = xxtea.LENGTH_WORD_SUFFIX
        ciphertext: bytes = xxtea.encrypt(packed, key[:_CIPHER_KEY_SIZE], padding=padding)
        return Block(_sha256(ciphertext), key, (b"10000000%08x" % zlib.crc32(ciphertext), ciphertext))

    def decode(self, stored: bytes | memoryview, ref: BlockRef) -> bytes:
        """Return the chunk of a block; see `Codec`.

        The header is skipped unread, as by all readers: old writers dropped leading zeros of its checksum.
        The hash of the ciphertext and the key of the chunk are checked instead.
        """
        ciphertext = memoryview(stored)[_HEADER_SIZE:]
        if len(ciphertext) > _MAX_CIPHERTEXT_SIZE:
            raise self._corrupt(ref, f"{len(ciphertext)} bytes are more than any chunk encodes to")
        if _sha256(ciphertext) != ref.hash:
            raise self._corrupt(ref, "its bytes do not match that hash")
        chunk = self._decrypt(ciphertext, ref)
        if _sha256(chunk) != ref.key:
            raise self._corrupt(ref, "its content does not match its key")
        return chunk

    def has_hash(self, stored: bytes | memoryview, block_hash: bytes) -> bool:
        """Return whether these are the stored bytes of the block with this hash."""
        return _sha256(memoryview(stored)[_HEADER_SIZE:]) == block_hash

    def is_ref(self, ref: BlockRef) -> bool:
        """Return whether hash and key are 64 hex digits each."""
        return bool(_DIGEST.fullmatch(ref.hash) and _DIGEST.fullmatch(ref.key))

    def show(self, block_hash: bytes) -> str:
        """Return the hex digits of a hash."""
        return block_hash.decode("ascii", "backslashreplace")

    def compact(self, name: bytes) -> bytes:
        """Return the binary digest, half as long as its digits; an invalid name is returned unchanged."""
        try:
            return bytes.fromhex(name.decode())
        except ValueError:
            return name

    def _decrypt(self, ciphertext: memoryview, ref: BlockRef) -> bytes:
        import cramjam  # noqa: PLC0415  see `encode`
        import xxtea  # noqa: PLC0415

        try:
            packed = xxtea.decrypt(ciphertext, ref.key[:_CIPHER_KEY_SIZE], padding=xxtea.LENGTH_WORD_SUFFIX)
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
