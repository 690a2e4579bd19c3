"""Put items whose content is already stored into a session's tree, many in one change.

As `cp -a` does it: directories unite and take the attributes of the item, anything else is replaced, but a
directory is never replaced by something else, nor the other way round. What is replaced lives on for programs
that have it open.

Items below a link to a directory of the tree go where the link leads, as if the tree were mounted as the
root: an absolute target starts at the top, and `..` does not lead out of it. A directory in place of such a
link is merged with the link's target, which keeps its attributes, or replaces the link, as its item says.

All methods run in the event loop's thread, and none of them waits: each is atomic.
"""

from __future__ import annotations

import json
import stat
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cache
from typing import NamedTuple

from flistfs.authoring.filesystem.chunks import Counts
from flistfs.authoring.filesystem.content import Content
from flistfs.authoring.filesystem.vfs import Vfs
from flistfs.authoring.state.change import Change
from flistfs.authoring.state.journal import Journal
from flistfs.authoring.state.records import ROOT_INO, Dirent, Inode
from flistfs.sources.item import Item, Problem
from flistfs.tree.chunks import Stored
from flistfs.tree.names import MAX_NAME, MAX_TARGET
from flistfs.tree.rules import Allowance
from flistfs.tree.uniting import followed

# Directories whose inode numbers are cached; others are looked up from the top.
_REMEMBERED = 4096

# The mode of a directory that is created without an item of its own.
_IMPLIED_MODE = stat.S_IFDIR | 0o755


class StoredPiece(NamedTuple):
    """A chunk that is stored: its number in its file, and the data of its block as in an `Outcome`."""

    number: int
    stored: Stored
    size: int
    is_new: bool
    replaced: bool


@dataclass(frozen=True, slots=True)
class Ready:
    """An item whose content is stored."""

    item: Item
    chunks: Sequence[StoredPiece] = ()


@dataclass(slots=True)
class Imported:
    """What a batch changed, for the kernel's caches; what it replaced; and the items that did not fit."""

    names: list[tuple[int, bytes]] = field(default_factory=list)
    inodes: set[int] = field(default_factory=set)
    nameless: list[int] = field(default_factory=list)
    replaced: list[bytes] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class _Draft:
    """The tree as it will be after a change is committed."""

    def __init__(self, journal: Journal, change: Change) -> None:
        self._journal = journal
        self.change = change
        self.changed: dict[int, Inode] = {}
        self._names: dict[tuple[int, bytes], Dirent] = {}
        self.made: list[Inode] = []
        self.resized = 0

    def inode(self, ino: int) -> Inode | None:
        return self.changed.get(ino) or self._journal.inode(ino)

    def child(self, parent: int, name: bytes) -> Dirent | None:
        return self._names.get((parent, name)) or self._journal.child(parent, name)

    def put(self, inode: Inode) -> None:
        self.changed[inode.ino] = inode

    def put_name(self, parent: int, entry: Dirent) -> None:
        self._names[parent, entry.name] = entry
        self.change.put_name(parent, entry)

    def finish(self) -> None:
        for inode in self.changed.values():
            self.change.put_inode(inode)


class _RefusedError(Exception):
    """An item that does not fit into the tree."""


class _Known(NamedTuple):
    """A directory that was found: its inode number, and the rest of its path's allowance."""

    ino: int
    left: Allowance


