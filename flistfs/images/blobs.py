"""The files that an image is made of: in a directory, or in an archive, where they have no useful order."""

from __future__ import annotations

import os
import posixpath
import tarfile
import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, Final, Protocol, cast

from flistfs.errors import FormatError, SourceError
from flistfs.sources.decompress import Decompressed
from flistfs.util.input_file import InputFile

_MAX_MEMBERS: Final = 100_000
_PART: Final = 1 << 20
_BLOCK: Final = 512
_TAR_MAGIC: Final = slice(257, 262)


@dataclass(frozen=True, slots=True)
class Given:
    """What is known of an archive before it is read.

    Attributes:
        start: What was read of standard input already.
        most: Bytes of it that may be spooled.
    """

    start: bytes = b""
    most: int = 64 << 30


NOTHING: Final = Given()
"""Nothing in particular."""


class Blobs(Protocol):
    """Files by their names, such as `index.json` and `blobs/sha256/…`."""

    def has(self, name: str) -> bool:
        """Return whether there is such a file."""

    def open(self, name: str) -> BinaryIO:
        """Open a file.

        Raises:
            SourceError: it is not there.
        """

    def close(self) -> None:
        """Close what they lie in."""


def read(blobs: Blobs, name: str, most: int) -> bytes:
    """Return the content of a file.

    Raises:
        SourceError: it is not there, cannot be read, or has more than `most` bytes.
    """
    with blobs.open(name) as file:
        try:
            content = file.read(most + 1)
        except (OSError, tarfile.TarError) as error:
            raise SourceError(f"the image is damaged: {name} cannot be read: {error}") from None
    if len(content) > most:
        raise SourceError(f"the image is invalid: {name} has more than {most:,} bytes")
    return content


class DirectoryBlobs:
    """The files of a directory."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def has(self, name: str) -> bool:
        """Return whether there is such a file."""
        return (self._directory / name).is_file()

    def open(self, name: str) -> BinaryIO:
        """Open a file; raises `SourceError`."""
        try:
            return (self._directory / name).open("rb")
        except OSError as error:
            raise SourceError(
                f"{self._directory} is no whole image: {name} cannot be read: {error.strerror}"
            ) from None

    def close(self) -> None:
        """Do nothing."""


class ArchiveBlobs:
    """The files of a tar archive, which may be compressed: that is unpacked to a temporary file first."""

    def __init__(self, path: str, given: Given = NOTHING) -> None:
        """Read what is in an archive; `-` is standard input.

        Raises:
            SourceError: it is none, or cannot be read.
        """
        self._path = "standard input" if path == "-" else path
        with ExitStack() as opened:
            try:
                raw = InputFile(path, given.start)
                file = opened.enter_context(_seekable(raw, given.most))
                self._tar = opened.enter_context(tarfile.open(fileobj=file, mode="r:"))
                self._members = self._found()
            except OSError as error:
                raise SourceError(f"{self._path} cannot be read: {error.strerror or error}") from None
            except (tarfile.TarError, FormatError) as error:
                raise SourceError(f"{self._path} is no archive of an image: {error}") from None
            self._opened = opened.pop_all()

    def _found(self) -> dict[str, tarfile.TarInfo]:
        found: dict[str, tarfile.TarInfo] = {}
        for member in self._tar:
            if len(found) >= _MAX_MEMBERS:
                raise SourceError(f"{self._path} has more than {_MAX_MEMBERS:,} members: it is no image")
            found[posixpath.normpath(member.name)] = member
        return found

    def has(self, name: str) -> bool:
        """Return whether there is such a file."""
        return self._member(name) is not None

    def open(self, name: str) -> BinaryIO:
        """Open a file; raises `SourceError`."""
        member = self._member(name)
        file = None if member is None else self._tar.extractfile(member)
        if file is None:
            raise SourceError(f"{self._path} is no whole image: {name} is not in it")
        return cast("BinaryIO", file)

    def _member(self, name: str) -> tarfile.TarInfo | None:
        member = self._members.get(posixpath.normpath(name))
        if member is not None and member.issym():
            # skopeo and podman write layers that several images have as links to one.
            target = posixpath.join(posixpath.dirname(posixpath.normpath(name)), member.linkname)
            member = self._members.get(posixpath.normpath(target))
        return member if member is not None and member.isreg() else None

    def close(self) -> None:
        """Close the archive."""
        self._opened.close()


def _seekable(file: InputFile, most: int) -> IO[bytes]:
    """Return an archive so that any part of it can be read: where it cannot be, it is spooled on the disk."""
    if file.seekable() and not file.has_start:
        magic = os.pread(file.fileno(), _BLOCK, 0)[_TAR_MAGIC]
        if magic == b"ustar":
            return cast("IO[bytes]", file)
    with closing(file), ExitStack() as opened:
        spooled = opened.enter_context(tempfile.TemporaryFile(prefix="flistfs-image-"))
        stream = Decompressed(file)
        while part := stream.read(_PART):
            spooled.write(part)
            if spooled.tell() > most:
                raise FormatError(f"it has more than {most:,} bytes")
        spooled.seek(0)
        opened.pop_all()
    return spooled
