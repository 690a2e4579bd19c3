"""A tar archive read as a stream, from a stranger: in bounded memory, whatever its headers claim."""

from __future__ import annotations

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, Final, Protocol, Self, cast

from flistfs.errors import FormatError

_COPY_SIZE: Final = 1 << 20
_READ_SIZE: Final = 64 << 10  # far less than _MAX_HEADERS: reads that begin in content end in headers
# Headers between two members: extended ones are as long as they say, and tarfile reads them into memory.
_MAX_HEADERS: Final = 1 << 20


class Readable(Protocol):
    """A file, or what decompresses one."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes; none at the end."""


class _Member(tarfile.TarInfo):
    """A member whose header must be whole: tarfile takes one that is not for the end of the archive."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise FormatError(f"it is not a tar archive, or cut off or damaged ({error})") from error


class TarStream:
    """The bytes of an archive, for tarfile to read, with a limit on all and one on headers.

    Of a file it has what tarfile's streams use: `read`. Errors of reading become FormatError here, where they
    cannot be confused with those of writing.
    """

    def __init__(self, file: Readable, kind: str, limit: int | None = None) -> None:
        """Read `file`, which must be a "gzip file", say, and in all hold no more than `limit` bytes."""
        self._file = file
        self._kind = kind
        self._left = limit
        self._headers_left = _MAX_HEADERS
        self._in_headers = True

    def open(self) -> tarfile.TarFile:
        """Open the archive as a stream: nothing is sought. Names are bytes, kept as surrogates."""
        return tarfile.open(
            fileobj=cast(IO[bytes], self),
            mode="r|",
            bufsize=_READ_SIZE,
            tarinfo=_Member,
            encoding="utf-8",
            errors="surrogateescape",
        )

    def members(self, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        """Walk the members; the content of each is to be read before the next.

        Raises:
            FormatError: the headers between two members are longer than any honest ones.
        """
        while True:
            self._headers_left = _MAX_HEADERS
            self._in_headers = True
            member = archive.next()
            if member is None:
                return
            # tarfile keeps every member, which is of no use in a stream and no matter of bounded memory.
            archive.members.clear()  # type: ignore[attr-defined]
            self._in_headers = False
            yield member

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes of the archive; none at its end."""
        wanted = size if self._left is None else min(size, self._left + 1)
        try:
            data = self._file.read(wanted)
        except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
            raise FormatError(f"it is no {self._kind}, or damaged ({error})") from error
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
        """Read to the end, where the checksum of it all is."""
        self._in_headers = False
        while self.read(_COPY_SIZE):
            pass
