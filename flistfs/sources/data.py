"""Where the bytes of a chunk are until it is stored."""

from __future__ import annotations

import os
from typing import NamedTuple


class SpoolSource(NamedTuple):
    """A chunk in the spool file, by its position and length in bytes."""

    position: int
    length: int


class FileSource(NamedTuple):
    """A chunk of a file outside the session, whose size and times must not have changed since it was found.

    `offset` and `length` are in bytes; `version` is the result of `file_version` for the file.
    """

    path: bytes
    offset: int
    length: int
    version: tuple[int, ...]


class BytesSource(NamedTuple):
    """A chunk that is in memory only."""

    data: bytes

    @property
    def length(self) -> int:
        """Its length in bytes."""
        return len(self.data)


Source = SpoolSource | FileSource | BytesSource


class Unreadable(NamedTuple):
    """A file that could not be read, or that changed while it was read."""

    reason: str


def file_version(status: os.stat_result) -> tuple[int, ...]:
    """Return what distinguishes one state of a file from another."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
