"""Arguments and results of the file system's operations: plain data."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flistfs.authoring.state.change import Change
from flistfs.authoring.state.records import Inode
from flistfs.tree.chunks import CHUNK_SIZE

# linux/posix_acl_xattr.h: a version of 4 bytes, and 8 for each of owner, group and others, as every ACL has.
ACL_PREFIX = b"system.posix_acl_"

if TYPE_CHECKING:
    from flistfs.authoring.filesystem.vfs import Vfs


MINIMAL_ACL_SIZE = 4 + 3 * 8


DIRECTORY_SIZE = 4096  # st_size of every directory, however large


@dataclass(frozen=True, slots=True)
class Caller:
    """The process that calls an operation."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Attributes:
    """The changes for setattr; None leaves a field unchanged. Times are nanoseconds since 1970."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


@dataclass(slots=True)
class OpenFile:
    """How many times an inode is open, and how many of those for writing."""

    count: int = 0
    writers: int = 0


@dataclass(slots=True)
class Listing:
    """An opened directory, and the last cookie that belongs to the listing."""

    ino: int
    end: int


@dataclass(slots=True)
class Totals:
    """Running totals of the tree: inodes by kind, and bytes in files."""

    files: int = 0
    directories: int = 0
    links: int = 0
    specials: int = 0
    size: int = 0

    def add(self, inode: Inode, count: int) -> None:
        """Count an inode in (1) or out (-1)."""
        if stat.S_ISREG(inode.mode):
            self.files += count
            self.size += count * inode.size
        elif stat.S_ISDIR(inode.mode):
            self.directories += count
        elif stat.S_ISLNK(inode.mode):
            self.links += count
        else:
            self.specials += count


def now_ns() -> int:
    """Return the time in nanoseconds since 1970."""
    return time.time_ns()


def os_error(number: int) -> OSError:
    """Return the error of an error number."""
    return OSError(number, os.strerror(number))


class Directories:
    """The directories that a rename changes, which may be one and the same."""

    def __init__(self, vfs: Vfs, now: int) -> None:
        self._vfs = vfs
        self._now = now
        self._directories: dict[int, Inode] = {}

    def grow(self, ino: int, entries: int, directories: int) -> None:
        """Add (or subtract) entries and subdirectories."""
        directory = self._directories.get(ino) or self._vfs.inode(ino)
        self._directories[ino] = grown(directory, entries, directories, self._now)

    def put(self, change: Change) -> None:
        """Write the directories."""
        for directory in self._directories.values():
            change.put_inode(directory)


def grown(directory: Inode, entries: int, directories: int, now: int) -> Inode:
    """Return a directory with this many more entries and subdirectories."""
    return directory._replace(
        size=directory.size + entries, nlink=directory.nlink + directories, mtime_ns=now, ctime_ns=now
    )


def without_set_id(inode: Inode, caller: Caller) -> int:
    """Return the mode after a write by another user.

    It has no set-uid, and no set-gid if the group may execute or is not the caller's. Linux checks
    all groups of the caller, but a request contains only the first.
    """
    mode = inode.mode & ~stat.S_ISUID
    return mode & ~stat.S_ISGID if mode & stat.S_IXGRP or caller.gid != inode.gid else mode


def allocated(inode: Inode) -> int:
    """Return the 512-byte units of disk that stat reports for an inode: holes cost none."""
    if not stat.S_ISREG(inode.mode):
        return 0
    whole = -(-inode.size // 512)
    if inode.chunks >= -(-inode.size // CHUNK_SIZE):
        return whole
    return min(whole, inode.chunks * (CHUNK_SIZE // 512))
