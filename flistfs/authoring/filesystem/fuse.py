"""pyfuse3 to `vfs` and back, and nothing else: arguments, attributes, errors.

The kernel caches names, attributes and pages for as long as it likes, since only the kernel changes
them. Two requests are answered with ENOSYS, after which the kernel sends none of their kind again:

- getxattr and listxattr, unless the session keeps extended attributes: else every write would ask for one.
- flush: what a close() needs to be safe is done when each write is answered, so there is nothing to flush;
  errors reach the writer with the write itself.

setxattr says EOPNOTSUPP each time, so that attempts can be counted.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, InodeT, RequestContext, SetattrFields, StatvfsData

from flistfs.authoring.filesystem.values import DIRECTORY_SIZE, Attributes, Caller, allocated
from flistfs.authoring.filesystem.vfs import Vfs
from flistfs.authoring.state.records import ROOT_INO, Inode
from flistfs.fuse.handlers import TIMEOUT, Handlers, answered, may_access, no_such_name
from flistfs.tree.chunks import CHUNK_SIZE
from flistfs.tree.names import MAX_NAME

log = logging.getLogger(__name__)

# How much programs are advised to read and write at a time, in bytes (st_blksize). `cp` takes 128 KiB
# otherwise, and each of its writes is a request: 1 GiB costs the daemon 1.6 s of CPU instead of 2.5. Twice as
# much gains nothing more.
_IO_SIZE = CHUNK_SIZE


def _caller(ctx: RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid)


def _entry(inode: Inode) -> EntryAttributes:
    entry = EntryAttributes()
    entry.st_ino = InodeT(inode.ino)
    entry.entry_timeout = entry.attr_timeout = TIMEOUT
    entry.st_mode = pyfuse3.ModeT(inode.mode)
    entry.st_nlink = inode.nlink
    entry.st_uid = inode.uid
    entry.st_gid = inode.gid
    entry.st_rdev = inode.rdev
    entry.st_size = DIRECTORY_SIZE if stat.S_ISDIR(inode.mode) else inode.size
    entry.st_blksize = _IO_SIZE
    entry.st_blocks = allocated(inode)
    entry.st_atime_ns = inode.atime_ns
    entry.st_mtime_ns = inode.mtime_ns
    entry.st_ctime_ns = inode.ctime_ns
    return entry


def invalidate(names: Sequence[tuple[int, bytes]], inodes: Iterable[int]) -> None:
    """Let the kernel forget names and what it knows of inodes, because the tree was changed without it.

    Blocks, and waits for requests that concern the same names: never in the event loop.
    """
    for parent, name in names:
        with suppress(OSError):  # most it has never heard of
            pyfuse3.invalidate_entry(InodeT(parent), pyfuse3.FileNameT(name))
    for ino in inodes:
        with suppress(OSError):
            pyfuse3.invalidate_inode(InodeT(ino))


class Operations(Handlers):
    """The request handlers of a mounted session; `requests` counts them by kind."""

    supports_dot_lookup = True

    def __init__(
        self, vfs: Vfs, state: Path, answering: Callable[[], None], *, keep_xattrs: bool = False
    ) -> None:
        """Serve `vfs`.

        Args:
            vfs: What answers.
            state: A directory on the disk that holds what is written.
            answering: Called when the kernel has said hello, so that requests are served.
            keep_xattrs: Whether there are extended attributes.
        """
        super().__init__(answering)
        self._keep_xattrs = keep_xattrs
        self._asked_xattr = False
        self._vfs = vfs
        self._state = state

    def errno_of(self, error: Exception, request: str) -> int:
        """Return an OSError's own errno, unlogged: such errors are how `vfs` answers."""
        if isinstance(error, OSError):
            return error.errno or errno.EIO
        return super().errno_of(error, request)

    @answered
    async def lookup(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Find a name."""
        inode = self._vfs.lookup(parent_inode, name)
        return no_such_name() if inode is None else _entry(inode)

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """Let go of inodes. There is nobody to answer an error to."""
        for ino, _ in inode_list:
            try:
                self._vfs.forget(ino)
            except Exception:
                log.exception("forgetting inode %d failed", ino)

    @answered
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:
        """Stat."""
        return _entry(self._vfs.inode(inode))

    @answered
    async def access(self, inode: InodeT, mode: int, ctx: RequestContext) -> bool:
        """Answer access(2) and chdir(2) where the kernel does not check permissions."""
        return may_access(self._vfs.inode(inode).mode, mode)

    @answered
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        """Change mode, owner, size or times."""
        wanted = Attributes(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return _entry(await self._vfs.setattr(inode, wanted))

    @answered
    async def readlink(self, inode: InodeT, ctx: RequestContext) -> pyfuse3.FileNameT:
        """Read a symbolic link."""
        return pyfuse3.FileNameT(self._vfs.readlink(inode))

    @answered
    async def mknod(
        self, parent_inode: InodeT, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        """Make a file, fifo, socket or device."""
        return _entry(self._vfs.mknod(parent_inode, name, mode, rdev, _caller(ctx)))

    @answered
    async def mkdir(
        self, parent_inode: InodeT, name: bytes, mode: int, ctx: RequestContext
    ) -> EntryAttributes:
        """Make a directory."""
        return _entry(self._vfs.mkdir(parent_inode, name, mode, _caller(ctx)))

    @answered
    async def symlink(
        self, parent_inode: InodeT, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        """Make a symbolic link."""
        return _entry(self._vfs.symlink(parent_inode, name, target, _caller(ctx)))

    @answered
    async def link(
        self, inode: InodeT, new_parent_inode: InodeT, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        """Make a hard link."""
        return _entry(self._vfs.link(inode, new_parent_inode, new_name))

    @answered
    async def unlink(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        """Remove a name."""
        self._vfs.unlink(parent_inode, name)

    @answered
    async def rmdir(self, parent_inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        """Remove a directory."""
        self._vfs.rmdir(parent_inode, name)

    @answered
    async def rename(
        self,
        parent_inode_old: InodeT,
        name_old: bytes,
        parent_inode_new: InodeT,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        """Rename, exchange."""
        self._vfs.rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)

    @answered
    async def create(
        self, parent_inode: InodeT, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        """Make and open a file."""
        inode, handle = self._vfs.create(parent_inode, name, mode, flags, _caller(ctx))
        return FileInfo(fh=pyfuse3.FileHandleT(handle)), _entry(inode)

    @answered
    async def open(self, inode: InodeT, flags: int, ctx: RequestContext) -> FileInfo:
        """Open a file."""
        handle = await self._vfs.open(inode, flags, _caller(ctx))
        return FileInfo(fh=pyfuse3.FileHandleT(handle))

    @answered
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Read."""
        return await self._vfs.read(fh, off, size)

    @answered
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write."""
        return await self._vfs.write(fh, off, buf)

    @answered
    async def flush(self, fh: int) -> None:
        """Answer that there is nothing to flush, once for the whole mount."""
        raise FUSEError(errno.ENOSYS)

    @answered
    async def release(self, fh: int) -> None:
        """Close: sent by the kernel after close() returned."""
        self._vfs.release(fh)

    @answered
    async def fsync(self, fh: int, datasync: bool) -> None:  # noqa: FBT001  pyfuse3's signature
        """Make a file survive a power cut."""
        await self._vfs.fsync(fh)

    @answered
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> pyfuse3.FileHandleT:
        """Open a directory."""
        return pyfuse3.FileHandleT(self._vfs.opendir(inode))

    @answered
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List a directory from a cookie on."""
        vfs, reply = self._vfs, pyfuse3.readdir_reply
        if start_id == 0:
            vfs.rewind(fh)
        for position, name in ((1, b"."), (2, b"..")):
            if start_id < position:
                inode = vfs.lookup(vfs.listed(fh), name)
                if inode is None or not reply(token, pyfuse3.FileNameT(name), _entry(inode), position):
                    return
        for entry in vfs.listing(fh, max(start_id, 2)):
            attributes = _entry(vfs.inode(entry.ino))
            if not reply(token, pyfuse3.FileNameT(entry.name), attributes, entry.cookie):
                return

    @answered
    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        self._vfs.releasedir(fh)

    @answered
    async def fsyncdir(self, fh: int, datasync: bool) -> None:  # noqa: FBT001  pyfuse3's signature
        """Make a directory's names survive a power cut."""
        await self._vfs.fsyncdir()

    @answered
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        """Return the space left for content that is not stored yet."""
        disk = os.statvfs(self._state)
        totals = self._vfs.totals
        used = totals.files + totals.directories + totals.links + totals.specials
        data = StatvfsData()
        data.f_bsize = data.f_frsize = disk.f_frsize
        data.f_blocks, data.f_bfree, data.f_bavail = disk.f_blocks, disk.f_bfree, disk.f_bavail
        data.f_files, data.f_ffree, data.f_favail = used + (1 << 32), 1 << 32, 1 << 32
        data.f_namemax = MAX_NAME
        return data

    @answered
    async def setxattr(self, inode: InodeT, name: bytes, value: bytes, ctx: RequestContext) -> None:
        """Set an extended attribute."""
        self._vfs.setxattr(inode, name, value)

    @answered
    async def getxattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> bytes:
        """Get an extended attribute; where there are none, say so once for the whole mount."""
        self._refuse_xattrs()
        return self._vfs.getxattr(inode, name)

    @answered
    async def listxattr(self, inode: InodeT, ctx: RequestContext) -> Sequence[pyfuse3.XAttrNameT]:
        """List extended attributes; where there are none, say so once for the whole mount."""
        if not self._keep_xattrs:
            raise FUSEError(errno.ENOSYS)
        return [pyfuse3.XAttrNameT(name) for name in self._vfs.listxattr(inode)]

    @answered
    async def removexattr(self, inode: InodeT, name: bytes, ctx: RequestContext) -> None:
        """Remove an extended attribute."""
        if not self._keep_xattrs:
            raise FUSEError(errno.EOPNOTSUPP)
        self._vfs.removexattr(inode, name)

    def _refuse_xattrs(self) -> None:
        """Answer getxattr where there are no extended attributes.

        The kernel asks once. After that it is pyfuse3 that asks, to see whether an attribute that is to be
        set exists. It does not; and an ENOSYS would become the answer to setxattr, after which the kernel
        would send none, and none could be counted.
        """
        if not self._keep_xattrs:
            asked, self._asked_xattr = self._asked_xattr, True
            raise FUSEError(errno.ENODATA if asked else errno.ENOSYS)


assert pyfuse3.ROOT_INODE == ROOT_INO  # noqa: S101  the journal's root is the kernel's
