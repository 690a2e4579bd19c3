"""Entries of a tree, independent of any format."""

from __future__ import annotations

import enum
import stat
from collections.abc import Hashable, Iterable
from typing import Final, NamedTuple

from flistfs.errors import FormatError
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef
from flistfs.tree.names import place_fault


class Kind(enum.StrEnum):
    """The kind of an entry."""

    DIRECTORY = "directory"
    FILE = "file"
    LINK = "link"
    CHAR = "char"
    BLOCK = "block"
    FIFO = "fifo"
    SOCKET = "socket"
    UNKNOWN = "unknown"


TYPE_BITS: Final = {
    Kind.DIRECTORY: stat.S_IFDIR,
    Kind.FILE: stat.S_IFREG,
    Kind.LINK: stat.S_IFLNK,
    Kind.CHAR: stat.S_IFCHR,
    Kind.BLOCK: stat.S_IFBLK,
    Kind.FIFO: stat.S_IFIFO,
    Kind.SOCKET: stat.S_IFSOCK,
}
"""The type bits of `st_mode`, for every known kind."""

KIND_OF: Final = {bits: kind for kind, bits in TYPE_BITS.items()}
"""The kind, for the type bits of `st_mode`."""

DEVICES: Final = frozenset({Kind.CHAR, Kind.BLOCK})
"""The kinds that have device numbers."""

NO_ACCESS_MODE: Final = 0o400
"""The permissions that readers show for an entry whose owner and mode an flist lacks."""


class Access(NamedTuple):
    """Owner and mode of entries; equal ones are usually one object shared by many nodes.

    `mode` is the full `st_mode`; where entries of several kinds share one record, its type bits may be those
    of another kind. `uid` and `gid` are None for an account that is known by name only. `extra` holds any
    other data of the format, opaque to everything else: it survives a merge of flists.
    """

    mode: int
    user: bytes
    group: bytes
    uid: int | None
    gid: int | None
    extra: tuple[Hashable, ...] = ()


# A named tuple: one is created for every entry, and a frozen dataclass takes three times as long.
class Node(NamedTuple):
    """An entry of a tree.

    `path` is relative to the root, without a slash at either end; the root's is empty. `size` is in bytes;
    times are whole seconds since 1970, `ctime` that of the last change of the inode. `target` is a link's
    target, `device` the numbers (major, minor) of a device that has valid ones. The blocks of a file are in
    order, each of `chunk_size` plain bytes but the last.

    `whole` is False for a directory that is known from its parent's entry only, because it has not been
    loaded, or because the flist lacks it. `held` is the access, or why it cannot be read.
    """

    path: bytes
    kind: Kind
    held: Access | FormatError | None
    size: int
    mtime: int
    ctime: int
    target: bytes | None = None
    device: tuple[int, int] | None = None
    blocks: tuple[BlockRef, ...] = ()
    chunk_size: int = CHUNK_SIZE
    whole: bool = True

    @property
    def name(self) -> bytes:
        """The last part of its path."""
        return self.path.rpartition(b"/")[2]

    @property
    def access(self) -> Access | None:
        """Owner and mode; None if the flist lacks them.

        Raises:
            FormatError: they cannot be read; the message names the path.
        """
        if isinstance(self.held, FormatError):
            raise self.held
        return self.held

    @property
    def mode(self) -> int:
        """The `st_mode`, with the type bits of its kind; raises as `access` does."""
        access = self.access
        permissions = stat.S_IMODE(access.mode) if access else NO_ACCESS_MODE
        return TYPE_BITS.get(self.kind, 0) | permissions

    @property
    def user(self) -> bytes | None:
        """The user's name; None if the flist lacks it. Raises as `access` does."""
        return self.access.user if self.access else None

    @property
    def group(self) -> bytes | None:
        """The group's name; None if the flist lacks it. Raises as `access` does."""
        return self.access.group if self.access else None

    @property
    def uid(self) -> int | None:
        """The user's number; None if the flist lacks it. Raises as `access` does."""
        return self.access.uid if self.access else None

    @property
    def gid(self) -> int | None:
        """The group's number; None if the flist lacks it. Raises as `access` does."""
        return self.access.gid if self.access else None


def as_far_as_stored(file: Node) -> Node:
    """Return a file as far as it has blocks."""
    size = min(file.size, len(file.blocks) * file.chunk_size)
    return file if size == file.size else file._replace(size=size)


def walkable(path: bytes, listing: Iterable[Node]) -> list[bytes]:
    """Return the paths of the sub-directories in the listing of a directory that a walk may enter, sorted.

    Each is there once: on several levels, repeated names would multiply.
    """
    below = {node.path for node in listing if node.kind is Kind.DIRECTORY}
    start = len(path) + 1 if path else 0
    return [each for each in sorted(below) if place_fault(each, each[start:]) is None]
