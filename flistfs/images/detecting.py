"""Whether a file or a directory that a user names is a container image."""

from __future__ import annotations

import io
import os
import re
from contextlib import closing, suppress
from typing import Final

from flistfs.errors import FormatError, SourceError
from flistfs.images.blobs import ArchiveBlobs
from flistfs.images.places import Place
from flistfs.sources.decompress import Decompressed
from flistfs.util.input_file import InputFile

_START: Final = 64 << 10  # bytes
_NAME: Final = 100  # bytes of a name in the header of a tar

_FIRST: Final = re.compile(
    rb"(\./)?(blobs(/.*)?|index\.json|manifest\.json|oci-layout|repositories|[0-9a-f]{64}([./].*)?)"
)
"""What archives of images begin with, whoever writes them; few others do, and those are looked at."""


def detected(path: str) -> Place | None:
    """Return the image that a directory or an archive is; None if it is none, or cannot be read."""
    if os.path.isdir(path):  # noqa: PTH112  a text
        files = ("index.json", "oci-layout")
        return Place("oci", path) if all(map(os.path.isfile, (f"{path}/{each}" for each in files))) else None
    if not os.path.isfile(path) or not _begins_like_one(path):  # noqa: PTH113  a text
        return None
    with suppress(SourceError), closing(ArchiveBlobs(path)) as blobs:
        if blobs.has("manifest.json") or blobs.has("index.json"):
            return Place("archive", path)
    return None


def _begins_like_one(path: str) -> bool:
    try:
        file = InputFile(path)
    except OSError:
        return False
    try:
        return _is_first(Decompressed(file).read(_NAME))
    except (OSError, FormatError):
        return False
    finally:
        file.close()


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
    try:
        return _is_first(Decompressed(io.BytesIO(start)).read(_NAME))
    except (OSError, FormatError):
        return False


def _is_first(name: bytes) -> bool:
    return _FIRST.fullmatch(name.partition(b"\0")[0].rstrip(b"/")) is not None
