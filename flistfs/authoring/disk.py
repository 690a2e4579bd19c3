"""The disk that a session lies on, and how much of it the session may fill."""

from __future__ import annotations

import os
from pathlib import Path

# Shares of the whole disk, in percent, that are left free: writing stops below the first. Names and times
# may go on to the second, so that the journal, which must not fail, has room for what is under way.
_CONTENT_RESERVE = 5
_NAMES_RESERVE = 1

# The spool's limit, if the user sets none: this share of what is free, and at most so many bytes.
_SPOOL_SHARE = 10
_SPOOL_MOST = 16 << 30


class Disk:
    """The file system that holds a folder. Asking it costs about 1.5 µs, so it is asked every time."""

    def __init__(self, folder: Path) -> None:
        """Watch the file system of `folder`."""
        self._folder = os.fspath(folder)

    def default_spool_limit(self) -> int:
        """Say how many bytes the spool may take if the user does not."""
        disk = os.statvfs(self._folder)
        return min(_SPOOL_MOST, disk.f_bavail * disk.f_frsize // _SPOOL_SHARE)

    def is_low(self) -> bool:
        """Say whether no more content should be put on the disk."""
        return self._free_percent() < _CONTENT_RESERVE

    def is_full(self) -> bool:
        """Say whether no more names should be put on the disk either."""
        return self._free_percent() < _NAMES_RESERVE

    def _free_percent(self) -> float:
        disk = os.statvfs(self._folder)
        return 100 * disk.f_bavail / max(disk.f_blocks, 1)
