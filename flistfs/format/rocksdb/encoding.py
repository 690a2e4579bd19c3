"""RocksDB's encoding of integers, strings and checksums, common to its tables and its manifest.

All of it is LevelDB's: varints are little-endian base 128, strings are prefixed with their length as a
varint, checksums are CRC32c, stored masked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import google_crc32c

from flistfs.errors import FormatError

_MASK_DELTA: Final = 0xA282EAD8  # LevelDB's: checksums of data that contains checksums are weak unless masked
_MAX_VARINT_SIZE: Final = 10  # bytes of 64 bits, seven at a time


def crc32c(*parts: bytes) -> int:
    """Return the CRC32c of the concatenated `parts`."""
    crc = 0
    for part in parts:
        crc = google_crc32c.extend(crc, part)
    return crc


def masked_crc32c(*parts: bytes) -> bytes:
    """Return the CRC32c of the concatenated `parts` as stored: masked, four bytes, little-endian."""
    crc = crc32c(*parts)
    masked = ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF
    return masked.to_bytes(4, "little")


def varint(value: int) -> bytes:
    """Return a non-negative `value` as a varint."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def length_prefixed(value: bytes) -> bytes:
    """Return `value` prefixed with its length as a varint."""
    return varint(len(value)) + value


@dataclass(slots=True)
class Cursor:
    """Reads fields from `data` one after the other; raises FormatError for malformed ones."""

    data: bytes
    position: int = 0

    @property
    def at_end(self) -> bool:
        """Whether all of the data has been read."""
        return self.position >= len(self.data)

    def take(self, size: int) -> bytes:
        """Return the next `size` bytes."""
        end = self.position + size
        if end > len(self.data):
            raise FormatError(f"RocksDB data ends early: {size} bytes expected at {self.position}")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def varint(self) -> int:
        """Return the next varint."""
        data, start = self.data, self.position
        value = 0
        for index, byte in enumerate(data[start : start + _MAX_VARINT_SIZE]):
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80:
                self.position = start + index + 1
                return value
        raise FormatError(f"RocksDB data is malformed: an unterminated number at {start}")

    def string(self) -> bytes:
        """Return the next length-prefixed string."""
        return self.take(self.varint())
