"""Read an untrusted tar archive as a stream, in bounded memory, whatever its headers claim."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Final, Protocol, Self, cast

from flistfs.errors import FormatError

_COPY_SIZE: Final = 1 << 20
_READ_SIZE: Final = 64 << 10  # far less than _MAX_HEADERS: reads that begin in content end in headers
# Headers between two members: extended ones can claim any length, and tarfile reads them into memory.
_MAX_HEADERS: Final = 1 << 20


class Readable(Protocol):
    """A file, or a decompressor of one."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""


class _Member(tarfile.TarInfo):
    """A member whose header must be complete: tarfile takes an incomplete one for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # type: ignore[attr-defined]
            # The end, with or without its marker: zflist writes none. What comes around the archive (gzip's
            # checksum, for one) says that nothing is cut off.
            raise
        except tarfile.HeaderError as error:
            raise FormatError(f"it is not a tar archive, or is truncated or damaged ({error})") from error


class TarStream:
    """The bytes of an archive, for tarfile to read, with one limit on all of them and one on headers.

    It has only the method that tarfile's streams use: `read`. Errors of reading become FormatError here,
    where they cannot be confused with those of writing.
    """

    def __init__(self, file: Readable, kind: str, limit: int | None = None) -> None:
        """Read `file`, which must be of a `kind` such as "gzip file", and hold at most `limit` bytes."""
        self._file = file
        self._kind = kind
        self._left = limit
        self._headers_left = _MAX_HEADERS
        self._in_headers = True

    def open(self) -> tarfile.TarFile:
        """Open the archive as a stream, without seeking. Names are bytes, kept as surrogates."""
        return tarfile.open(
            fileobj=cast(IO[bytes], self),
            mode="r|",
            bufsize=_READ_SIZE,
            tarinfo=_Member,
            encoding="utf-8",
            errors="surrogateescape",
        )

    def members(self, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        """Yield the members; the content of each must be read before the next.

        Raises:
            FormatError: the headers between two members are longer than any legitimate ones.
        """
        while True:
            self._headers_left = _MAX_HEADERS
            self._in_headers = True
            member = archive.next()
            if member is None:
                return
            # tarfile keeps every member, which is useless in a stream and needs unbounded memory.
            archive.members.clear()  # type: ignore[attr-defined]
            self._in_headers = False
            yield member

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes of the archive; none at its end."""
        wanted = size if self._left is None else min(size, self._left + 1)
        try:
            data = self._file.read(wanted)
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            raise FormatError(f"it is not a {self._kind}, or is damaged ({error})") from error
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                raise FormatError("it unpacks to more bytes than allowed")
        if self._in_headers:
            self._headers_left -= len(data)
            if self._headers_left < 0:
                raise FormatError("the headers of a member are too long")
        return data

    def drain(self) -> None:
        """Read to the end, which verifies the checksum."""
        self._in_headers = False
        while self.read(_COPY_SIZE):
            pass
