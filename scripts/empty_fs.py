"""The floor of FUSE in Python: a pyfuse3 file system with names and attributes in memory and no content.

Stock event loop, stock options. Called as: empty_fs.py MOUNTPOINT
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import Any

import pyfuse3
import trio


class Empty(pyfuse3.Operations):
    """Takes whatever is written, and forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self._modes = {pyfuse3.ROOT_INODE: stat.S_IFDIR | 0o755}
        self._names: dict[tuple[int, bytes], int] = {}

    def _entry(self, ino: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(ino)
        entry.st_mode = pyfuse3.ModeT(self._modes[ino])
        entry.st_nlink = 1
        entry.st_size = 0
        return entry

    def _make(self, parent: int, name: bytes, mode: int) -> pyfuse3.EntryAttributes:
        ino = self._names[parent, name] = len(self._modes) + 1
        self._modes[ino] = mode
        return self._entry(ino)

    async def lookup(self, parent_inode: int, name: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        """Find a name."""
        if (parent_inode, name) not in self._names:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._entry(self._names[parent_inode, name])

    async def getattr(self, inode: int, ctx: object) -> pyfuse3.EntryAttributes:
        """Stat."""
        return self._entry(inode)

    async def setattr(self, inode: int, *_: object) -> pyfuse3.EntryAttributes:
        """Change nothing."""
        return self._entry(inode)

    async def mkdir(self, parent_inode: int, name: bytes, mode: int, ctx: object) -> pyfuse3.EntryAttributes:
        """Make a directory."""
        return self._make(parent_inode, name, mode | stat.S_IFDIR)

    async def symlink(self, parent_inode: int, name: bytes, *_: object) -> pyfuse3.EntryAttributes:
        """Make a link."""
        return self._make(parent_inode, name, stat.S_IFLNK | 0o777)

    async def create(self, parent_inode: int, name: bytes, mode: int, *_: object) -> tuple[Any, Any]:
        """Make a file."""
        entry = self._make(parent_inode, name, mode | stat.S_IFREG)
        return pyfuse3.FileInfo(fh=pyfuse3.FileHandleT(entry.st_ino)), entry

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Forget what is written."""
        return len(buf)

    async def flush(self, fh: int) -> None:
        """Close."""

    async def release(self, fh: int) -> None:
        """Close."""


def main() -> None:
    """Mount, and serve until it is unmounted."""
    pyfuse3.init(Empty(), sys.argv[1], {"fsname=empty", *pyfuse3.default_options})
    os.write(1, b"ready\n")
    trio.run(pyfuse3.main)
    pyfuse3.close(unmount=False)


if __name__ == "__main__":
    main()
