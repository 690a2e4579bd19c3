"""Read a file that may be compressed, from beginning to end: gzip, bzip2, xz, zstd, or uncompressed.

Python's own file objects treat unreadable data after a first stream as the end of the file, reject the
padding of xz, and do not report whether the file was complete.
"""

from __future__ import annotations

import bz2
import io
import lzma
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from flistfs.errors import FormatError

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    from backports.zstd import ZstdDecompressor, ZstdError

_READ_SIZE: Final = 128 << 10
_BUFFER_SIZE: Final = 256 << 10

# The memory limit of xz in bytes, for the dictionary and all else: `xz -9` needs 65 MiB. For zstd the largest
# dictionary is 128 MiB, the limit of the library, and of the command without --long=28 or more.
_XZ_MEMORY: Final = 256 << 20

_DAMAGE: Final = (zlib.error, lzma.LZMAError, ZstdError, OSError, EOFError, ValueError)


class Raw(Protocol):
    """A file to read from."""

    def readinto(self, buffer: bytearray | memoryview, /) -> int | None:
        """Read into `buffer` and return the number of bytes; 0 at the end."""


class _Decompressor(Protocol):
    """Decompresses one stream, with the interface of `bz2` and `lzma`."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _GzipDecompressor:
    """zlib's decompressor for a gzip member, with the same interface. It checks length and CRC."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def needs_input(self) -> bool:
        return not self._member.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._member.decompress(self._member.unconsumed_tail + data, max_length)


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    magics: tuple[bytes, ...]
    decompressor: Callable[[], _Decompressor]


# RFC 1952; bzip2 and xz: their file formats; RFC 8878: a file may begin with any of the skippable frames,
# which pzstd writes.
_KINDS: Final = (
    _Kind("gzip", (b"\x1f\x8b\x08",), _GzipDecompressor),
    _Kind(
        "bzip2",  # with a first block, or empty; an archive may begin with a file named BZh
        tuple(b"BZh%d" % level + block for level in range(1, 10) for block in (b"1AY&SY", b"\x17rE8P\x90")),
        bz2.BZ2Decompressor,
    ),
    _Kind("xz", (b"\xfd7zXZ\0",), lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)),
    _Kind(
        "zstd",
        (b"\x28\xb5\x2f\xfd", *(bytes([number]) + b"\x2a\x4d\x18" for number in range(0x50, 0x60))),
        ZstdDecompressor,
    ),
)
_MAGIC_SIZE: Final = 10


class Decompressed:
    """The decompressed content of a file."""

    def __init__(self, file: Raw) -> None:
        """Detect the compression by the first bytes of `file`, without seeking.

        Raises:
            OSError: it cannot be read.
        """
        start = _Prefixed(b"", file).take(_MAGIC_SIZE)
        whole = _Prefixed(start, file)
        kind = next((kind for kind in _KINDS if start.startswith(kind.magics)), None)
        self._streams = None if kind is None else _Streams(kind, whole)
        raw = whole if self._streams is None else self._streams
        self._buffered = io.BufferedReader(raw, _BUFFER_SIZE)
        self.read = self._buffered.read
        """Return `size` bytes, or what is left.

        Raises:
            FormatError: it is truncated or damaged.
            OSError: the file cannot be read.
        """

    @property
    def is_complete(self) -> bool:
        """Whether, at the end, the compression format guarantees that the file is complete.

        With several streams it does not: their number is not recorded.
        """
        return self._streams is not None and self._streams.count <= 1


class _Prefixed(io.RawIOBase):
    """A file whose first bytes have already been read."""

    def __init__(self, start: bytes, rest: Raw) -> None:
        self._start = start
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int | None:  # type: ignore[override]
        if not self._start:
            return self._rest.readinto(buffer)
        data = self._start[: len(buffer)]
        self._start = self._start[len(data) :]
        buffer[: len(data)] = data
        return len(data)

    def take(self, size: int) -> bytes:
        """Return `size` bytes, or what is left; a pipe may deliver them one by one."""
        taken = b""
        while len(taken) < size and (data := self.read(size - len(taken))):
            taken += data
        return taken


class _Streams(io.RawIOBase):
    """The streams of a compressed file, one after the other, with zeros between and after them.

    `count` is the number of streams that produced any output.
    """

    def __init__(self, kind: _Kind, file: io.RawIOBase) -> None:
        self._kind = kind
        self._file = file
        self._decompressor: _Decompressor | None = None
        self._input = b""
        self._is_empty = True
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        while True:
            if self._decompressor is None and not self._next_stream():
                return 0
            if data := self._decompress(len(buffer)):
                buffer[: len(data)] = data
                return len(data)

    def _next_stream(self) -> bool:
        """Start the next stream; return whether there is one."""
        while not (rest := self._input.lstrip(b"\0")):
            if not (rest := self._file.read(_READ_SIZE) or b""):
                return False
            self._input = rest
        self._input = rest
        self._decompressor = self._kind.decompressor()
        self._is_empty = True
        return True

    def _decompress(self, size: int) -> bytes:
        """Return up to `size` bytes of a stream; none at its end, or if more input is needed."""
        stream = self._decompressor
        assert stream is not None  # noqa: S101  for the type checker
        is_cut_off = False
        if stream.needs_input and not self._input:
            self._input = self._file.read(_READ_SIZE) or b""
            is_cut_off = not self._input
        try:
            data = stream.decompress(self._input, size)
        except _DAMAGE as error:
            raise FormatError(f"it is not a {self._kind.name} file, or is damaged ({error})") from error
        self._input = b""
        if data and self._is_empty:
            self._is_empty = False
            self.count += 1
        if stream.eof:
            self._input = stream.unused_data
            self._decompressor = None
        elif is_cut_off and not data:
            raise FormatError(f"the {self._kind.name} file is truncated")
        return data
