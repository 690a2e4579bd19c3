"""The disk that holds a session, and how much of it the session may fill."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)

# Percentages of the whole disk that are kept free: content is refused below the first, names and times below
# the second, so that the journal, which must not fail, has room for operations in progress.
_CONTENT_RESERVE = 5
_NAMES_RESERVE = 1

# Default limit of the spool: this share of the free space, and at most this many bytes.
_SPOOL_SHARE = 10
_SPOOL_MOST = 16 << 30

# If more than this many bytes above the reserve are free, an answer is cached for this many seconds: nothing
# fills 40 GiB a second. A statvfs costs 3 µs, and a small file needs six answers.
_PLENTY = 2 << 30
_CACHED_FOR = 0.05


class Disk:
    """The file system that holds a directory."""

    def __init__(self, directory: Path) -> None:
        """Watch the file system of `directory`."""
        self._directory = os.fspath(directory)
        self._plenty_until = 0.0

    def default_spool_limit(self) -> int:
        """Return the default limit of the spool in bytes."""
        return min(_SPOOL_MOST, self._look()[0] // _SPOOL_SHARE)

    def is_low(self) -> bool:
        """Return whether no more content should be written to the disk."""
        return not self._has_plenty() and self._free_percent() < _CONTENT_RESERVE

    def is_full(self) -> bool:
        """Return whether no more names should be written to the disk either."""
        return not self._has_plenty() and self._free_percent() < _NAMES_RESERVE

    def lacks(self, size: int) -> bool:
        """Return whether fewer than `size` bytes are free."""
        return not self._has_plenty() and self._look()[0] < size

    def _has_plenty(self) -> bool:
        now = time.monotonic()
        if now < self._plenty_until:
            return True
        free, total = self._look()
        if free < _PLENTY + total * _CONTENT_RESERVE // 100:
            return False
        self._plenty_until = now + _CACHED_FOR
        return True

    def _free_percent(self) -> float:
        free, total = self._look()
        return 100 * free / max(total, 1)

    def _look(self) -> tuple[int, int]:
        """Return the free bytes and the size of the disk in bytes."""
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize


class Held:
    """Disk space reserved for when the disk is full: a file that is shrunk step by step."""

    def __init__(self, path: Path, size: int) -> None:
        """Reserve `size` bytes in the file at `path`, as soon as twice as many are free."""
        self._path = path
        self._size = size
        self._disk = Disk(path.parent)
        self._left = path.stat().st_blocks * 512 if path.exists() else 0
        self.fill()

    def fill(self) -> None:
        """Reserve the full size again, if there is enough space now."""
        if self._left >= self._size or self._disk.lacks(2 * self._size):
            return
        try:
            with self._path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
        except OSError as error:
            log.warning("no disk space can be reserved for when the disk is full: %s", error)
            self._size = self._left  # do not try again
        self._left = self._size

    def give(self, size: int) -> bool:
        """Free `size` bytes of the reserve; return whether any were left."""
        if self._left <= 0:
            return False
        self._left = max(0, self._left - size)
        os.truncate(self._path, self._left)
        return True