class Importer:
    """Puts items below one directory of a tree."""

    def __init__(self, journal: Journal, content: Content, vfs: Vfs, top: int, *, unique: bool) -> None:
        """Put items below the directory `top`; with `unique` only directories may occur twice."""
        self._journal = journal
        self._content = content
        self._vfs = vfs
        self._top = top
        self._unique = unique
        self._top_is_named = False
        self._directories: OrderedDict[bytes, _Known] = OrderedDict()

    def import_(self, batch: Sequence[Ready]) -> Imported:
        """Put items into the tree, all in one change.

        Raises:
            OSError: the journal cannot be written; none of the batch was imported.
        """
        done = Imported()
        counts = replace(self._content.counts)
        with self._journal.change() as change:
            draft = _Draft(self._journal, change)
            for ready in batch:
                try:
                    self._put(draft, ready, done)
                except _RefusedError as error:
                    done.problems.append(Problem(ready.item.path, str(error)))
            self._note_blocks(change, counts, batch)
            draft.finish()
            if any(ready.item.stored for ready in batch):
                change.rely_on_base()
            change.put_setting(b"counts", json.dumps(astuple(counts)).encode())
        self._content.counts = counts
        self._vfs.note_added(draft.made)
        done.inodes.update(draft.changed)
        return done

    def _note_blocks(self, change: Change, counts: Counts, batch: Sequence[Ready]) -> None:
        pieces = [piece for ready in batch for piece in ready.chunks]
        counts.add(pieces, self._journal)
        for piece in pieces:
            change.put_block(piece.stored.key, piece.stored.hash, piece.size)

    def _put(self, draft: _Draft, ready: Ready, done: Imported) -> None:
        item = ready.item
        if not item.path:
            self._put_top(draft, item)
            return
        directory, _, name = item.path.rpartition(b"/")
        parent, allowance = self._directory(draft, directory, maker=item if item.makes_parents else None)
        if len(name) > MAX_NAME:
            raise _RefusedError(f"its name is longer than {MAX_NAME} bytes")
        existing = draft.child(parent.ino, name)
        if stat.S_ISDIR(item.mode):
            self._put_directory(draft, item, parent, allowance, existing, done)
            return
        inode = self._other_name(draft, item) if item.link is not None else None
        if inode is not None and existing is not None and existing.ino == inode.ino:
            return  # already a name of the file
        self._check_replaceable(existing)
        inode = self._new(draft, ready) if inode is None else _with_name(draft, inode)
        self._name(draft, parent, Dirent(name, inode.ino, 0, stat.S_IFMT(inode.mode)), existing, done)
        done.names.append((parent.ino, name))
        if existing is not None:
            done.replaced.append(item.path)

    def _put_top(self, draft: _Draft, item: Item) -> None:
        if not stat.S_ISDIR(item.mode):
            raise _RefusedError("it has no name")
        top, _ = self._directory(draft, b"")
        self._top_is_named = True
        self._give_attributes(draft, top, item)

    def _directory(self, draft: _Draft, path: bytes, *, maker: Item | None = None) -> tuple[Inode, Allowance]:
        """Return a directory below the top, and the rest of its path's allowance; links are followed.

        Missing directories are created for the item `maker`, if there is one.
        """
        names: list[bytes] = []  # those that are not cached, the last first
        while (known := self._remembered(draft, path)) is None and path:
            path, _, name = path.rpartition(b"/")
            names.append(name)
        inode, allowance = known or (None, Allowance())
        while inode is not None and names:
            name = names.pop()
            if maker is not None and draft.child(inode.ino, name) is None:
                inode = self._implied(draft, maker, inode, name)
            else:
                inode = self._entered(draft, inode, name, allowance)
            path = path + b"/" + name if path else name
            if inode is not None:
                self._remember(path, inode.ino, allowance)
        if inode is None:
            raise _RefusedError("its parent is not a directory")
        return inode, allowance

    def _remembered(self, draft: _Draft, path: bytes) -> tuple[Inode, Allowance] | None:
        known = self._directories.get(path) if path else _Known(self._top, Allowance())
        inode = None if known is None else draft.inode(known.ino)
        if known is None or inode is None or inode.nlink == 0:
            return None
        return inode, replace(known.left)

    def _implied(self, draft: _Draft, maker: Item, parent: Inode, name: bytes) -> Inode:
        """Create a missing parent directory of an item."""
        if len(name) > MAX_NAME:
            raise _RefusedError(f"a directory above it has a name longer than {MAX_NAME} bytes")
        item = Item(b"", _IMPLIED_MODE, 0, 0, maker.mtime_ns, maker.mtime_ns)
        inode = self._make(draft, item, parent=parent.ino)
        self._name(draft, parent, Dirent(name, inode.ino, 0, stat.S_IFDIR), None, Imported())
        return inode

    def _entered(self, draft: _Draft, start: Inode, name: bytes, allowance: Allowance) -> Inode | None:
        """Return the directory that a name in another leads to; None if it does not exist."""

        @cache  # links may lead back and forth
        def look(directory: int, name: bytes) -> Inode | bytes | None:
            entry = draft.child(directory, name)
            found = None if entry is None else draft.inode(entry.ino)
            if found is None or stat.S_ISDIR(found.mode):
                return found
            return found.target if stat.S_ISLNK(found.mode) else None

        inode = followed(
            start,
            name,
            root=draft.inode(ROOT_INO) or start,
            above=lambda inode: draft.inode(inode.parent) or inode,
            look=lambda inode, name: look(inode.ino, name),
            allowance=allowance,
        )
        if allowance.is_spent:
            raise _RefusedError("too many links in its path")
        return inode

    def _remember(self, path: bytes, ino: int, allowance: Allowance) -> None:
        self._directories[path] = _Known(ino, replace(allowance))
        self._directories.move_to_end(path)
        while len(self._directories) > _REMEMBERED:
            self._directories.popitem(last=False)

    def _put_directory(
        self,
        draft: _Draft,
        item: Item,
        parent: Inode,
        allowance: Allowance,
        existing: Dirent | None,
        done: Imported,
    ) -> None:
        name = item.path.rpartition(b"/")[2]
        inode = None if existing is None else self._united_with(draft, item, parent, allowance, existing)
        if inode is not None:
            # Its name stays: without it the kernel would detach what is mounted inside.
            if existing is not None and existing.ino == inode.ino:
                self._give_attributes(draft, inode, item)
            self._remember(item.path, inode.ino, allowance)
            return
        inode = self._make(draft, item, parent=parent.ino)
        self._name(draft, parent, Dirent(name, inode.ino, 0, stat.S_IFDIR), existing, done)
        if existing is not None:
            done.replaced.append(item.path)
        self._remember(item.path, inode.ino, allowance)
        done.names.append((parent.ino, name))

    def _united_with(
        self, draft: _Draft, item: Item, parent: Inode, allowance: Allowance, existing: Dirent
    ) -> Inode | None:
        """Return the directory that an item is merged with; None if the item replaces the entry."""
        inode = draft.inode(existing.ino)
        if inode is not None and stat.S_ISLNK(inode.mode):
            if item.replaces_link:
                return None
            inode = self._entered(draft, parent, existing.name, allowance)
        if inode is None or not stat.S_ISDIR(inode.mode):
            raise _RefusedError("something other than a directory already exists")
        return inode

    def _give_attributes(self, draft: _Draft, directory: Inode, item: Item) -> None:
        draft.put(
            directory._replace(
                mode=item.mode,
                uid=item.uid,
                gid=item.gid,
                mtime_ns=item.mtime_ns,
                atime_ns=item.atime_ns,
                ctime_ns=_ctime(item),
            )
        )
        self._vfs.adopt_xattrs(draft.change, directory.ino, item.xattrs)

    def _check_replaceable(self, existing: Dirent | None) -> None:
        if existing is None:
            return
        if existing.kind == stat.S_IFDIR:
            raise _RefusedError("a directory already exists")
        if self._unique:
            raise _RefusedError("it occurs twice")

    def _other_name(self, draft: _Draft, item: Item) -> Inode:
        """Return the file that an item is a hard link to."""
        directory, _, name = (item.link or b"").rpartition(b"/")
        try:
            parent, _ = self._directory(draft, directory)
            entry = draft.child(parent.ino, name)
        except _RefusedError:
            entry = None
        inode = None if entry is None else draft.inode(entry.ino)
        if inode is None or stat.S_ISDIR(inode.mode):
            raise _RefusedError("it is a hard link to a file that does not exist")
        return inode

    def _new(self, draft: _Draft, ready: Ready) -> Inode:
        if len(ready.item.target) > MAX_TARGET:
            raise _RefusedError(f"its target is longer than {MAX_TARGET} bytes")
        inode = self._make(draft, ready.item, chunks=len(ready.chunks) + len(ready.item.stored))
        for piece in ready.chunks:
            draft.change.put_stored(inode.ino, piece.number, piece.stored)
        for number, stored in enumerate(ready.item.stored):
            draft.change.put_stored(inode.ino, number, stored)
        return inode

    def _make(self, draft: _Draft, item: Item, *, parent: int = 0, chunks: int = 0) -> Inode:
        is_directory = stat.S_ISDIR(item.mode)
        inode = Inode(
            ino=self._journal.next_id(),
            mode=item.mode,
            uid=item.uid,
            gid=item.gid,
            nlink=2 if is_directory else 1,
            rdev=item.rdev,
            size=len(item.target) or item.size,
            chunks=chunks,
            atime_ns=item.atime_ns,
            mtime_ns=item.mtime_ns,
            ctime_ns=_ctime(item),
            parent=parent,
            target=item.target,
        )
        draft.put(inode)
        draft.made.append(inode)
        if item.xattrs:
            self._vfs.adopt_xattrs(draft.change, inode.ino, item.xattrs)
        return inode

    def _name(
        self, draft: _Draft, parent: Inode, entry: Dirent, existing: Dirent | None, done: Imported
    ) -> None:
        """Name an inode, replacing the entry that had the name."""
        if existing is not None:
            draft.change.drop_name(parent.ino, existing)
            if existing.kind == stat.S_IFLNK:
                self._directories.clear()  # they may have been found through it
            self._lose_name(draft, existing, done)
        draft.put_name(parent.ino, entry._replace(cookie=self._journal.next_id()))
        parent = draft.changed.get(parent.ino, parent)
        parent = parent._replace(
            size=parent.size + (existing is None), nlink=parent.nlink + (entry.kind == stat.S_IFDIR)
        )
        if parent.ino == self._top and not self._top_is_named:
            now = time.time_ns()
            parent = parent._replace(mtime_ns=now, ctime_ns=now)
        draft.put(parent)

    def _lose_name(self, draft: _Draft, entry: Dirent, done: Imported) -> None:
        inode = draft.inode(entry.ino)
        if inode is None:
            return
        draft.put(inode._replace(nlink=inode.nlink - 1, ctime_ns=time.time_ns()))
        if inode.nlink == 1:
            draft.change.put_orphan(inode.ino)
            done.nameless.append(inode.ino)


def _with_name(draft: _Draft, inode: Inode) -> Inode:
    """Return the inode of a file with one more hard link."""
    inode = inode._replace(nlink=inode.nlink + 1, ctime_ns=time.time_ns())
    draft.put(inode)
    return inode


def _ctime(item: Item) -> int:
    return time.time_ns() if item.ctime_ns is None else item.ctime_ns
