"""POSIX operations on the session's tree, independent of FUSE.

One module of over 400 lines: each operation is a method on the same tables, and delegating them would add a
call to every request.

Inodes are identified by number. Each operation raises `OSError` with the errno for the caller of the system
call. The kernel checks permissions (mount option `default_permissions`); this module does what the kernel
leaves to file systems: set-gid directories, O_TRUNC on a set-id file, link counts, times.

All methods run in one thread (the event loop's). Those without `async` are atomic; those with it make all
changes after their last await.

Reading does not change the access time: flists do not hold it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping

import trio

from flistfs.authoring.filesystem.content import Content
from flistfs.authoring.filesystem.values import (
    ACL_PREFIX,
    MINIMAL_ACL_SIZE,
    Attributes,
    Caller,
    Directories,
    Listing,
    OpenFile,
    Totals,
    grown,
    now_ns,
    os_error,
    without_set_id,
)
from flistfs.authoring.state.change import Change
from flistfs.authoring.state.journal import Journal
from flistfs.authoring.state.records import ROOT_INO, Dirent, Inode
from flistfs.errors import SourceError
from flistfs.tree.names import MAX_NAME, MAX_TARGET

# Limits of the Linux VFS on a name and on a link's target (limits.h, NAME_MAX and PATH_MAX - 1).

# linux/fs.h
RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2


class Vfs:
    """The tree of a session, for reading and writing."""

    def __init__(
        self, journal: Journal, content: Content, *, owner: Caller, keep_xattrs: bool = False
    ) -> None:
        """Open the tree in `journal`; a new one gets a root directory owned by `owner`.

        With `keep_xattrs`, extended attributes are kept for the life of the session.
        """
        self._journal = journal
        self._content = content
        self._open: dict[int, OpenFile] = {}
        self._listings: dict[int, Listing] = {}
        self.totals = Totals()
        self.changes = 0  # counts changes by callers, so that a seal can detect them
        self._keep_xattrs = keep_xattrs
        self._has_xattrs = keep_xattrs or journal.count_xattrs() > 0  # from an earlier mount
        self._refused_xattrs = int(journal.setting(b"xattrs") or 0)
        if journal.inode(ROOT_INO) is None:
            self._make_root(owner)
        self._sweep_orphans()
        for inode in journal.inodes():
            self.totals.add(inode, 1)

    def _make_root(self, owner: Caller) -> None:
        now = now_ns()
        root = Inode(
            ROOT_INO, stat.S_IFDIR | 0o755, owner.uid, owner.gid, 2, 0, 0, 0, now, now, now, ROOT_INO, b""
        )
        with self._journal.change() as change:
            change.put_inode(root)

    def _sweep_orphans(self) -> None:
        """Remove inodes that had no name when the session's last daemon ended."""
        for ino in list(self._journal.orphans()):
            inode = self._journal.inode(ino)
            if inode is not None:
                with self._journal.change(makes_room=True) as change:
                    self._drop(change, inode)

    def _drop(self, change: Change, inode: Inode) -> None:
        """Remove an inode with its content and extended attributes."""
        if inode.chunks:
            self._content.drop(change, inode)
        if self._has_xattrs:
            for name in self._journal.xattrs(inode.ino):
                change.drop_xattr(inode.ino, name)
        change.drop_inode(inode.ino)

    # Lookups

    def inode(self, ino: int) -> Inode:
        """Return an inode."""
        found = self._journal.inode(ino)
        if found is None:
            raise os_error(errno.ESTALE)
        return found

    def lookup(self, parent: int, name: bytes) -> Inode | None:
        """Return the inode of a name, or None."""
        if name == b".":
            return self.inode(parent)
        if name == b"..":
            return self.inode(self.inode(parent).parent)
        _check_name(name)
        entry = self._journal.child(parent, name)
        return None if entry is None else self.inode(entry.ino)

    def _entry(self, parent: int, name: bytes) -> Dirent:
        _check_name(name)
        entry = self._journal.child(parent, name)
        if entry is None:
            raise os_error(errno.ENOENT)
        return entry

    def readdir(self, ino: int, after: int) -> Iterator[Dirent]:
        """Yield the entries of a directory from a cookie (0 is the start).

        Entries that exist throughout appear once, whatever is created or removed meanwhile.
        """
        return self._journal.children(ino, after)

    def opendir(self, ino: int) -> int:
        """Open a directory for listing; return a handle of its own."""
        self.inode(ino)
        handle = self._journal.next_id()
        self._listings[handle] = Listing(ino, handle)
        return handle

    def rewind(self, handle: int) -> None:
        """Restart a listing: it then shows the present entries."""
        self._listings[handle].end = self._journal.next_id()

    def listed(self, handle: int) -> int:
        """Return the inode number of the listed directory."""
        return self._listings[handle].ino

    def listing(self, handle: int, after: int) -> Iterator[Dirent]:
        """Yield the entries of an opened directory from a cookie.

        Entries created after the listing began are not in it, so that a program that creates a name for each
        name it reads terminates.
        """
        listing = self._listings[handle]
        for entry in self.readdir(listing.ino, after):
            if entry.cookie > listing.end:
                return
            yield entry

    def releasedir(self, handle: int) -> None:
        """End a listing."""
        del self._listings[handle]

    def readlink(self, ino: int) -> bytes:
        """Return a symbolic link's target."""
        return self.inode(ino).target

    # Making

    def _make(
        self,
        parent: int,
        name: bytes,
        mode: int,
        caller: Caller,
        *,
        rdev: int = 0,
        target: bytes = b"",
    ) -> Inode:
        """Create a new inode with a name."""
        _check_name(name)
        self._content.check_names()
        directory = self._directory(parent)
        if self._journal.child(parent, name) is not None:
            raise os_error(errno.EEXIST)
        gid = caller.gid
        if directory.mode & stat.S_ISGID:
            gid = directory.gid
            if stat.S_ISDIR(mode):
                mode |= stat.S_ISGID
        now = now_ns()
        is_dir = stat.S_ISDIR(mode)
        ino = self._journal.next_id()
        inode = Inode(
            ino,
            mode,
            caller.uid,
            gid,
            2 if is_dir else 1,
            rdev,
            len(target),
            0,
            now,
            now,
            now,
            parent if is_dir else 0,
            target,
        )
        with self._journal.change() as change:
            change.put_inode(inode)
            change.put_name(parent, Dirent(name, ino, self._journal.next_id(), stat.S_IFMT(mode)))
            change.put_inode(grown(directory, 1, int(is_dir), now))
        self._changed()
        self.totals.add(inode, 1)
        return inode

    def _directory(self, ino: int) -> Inode:
        """Return a directory in which entries may be created."""
        directory = self.inode(ino)
        if not stat.S_ISDIR(directory.mode):
            raise os_error(errno.ENOTDIR)
        if directory.nlink == 0:  # removed, but still a process's working directory
            raise os_error(errno.ENOENT)
        return directory

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Inode:
        """Create a directory."""
        return self._make(parent, name, stat.S_IFDIR | stat.S_IMODE(mode), caller)

    def make_directories(self, path: bytes, caller: Caller) -> tuple[int, list[tuple[int, bytes]]]:
        """Create the missing directories of a path.

        Returns the last one's number, and the created names, each with its parent's number.

        Raises:
            SourceError: a component exists and is not a directory.
        """
        ino, made = ROOT_INO, []
        for name in filter(None, path.split(b"/")):
            inode = None if name in {b".", b".."} else self.lookup(ino, name)
            if inode is None and name not in {b".", b".."}:
                made.append((ino, name))
                inode = self.mkdir(ino, name, 0o755, caller)
            if inode is None or not stat.S_ISDIR(inode.mode):
                raise SourceError(f"`to` {os.fsdecode(path)}: it does not lead to a directory")
            ino = inode.ino
        return ino, made

    def mknod(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Inode:
        """Create a file, FIFO, socket or device; `mode` has the type bits."""
        if not stat.S_IFMT(mode):
            mode |= stat.S_IFREG
        return self._make(parent, name, mode, caller, rdev=rdev)

    def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> tuple[Inode, int]:
        """Create a file and open it; return it and a handle."""
        inode = self._make(parent, name, stat.S_IFREG | stat.S_IMODE(mode), caller)
        return inode, self._open_handle(inode.ino, flags)

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Inode:
        """Create a symbolic link."""
        if len(target) > MAX_TARGET:
            raise os_error(errno.ENAMETOOLONG)
        return self._make(parent, name, stat.S_IFLNK | 0o777, caller, target=target)

    def link(self, ino: int, parent: int, name: bytes) -> Inode:
        """Add another name for an inode."""
        _check_name(name)
        inode = self.inode(ino)
        if stat.S_ISDIR(inode.mode):
            raise os_error(errno.EPERM)
        if inode.nlink == 0:
            raise os_error(errno.ENOENT)
        self._content.check_names()
        directory = self._directory(parent)
        if self._journal.child(parent, name) is not None:
            raise os_error(errno.EEXIST)
        now = now_ns()
        inode = inode._replace(nlink=inode.nlink + 1, ctime_ns=now)
        with self._journal.change() as change:
            change.put_inode(inode)
            change.put_name(parent, Dirent(name, ino, self._journal.next_id(), stat.S_IFMT(inode.mode)))
            change.put_inode(grown(directory, 1, 0, now))
        self._changed()
        return inode

    # Removing

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a name that is not a directory."""
        entry = self._entry(parent, name)
        if entry.kind == stat.S_IFDIR:
            raise os_error(errno.EISDIR)
        now = now_ns()
        with self._journal.change(makes_room=True) as change:
            change.drop_name(parent, entry)
            change.put_inode(grown(self.inode(parent), -1, 0, now))
            self._lose_name(change, self.inode(entry.ino), now)
        self._changed()

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory."""
        entry = self._entry(parent, name)
        if entry.kind != stat.S_IFDIR:
            raise os_error(errno.ENOTDIR)
        inode = self.inode(entry.ino)
        if inode.size:
            raise os_error(errno.ENOTEMPTY)
        now = now_ns()
        with self._journal.change(makes_room=True) as change:
            change.drop_name(parent, entry)
            change.put_inode(grown(self.inode(parent), -1, -1, now))
            self._lose_name(change, inode, now)
        self._changed()

    def _lose_name(self, change: Change, inode: Inode, now: int) -> None:
        """Remove a name from an inode; without names it is kept until the kernel forgets it."""
        nlink = 0 if stat.S_ISDIR(inode.mode) else inode.nlink - 1
        change.put_inode(inode._replace(nlink=nlink, ctime_ns=now))
        if nlink == 0:
            change.put_orphan(inode.ino)

    def forget(self, ino: int) -> None:
        """Remove an inode that the kernel no longer references, if it has no name either."""
        inode = self._journal.inode(ino)
        if inode is None or inode.nlink > 0 or ino in self._open:
            return
        with self._journal.change(makes_room=True) as change:
            self._drop(change, inode)
        self.totals.add(inode, -1)

    # Renaming

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        """Move a name, over an existing one unless `flags` forbids it, or exchange two."""
        _check_name(new_name)
        entry = self._entry(parent, name)
        target_directory = self._directory(new_parent)
        other = self._journal.child(new_parent, new_name)
        if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
            raise os_error(errno.EINVAL)
        if flags & RENAME_NOREPLACE and other is not None:
            raise os_error(errno.EEXIST)
        if entry.kind == stat.S_IFDIR:
            self._check_not_inside(entry.ino, target_directory)
        if flags & RENAME_EXCHANGE:
            if other is None:
                raise os_error(errno.ENOENT)
            if other.kind == stat.S_IFDIR:
                self._check_not_inside(other.ino, self.inode(parent))
            self._exchange(parent, entry, new_parent, other)
        elif other is None or other.ino != entry.ino:
            self._move(parent, entry, new_parent, new_name, other)
        else:
            return  # two names of one file: POSIX requires that both stay
        self._changed()

    def _check_not_inside(self, ino: int, directory: Inode) -> None:
        """Raise EINVAL if a directory would be moved into itself."""
        while directory.ino != ROOT_INO:
            if directory.ino == ino:
                raise os_error(errno.EINVAL)
            directory = self.inode(directory.parent)

    def _move(
        self, parent: int, entry: Dirent, new_parent: int, new_name: bytes, other: Dirent | None
    ) -> None:
        now = now_ns()
        is_dir = int(entry.kind == stat.S_IFDIR)
        if other is not None:
            self._check_replaceable(entry, other)
        # A concurrent listing shows a replaced name once and a renamed file once: each keeps its cookie.
        if other is not None:
            cookie = other.cookie
        else:
            cookie = entry.cookie if parent == new_parent else self._journal.next_id()
        moved = self.inode(entry.ino)._replace(ctime_ns=now)
        if is_dir:
            moved = moved._replace(parent=new_parent)
        with self._journal.change() as change:
            directories = Directories(self, now)
            change.drop_name(parent, entry)
            directories.grow(parent, -1, -is_dir)
            if other is not None:
                change.drop_name(new_parent, other)
                directories.grow(new_parent, -1, -int(other.kind == stat.S_IFDIR))
                self._lose_name(change, self.inode(other.ino), now)
            change.put_name(new_parent, Dirent(new_name, entry.ino, cookie, entry.kind))
            directories.grow(new_parent, 1, is_dir)
            change.put_inode(moved)
            directories.put(change)

    def _check_replaceable(self, entry: Dirent, other: Dirent) -> None:
        if other.kind == stat.S_IFDIR:
            if entry.kind != stat.S_IFDIR:
                raise os_error(errno.EISDIR)
            if self.inode(other.ino).size:
                raise os_error(errno.ENOTEMPTY)
        elif entry.kind == stat.S_IFDIR:
            raise os_error(errno.ENOTDIR)

    def _exchange(self, parent: int, entry: Dirent, new_parent: int, other: Dirent) -> None:
        if entry.ino == other.ino:
            return
        now = now_ns()
        with self._journal.change() as change:
            directories = Directories(self, now)
            change.put_name(parent, other._replace(name=entry.name, cookie=entry.cookie))
            change.put_name(new_parent, entry._replace(name=other.name, cookie=other.cookie))
            delta = int(other.kind == stat.S_IFDIR) - int(entry.kind == stat.S_IFDIR)
            directories.grow(parent, 0, delta)
            directories.grow(new_parent, 0, -delta)
            for moved, directory in ((entry, new_parent), (other, parent)):
                inode = self.inode(moved.ino)._replace(ctime_ns=now)
                if moved.kind == stat.S_IFDIR:
                    inode = inode._replace(parent=directory)
                change.put_inode(inode)
            directories.put(change)

    # Attributes

    async def setattr(self, ino: int, wanted: Attributes) -> Inode:
        """Change an inode's attributes."""
        if wanted.size is not None:
            await self._prepare_resize(ino, wanted.size)
        inode = self.inode(ino)
        now = now_ns()
        makes_room = wanted.size is not None and wanted.size < inode.size
        with self._journal.change(makes_room=makes_room) as change:
            changed = inode
            if wanted.size is not None:
                changed = self._content.resize(change, inode, wanted.size)._replace(mtime_ns=now)
            if wanted.mode is not None:
                changed = changed._replace(mode=stat.S_IFMT(inode.mode) | stat.S_IMODE(wanted.mode))
            changed = changed._replace(
                uid=inode.uid if wanted.uid is None else wanted.uid,
                gid=inode.gid if wanted.gid is None else wanted.gid,
                atime_ns=inode.atime_ns if wanted.atime_ns is None else wanted.atime_ns,
                mtime_ns=changed.mtime_ns if wanted.mtime_ns is None else wanted.mtime_ns,
                ctime_ns=now,
            )
            change.put_inode(changed)
        self._changed()
        self.totals.size += changed.size - inode.size if stat.S_ISREG(inode.mode) else 0
        return changed

    async def _prepare_resize(self, ino: int, size: int) -> None:
        if size > self._content.max_size:
            raise os_error(errno.EFBIG)
        inode = self.inode(ino)
        if stat.S_ISDIR(inode.mode):
            raise os_error(errno.EISDIR)
        if not stat.S_ISREG(inode.mode):
            raise os_error(errno.EINVAL)
        await self._bring_for(ino, lambda current: self._content.border(current, size))

    async def _bring_for(self, ino: int, needs: Callable[[Inode], list[int]]) -> None:
        """Bring the chunks that `needs` returns for the inode, until it returns the same after bringing.

        The file may change while a chunk is brought, and then need other chunks. A file without chunks, as
        every new one is, needs none.
        """
        inode = self.inode(ino)
        while inode.chunks and (wanted := needs(inode)):
            await self._content.bring(ino, wanted)
            current = self.inode(ino)
            if current.size == inode.size:
                return
            inode = current

    # Extended attributes

    def setxattr(self, ino: int, name: bytes, value: bytes) -> None:
        """Set an extended attribute, if the session keeps them; an flist cannot hold it either way."""
        inode = self.inode(ino)
        is_acl = name.startswith(ACL_PREFIX)
        if is_acl or not self._keep_xattrs:
            # `cp -a` sets a minimal ACL on every file; it equals the mode, so nothing is lost.
            if not is_acl or len(value) > MINIMAL_ACL_SIZE:
                self._count_refused_xattr()
            raise os_error(errno.EOPNOTSUPP)
        if len(name) > MAX_NAME:
            raise os_error(errno.ERANGE)
        self._content.check_names()
        with self._journal.change() as change:
            change.put_xattr(ino, name, value)
            change.put_inode(inode._replace(ctime_ns=now_ns()))
        self._changed()

    def _count_refused_xattr(self) -> None:
        with self._journal.change() as change:
            self._refuse_xattrs(change, 1)

    def _refuse_xattrs(self, change: Change, count: int) -> None:
        self._refused_xattrs += count
        change.put_setting(b"xattrs", str(self._refused_xattrs).encode())

    def adopt_xattrs(self, change: Change, ino: int, xattrs: Mapping[bytes, bytes]) -> None:
        """Set the extended attributes of an imported inode, or count them."""
        if not self._keep_xattrs:
            if xattrs:
                self._refuse_xattrs(change, len(xattrs))
            return
        for name, value in xattrs.items():
            change.put_xattr(ino, name, value)

    def note_added(self, made: Iterable[Inode]) -> None:
        """Count inodes that were added to the tree by an import."""
        for inode in made:
            self.totals.add(inode, 1)
        self._changed()

    def getxattr(self, ino: int, name: bytes) -> bytes:
        """Return an extended attribute."""
        value = self._journal.xattr(ino, name)
        if value is None:
            raise os_error(errno.ENODATA)
        return value

    def listxattr(self, ino: int) -> list[bytes]:
        """List the names of an inode's extended attributes."""
        return list(self._journal.xattrs(ino))

    def removexattr(self, ino: int, name: bytes) -> None:
        """Remove an extended attribute."""
        self.getxattr(ino, name)
        with self._journal.change() as change:
            change.drop_xattr(ino, name)
            change.put_inode(self.inode(ino)._replace(ctime_ns=now_ns()))
        self._changed()

    # Content

    def _open_handle(self, ino: int, flags: int) -> int:
        """Count an opened file. The handle encodes the inode, and whether it is open for writing."""
        writing = int(flags & os.O_ACCMODE != os.O_RDONLY)
        opened = self._open.setdefault(ino, OpenFile())
        opened.count += 1
        opened.writers += writing
        return ino << 1 | writing

    async def open(self, ino: int, flags: int, caller: Caller) -> int:
        """Open a file, and empty it with O_TRUNC; return a handle."""
        inode = self.inode(ino)
        if flags & os.O_TRUNC:
            wanted = Attributes(size=0)
            if caller.uid != 0 and inode.mode & (stat.S_ISUID | stat.S_ISGID):
                wanted = Attributes(size=0, mode=without_set_id(inode, caller))
            await self.setattr(ino, wanted)
        return self._open_handle(ino, flags)

    async def read(self, handle: int, offset: int, length: int) -> bytes:
        """Read up to `length` bytes at `offset`; fewer only at the end of the file."""
        return await self._content.read(handle >> 1, offset, length)

    async def write(self, handle: int, offset: int, data: bytes) -> int:
        """Write all of `data` at `offset`; it survives the daemon's death once this returns."""
        ino = handle >> 1
        if not data:
            return 0
        if offset + len(data) > self._content.max_size:
            raise os_error(errno.EFBIG)
        await self._content.room()
        await self._bring_for(ino, lambda current: self._content.needs(current, offset, len(data)))
        inode = self.inode(ino)
        now = now_ns()
        with self._journal.change() as change:
            changed = self._content.write(change, inode, offset, data)
            change.put_inode(changed._replace(mtime_ns=now, ctime_ns=now))
        self._changed()
        self.totals.size += changed.size - inode.size
        return len(data)

    async def fsync(self, handle: int) -> None:
        """Make a file's content and attributes survive a power cut."""
        await self._content.sync_file(handle >> 1)
        await trio.to_thread.run_sync(self._journal.sync)

    async def fsyncdir(self) -> None:
        """Make all names survive a power cut."""
        await trio.to_thread.run_sync(self._journal.sync)

    def release(self, handle: int) -> None:
        """Close an open file; after its last writer, the file's chunks are settled."""
        ino, writing = handle >> 1, handle & 1
        opened = self._open[ino]
        opened.count -= 1
        opened.writers -= writing
        if opened.count == 0:
            del self._open[ino]
        if writing and opened.writers == 0:
            inode = self._journal.inode(ino)
            if inode is not None and inode.nlink > 0:
                self._content.settle_file(ino, inode.size)

    def _changed(self) -> None:
        self.changes += 1


def _check_name(name: bytes) -> None:
    if len(name) > MAX_NAME:
        raise os_error(errno.ENAMETOOLONG)
