"""A sealed flist as a read-only file system: pyfuse3's requests, answered from its records and the store.

The kernel keeps names, attributes and pages for as long as it likes: nothing ever changes. It refuses writes
by itself (the mount is `ro`). Inode numbers are given to paths as the kernel asks, and taken back as it
forgets: memory holds what the kernel knows, the directories that were listed last, and the cache of chunks.
"""

from __future__ import annotations

import errno
import logging
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, InodeT, RequestContext, StatvfsData

from flistfs.errors import FormatError
from flistfs.fuse.handlers import TIMEOUT, Handlers, answered, may_access, no_such_name
from flistfs.reading.chunks import Chunks
from flistfs.reading.content import Piece, pieces_there
from flistfs.reading.flist import Flist
from flistfs.tree.names import MAX_NAME, printable
from flistfs.tree.node import DEVICES, Kind, Node
from flistfs.tree.owners import shown_owner

log = logging.getLogger(__name__)

_BLOCK: Final = 4096
_SECTOR: Final = 512  # the unit of st_blocks
_NANO: Final = 1_000_000_000

# Entries of directories that are kept decoded: decoding one costs 15 µs, some 1 KiB of memory holds it.
_KEPT_ENTRIES: Final = 100_000

# Chunks fetched ahead of a sequential read.
_AHEAD: Final = 4


@dataclass(slots=True)
class _Inode:
    """A node whose number the kernel knows; `lookups` counts how often it was told."""

    node: Node
    lookups: int = 0


@dataclass(slots=True)
class _Handle:
    """An open file: its chunks, all but the last of one length, and where a sequential read continues."""

    path: bytes
    size: int
    chunks: Sequence[Piece]
    next: int = 0


