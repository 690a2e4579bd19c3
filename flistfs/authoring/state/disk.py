"""The disk that a session lies on, and how much of it the session may fill."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)

# Shares of the whole disk, in percent, that are left free: writing stops below the first. Names and times
# may go on to the second, so that the journal, which must not fail, has room for what is under way.
_CONTENT_RESERVE = 5
_NAMES_RESERVE = 1

# The spool's limit, if the user sets none: this share of what is free, and at most so many bytes.
_SPOOL_SHARE = 10
_SPOOL_MOST = 16 << 30

# Where more than this above the reserve is free, in bytes, an answer is good for that long, in seconds:
# nothing fills 40 GiB a second. A question costs 3 µs, and a small file asks six.
_PLENTY = 2 << 30
_GOOD_FOR = 0.05


class Disk:
    """The file system that holds a directory."""

    def __init__(self, directory: Path) -> None:
        """Watch the file system of `directory`."""
        self._directory = os.fspath(directory)
        self._plenty_until = 0.0

    def default_spool_limit(self) -> int:
        """Say how many bytes the spool may take if the user does not."""
        return min(_SPOOL_MOST, self._look()[0] // _SPOOL_SHARE)

    def is_low(self) -> bool:
        """Say whether no more content should be put on the disk."""
        return not self._has_plenty() and self._free_percent() < _CONTENT_RESERVE

    def is_full(self) -> bool:
        """Say whether no more names should be put on the disk either."""
        return not self._has_plenty() and self._free_percent() < _NAMES_RESERVE

    def lacks(self, size: int) -> bool:
        """Say whether fewer than `size` bytes are free."""
        return not self._has_plenty() and self._look()[0] < size

    def _has_plenty(self) -> bool:
        now = time.monotonic()
        if now < self._plenty_until:
            return True
        free, total = self._look()
        if free < _PLENTY + total * _CONTENT_RESERVE // 100:
            return False
        self._plenty_until = now + _GOOD_FOR
        return True

    def _free_percent(self) -> float:
        free, total = self._look()
        return 100 * free / max(total, 1)

    def _look(self) -> tuple[int, int]:
        """Return the bytes that are free, and those of the whole disk."""
        disk = os.statvfs(self._directory)
        return disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize


class Held:
    """Disk space that is held for when there is none: a file, which is made smaller bit by bit."""

    def __init__(self, path: Path, size: int) -> None:
        """Hold `size` bytes in the file at `path`, as soon as the disk has twice as many free."""
        self._path = path
        self._size = size
        self._disk = Disk(path.parent)
        self._left = path.stat().st_blocks * 512 if path.exists() else 0
        self.fill()

    def fill(self) -> None:
        """Hold all of it again, if there is space enough now."""
        if self._left >= self._size or self._disk.lacks(2 * self._size):
            return
        try:
            with self._path.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, self._size)
        except OSError as error:
            log.warning("no disk space can be held for when there is none: %s", error)
            self._size = self._left  # and not tried again
        self._left = self._size

    def give(self, size: int) -> bool:
        """Let the disk have `size` bytes back; say whether there were any left."""
        if self._left <= 0:
            return False
        self._left = max(0, self._left - size)
        os.truncate(self._path, self._left)
        return True
