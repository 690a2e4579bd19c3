"""Compressed files: all their streams, to the end, or a clear error."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import zlib
from collections.abc import Callable

import pytest

from flistfs.errors import FormatError
from flistfs.sources.decompress import Decompressed

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}
SKIPPABLE = b"\x5e\x2a\x4d\x18\x05\0\0\0abcde"

# More than any buffer, and what comes out of little.
DATA = os.urandom(300_000) + bytes(3_000_000) + b"end"


class OneByOne(io.RawIOBase):
    """A pipe that gives a byte at a time at first."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        return self._data.readinto(memoryview(buffer)[: 1 if self._data.tell() < 20 else None])


def decompressed(data: bytes) -> tuple[bytes, bool]:
    stream = Decompressed(OneByOne(data))
    return stream.read(), stream.is_complete


every_compression = pytest.mark.parametrize("compress", COMPRESSORS.values(), ids=list(COMPRESSORS))


@every_compression
def test_one_stream_shows_that_it_is_complete(compress: Callable[[bytes], bytes]) -> None:
    assert decompressed(compress(DATA)) == (DATA, True)


def test_a_plain_file_does_not() -> None:
    assert decompressed(DATA) == (DATA, False)
    assert decompressed(b"BZh is how this name begins") == (b"BZh is how this name begins", False)
    assert decompressed(b"") == (b"", False)


@every_compression
def test_several_streams_are_read_but_one_may_be_missing(compress: Callable[[bytes], bytes]) -> None:
    assert decompressed(compress(DATA) + compress(b"more")) == (DATA + b"more", False)
    assert decompressed(compress(b"") + compress(DATA)) == (DATA, True)


@every_compression
@pytest.mark.parametrize("length", [4, 8, 512, 1 << 20])
def test_zeros_behind_a_stream_are_padding(compress: Callable[[bytes], bytes], length: int) -> None:
    padded = compress(b"content") + bytes(length)
    assert decompressed(padded) == (b"content", True)
    assert decompressed(padded + compress(b"more")) == (b"contentmore", False)


def test_skippable_frames_of_zstd_hold_nothing() -> None:
    frame = zstd.compress(DATA)
    assert decompressed(SKIPPABLE + frame + SKIPPABLE) == (DATA, True)
    assert decompressed(SKIPPABLE + frame + SKIPPABLE + frame) == (DATA * 2, False)


@every_compression
def test_a_file_that_is_cut_off(compress: Callable[[bytes], bytes]) -> None:
    whole = compress(DATA)
    for missing in (1, 3, 8, len(whole) // 2, len(whole) - 11):
        with pytest.raises(FormatError, match="truncated"):
            decompressed(whole[:-missing])
        with pytest.raises(FormatError, match="truncated"):
            decompressed(whole + whole[:-missing])


@every_compression
def test_a_file_that_is_damaged(compress: Callable[[bytes], bytes]) -> None:
    whole = compress(b"content" * 10_000 + os.urandom(1000))
    damaged = whole[:-300] + bytes([whole[-300] ^ 1]) + whole[-299:]
    if compress is zstd.compress:
        damaged = whole[:12] + bytes(20) + whole[32:]  # it has no checksum unless it is asked for
    with pytest.raises(FormatError, match="damaged"):
        decompressed(damaged)


@every_compression
def test_something_else_behind_a_stream(compress: Callable[[bytes], bytes]) -> None:
    with pytest.raises(FormatError, match="damaged"):
        decompressed(compress(b"content") + b"something else " * 10)


def test_a_checksum_of_gzip_that_is_wrong() -> None:
    whole = gzip.compress(b"content")
    with pytest.raises(FormatError, match="incorrect data check"):
        decompressed(whole[:-5] + b"\xff" + whole[-4:])


def test_a_dictionary_of_xz_that_takes_too_much_memory() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 30, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}]
    small = lzma.compress(b"x", filters=[{**filters[0], "dict_size": 1 << 20}])
    assert decompressed(small) == (b"x", True)
    # The size of the dictionary is a byte of the header of the block (37: 1.5 GiB), which has a CRC.
    header = bytearray(small[12:20])
    header[4] = 37
    large = small[:12] + bytes(header) + zlib.crc32(header).to_bytes(4, "little") + small[24:]
    with pytest.raises(FormatError, match="Memory usage limit"):
        decompressed(large)