class Operations(Handlers):
    """The request handlers of a mounted flist."""

    supports_dot_lookup = False

    def __init__(
        self, flist: Flist, chunks: Chunks, nursery: trio.Nursery, answering: Callable[[], None]
    ) -> None:
        """Serve `flist`.

        Args:
            flist: What is mounted.
            chunks: Content of its files.
            nursery: Where reading ahead runs.
            answering: Called when the kernel has initialised the mount, so that requests are served.
        """
        super().__init__(answering)
        self._flist = flist
        self._chunks = chunks
        self._nursery = nursery
        root = flist.find(b"")
        # A damaged root is an error of mounting, not of every request afterwards.
        _ = root.mode
        deque(flist.children(b"", leave_out=_pass_over), maxlen=0)
        self._inodes: dict[int, _Inode] = {pyfuse3.ROOT_INODE: _Inode(root, 1)}
        self._numbers: dict[bytes, int] = {b"": pyfuse3.ROOT_INODE}
        self._last_number = int(pyfuse3.ROOT_INODE)
        self._listings: OrderedDict[bytes, dict[bytes, Node]] = OrderedDict()
        self._listed = 0  # entries in them
        self._handles: dict[int, _Handle] = {}
        self._last_handle = 0

    # Names

    @answered
    async def lookup(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Find a name."""
        node = self._listing(self._inodes[parent_inode].node.path).get(name)
        if node is None:
            return no_such_name()
        return self._entry(node, self._remember(node))

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Forget inodes."""
        for number, times in inode_list:
            inode = self._inodes[number]
            inode.lookups -= times
            if inode.lookups <= 0 and number != pyfuse3.ROOT_INODE:
                del self._inodes[number]
                del self._numbers[inode.node.path]

    @answered
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """Stat."""
        return self._entry(self._inodes[inode].node, inode)

    @answered
    async def access(self, inode: InodeT, mode: int, ctx: RequestContext) -> bool:
        """Answer access(2) and chdir(2) where the kernel does not check permissions."""
        return may_access(self._inodes[inode].node.mode, mode)

    @answered
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> pyfuse3.FileNameT:
        """Read a symbolic link."""
        target = self._inodes[inode].node.target
        if target is None:
            raise FUSEError(errno.EINVAL)
        return pyfuse3.FileNameT(target)

    @answered
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> pyfuse3.FileHandleT:
        """Open a directory: its handle is its number."""
        return pyfuse3.FileHandleT(int(inode))

    @answered
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List a directory, beginning after a cookie."""
        here = self._inodes[fh].node
        above = self._numbers.get(here.path.rpartition(b"/")[0], int(pyfuse3.ROOT_INODE))
        for cookie, name, number in ((1, b".", fh), (2, b"..", above)):
            entry = self._entry(self._inodes[number].node, number)
            if start_id < cookie and not pyfuse3.readdir_reply(token, pyfuse3.FileNameT(name), entry, cookie):
                return
        nodes = list(self._listing(here.path).values())
        for index in range(max(start_id - 2, 0), len(nodes)):
            node = nodes[index]
            number = self._remember(node)
            name = pyfuse3.FileNameT(node.name)
            if not pyfuse3.readdir_reply(token, name, self._entry(node, number), index + 3):
                await self.forget([(InodeT(number), 1)])
                return

    def _listing(self, path: bytes) -> dict[bytes, Node]:
        """Return the entries of a directory by name."""
        if path in self._listings:
            self._listings.move_to_end(path)
            return self._listings[path]
        listing: dict[bytes, Node] = {}
        for node in self._flist.children(path, leave_out=_leave_out):
            if node.kind is Kind.UNKNOWN:
                _leave_out(node, "it is of no known kind")
                continue
            listing.setdefault(node.name, node)
        self._listings[path] = listing
        self._listed += len(listing) + 1
        while self._listed > _KEPT_ENTRIES and len(self._listings) > 1:
            _, oldest = self._listings.popitem(last=False)
            self._listed -= len(oldest) + 1
        return listing

    def _remember(self, node: Node) -> int:
        """Return the number of a node, and count that the kernel is told."""
        number = self._numbers.get(node.path)
        if number is None:
            number = self._last_number = self._last_number + 1
            self._numbers[node.path] = number
            self._inodes[number] = _Inode(node)
        self._inodes[number].lookups += 1
        return number

    def _entry(self, node: Node, number: int) -> EntryAttributes:
        uid, gid, mode = shown_owner(node.access, node.mode)
        size = node.size if node.kind in {Kind.FILE, Kind.LINK, Kind.DIRECTORY} else 0
        entry = EntryAttributes()
        entry.st_ino = InodeT(number)
        entry.entry_timeout = entry.attr_timeout = TIMEOUT
        entry.st_mode = pyfuse3.ModeT(mode)
        entry.st_nlink = 1
        entry.st_uid, entry.st_gid = uid, gid
        entry.st_rdev = os.makedev(*node.device) if node.device and node.kind in DEVICES else 0
        entry.st_size = size
        entry.st_blksize = _BLOCK
        entry.st_blocks = -(-size // _SECTOR)
        entry.st_atime_ns = entry.st_mtime_ns = node.mtime * _NANO
        entry.st_ctime_ns = node.ctime * _NANO
        return entry

    # Content

    @answered
    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file."""
        node = self._inodes[inode].node
        chunks = list(pieces_there(node, self._flist.codec))
        self._last_handle += 1
        self._handles[self._last_handle] = _Handle(node.path, node.size, chunks)
        return FileInfo(fh=pyfuse3.FileHandleT(self._last_handle), keep_cache=True)

    @answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read, and fetch ahead if the read continues where the last one ended."""
        handle = self._handles[fh]
        end = min(off + size, handle.size)
        if off >= end:
            return b""
        last_piece = handle.chunks[-1]
        if end > (there := last_piece.offset + last_piece.length):
            # Not a short answer: that would be the end of the file, as if nothing was lost.
            raise FormatError(f"{printable(handle.path)} is lost from byte {there:,} on")
        chunk_size = handle.chunks[0].length
        first, last = off // chunk_size, (end - 1) // chunk_size
        if off == handle.next:
            ahead = handle.chunks[last + 1 : last + 1 + _AHEAD]
            self._nursery.start_soon(self._chunks.prefetch, handle.path, ahead)
        handle.next = end
        parts = []
        for piece in handle.chunks[first : last + 1]:
            chunk = await self._chunks.get(handle.path, piece)
            parts.append(memoryview(chunk)[max(off - piece.offset, 0) : end - piece.offset])
        return b"".join(parts)

    @answered
    async def release(self, fh: int) -> None:
        """Close."""
        del self._handles[fh]

    # The rest

    @answered
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Report no free space."""
        data = StatvfsData()
        data.f_bsize = data.f_frsize = _BLOCK
        data.f_blocks = data.f_bfree = data.f_bavail = 0
        data.f_files = data.f_ffree = data.f_favail = 0
        data.f_namemax = MAX_NAME
        return data

    async def getxattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        """Report no extended attributes: after ENOSYS the kernel does not ask again."""
        raise FUSEError(errno.ENOSYS)

    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[pyfuse3.XAttrNameT]:
        """Report no extended attributes: after ENOSYS the kernel does not ask again."""
        raise FUSEError(errno.ENOSYS)


def _pass_over(_: Node, __: str) -> None:
    """Ignore an entry: it is logged when the directory is listed."""


def _leave_out(node: Node, why: str) -> None:
    log.warning("%s is left out: %s", printable(node.path) or "/", why)
