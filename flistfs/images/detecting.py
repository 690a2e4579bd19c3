"""Whether a file or a directory that a user names is a container image."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from typing import Final

from flistfs.errors import FormatError, SourceError
from flistfs.images.blobs import ArchiveBlobs
from flistfs.images.places import Place
from flistfs.sources.decompress import Decompressed
from flistfs.util.input_file import InputFile

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
    with suppress(SourceError):
        blobs = ArchiveBlobs(path)
        try:
            if blobs.has("manifest.json"):
                return Place("docker-archive", path)
            return Place("oci-archive", path) if blobs.has("index.json") else None
        finally:
            blobs.close()
    return None


def _begins_like_one(path: str) -> bool:
    try:
        file = InputFile(path)
    except OSError:
        return False
    try:
        name = Decompressed(file).read(100).partition(b"\0")[0]
    except (OSError, FormatError):
        return False
    finally:
        file.close()
    return _FIRST.fullmatch(name.rstrip(b"/")) is not None
