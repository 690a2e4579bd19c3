"""Whether a file or a directory that a user names is a container image."""

from __future__ import annotations

import io
import os
import re
from contextlib import ExitStack, closing, suppress
from typing import Final

from flistfs.errors import FormatError, SourceError
from flistfs.images.blobs import ArchiveBlobs, Blobs, DirectoryBlobs
from flistfs.images.places import Place
from flistfs.sources.decompress import Decompressed, Raw
from flistfs.util.input_file import InputFile

_START: Final = 64 << 10  # bytes
_NAME: Final = 100  # bytes of a name in the header of a tar

_FIRST: Final = re.compile(
    rb"(\./)?(blobs(/.*)?|index\.json|manifest\.json|oci-layout|repositories|[0-9a-f]{64}([./].*)?)"
)
"""What archives of images begin with, whoever writes them; few others do, and those are looked at."""


def detected(path: str) -> tuple[Place, Blobs] | None:
    """Open the image that a directory or an archive is; None if it is none, or cannot be read."""
    if os.path.isdir(path):  # noqa: PTH112  a text
        directory = DirectoryBlobs(path)
        is_layout = directory.has("index.json") and directory.has("oci-layout")
        return (Place("oci", path), directory) if is_layout else None
    if not os.path.isfile(path) or not _begins_like_one(path):  # noqa: PTH113  a text
        return None
    with suppress(SourceError), ExitStack() as opened:
        blobs = opened.enter_context(closing(ArchiveBlobs(path)))
        if blobs.has("manifest.json") or blobs.has("index.json"):
            opened.pop_all()
            return Place("archive", path), blobs
    return None


def _begins_like_one(path: str) -> bool:
    try:
        with closing(InputFile(path)) as file:
            return _is_first_of_one(file)
    except OSError:
        return False


def start_of(descriptor: int) -> bytes:
    """Return the beginning of what comes through a pipe, say: as much as shows what it is.

    Raises:
        SourceError: it cannot be read.
    """
    start = b""
    try:
        while len(start) < _START and (part := os.read(descriptor, _START - len(start))):
            start += part
    except OSError as error:
        raise SourceError(f"standard input cannot be read: {error.strerror}") from None
    return start


def begins_like_one(start: bytes) -> bool:
    """Return whether an archive may be an image, by its first bytes."""
    return _is_first_of_one(io.BytesIO(start))


def _is_first_of_one(file: Raw) -> bool:
    """Return whether the first member of an archive is called as in an image."""
    try:
        name = Decompressed(file).read(_NAME).partition(b"\0")[0]
    except (OSError, FormatError):
        return False
    return _FIRST.fullmatch(name.rstrip(b"/")) is not None
