"""One atomic change of a session's journal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from rocksdict import WriteBatch

from flistfs.authoring.state.records import (
    BLOCK_HEAD,
    CHUNK_HEAD,
    CHUNK_KEY,
    ENTRY,
    ID,
    INODE,
    ORDERED_ENTRY,
    Dirent,
    Inode,
)
from flistfs.tree.chunks import Stored

if TYPE_CHECKING:
    from flistfs.authoring.state.journal import Journal


class Change:
    """One operation's changes, applied atomically: none is visible before the commit, then all are.

    Used as a context manager, it commits at the end of the block. If the block or the commit fails, the
    journal is unchanged and the `on_abort` actions are called, last registered first; on success the
    `on_commit` actions are called. Memory and spool therefore always match the journal.
    """

    __slots__ = ("_after", "_journal", "_undo", "batch", "inodes", "makes_room")

    def __init__(self, journal: Journal, *, makes_room: bool = False) -> None:
        self.makes_room = makes_room
        self.batch = WriteBatch(raw_mode=True)
        self.inodes: dict[int, Inode | None] = {}
        self._journal = journal
        self._undo: list[Callable[[], object]] = []
        self._after: list[Callable[[], object]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            try:
                self._journal.commit(self)
            except OSError:
                self._abort()
                raise
            for action in self._after:
                action()
        else:
            self._abort()

    def on_abort(self, action: Callable[[], object]) -> None:
        """Register `action` to be called if the change is not made."""
        self._undo.append(action)

    def on_commit(self, action: Callable[[], object]) -> None:
        """Register `action` to be called once the change is made."""
        self._after.append(action)

    def _abort(self) -> None:
        for action in reversed(self._undo):
            action()

    def put_inode(self, inode: Inode) -> None:
        """Write the inode, new or changed."""
        self.inodes[inode.ino] = inode
        self.batch.put(b"i" + ID.pack(inode.ino), INODE.pack(*inode[1:12]) + inode.target)

    def drop_inode(self, ino: int) -> None:
        """Remove the inode, and its mark as an orphan."""
        self.inodes[ino] = None
        self.batch.delete(b"i" + ID.pack(ino))
        self.batch.delete(b"o" + ID.pack(ino))

    def put_orphan(self, ino: int) -> None:
        """Mark the inode as an orphan: it has no name left but may still be in use."""
        self.batch.put(b"o" + ID.pack(ino), b"")

    def put_name(self, parent: int, entry: Dirent) -> None:
        """Add a name to a directory, or point an existing name at another inode."""
        tail = ID.pack(parent)
        self.batch.put(b"d" + tail + entry.name, ENTRY.pack(entry.ino, entry.cookie, entry.kind))
        self.batch.put(
            b"e" + tail + ID.pack(entry.cookie), ORDERED_ENTRY.pack(entry.ino, entry.kind) + entry.name
        )

    def drop_name(self, parent: int, entry: Dirent) -> None:
        """Remove a name from a directory."""
        tail = ID.pack(parent)
        self.batch.delete(b"d" + tail + entry.name)
        self.batch.delete(b"e" + tail + ID.pack(entry.cookie))

    def put_stored(self, ino: int, index: int, stored: Stored) -> None:
        """Record that a chunk is in the store."""
        head = CHUNK_HEAD.pack(stored.length, len(stored.hash))
        self.batch.put(CHUNK_KEY.pack(b"c", ino, index), head + stored.hash + stored.key)

    def drop_stored(self, ino: int, index: int) -> None:
        """Forget that a chunk is in the store."""
        self.batch.delete(CHUNK_KEY.pack(b"c", ino, index))

    def put_spooled(self, ino: int, index: int, slot: int) -> None:
        """Record that a chunk is in the given slot."""
        self.batch.put(CHUNK_KEY.pack(b"s", ino, index), ID.pack(slot))

    def drop_spooled(self, ino: int, index: int) -> None:
        """Forget a chunk's slot."""
        self.batch.delete(CHUNK_KEY.pack(b"s", ino, index))

    def put_block(self, key: bytes, block_hash: bytes, size: int) -> None:
        """Record that this session stored a block of `size` bytes (encoded)."""
        self.batch.put(b"b" + key, BLOCK_HEAD.pack(size) + block_hash)

    def drop_block(self, key: bytes) -> None:
        """Forget that a block is in the store; `has_unnoted_blocks` is true from then on."""
        self.batch.delete(b"b" + key)
        self.put_setting(b"lost", b"1")

    def rely_on_base(self) -> None:
        """Record that the tree has chunks whose blocks others stored; `has_unnoted_blocks` is then true."""
        self.put_setting(b"base", b"1")

    def put_xattr(self, ino: int, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""
        self.batch.put(b"x" + ID.pack(ino) + name, value)

    def drop_xattr(self, ino: int, name: bytes) -> None:
        """Remove an extended attribute."""
        self.batch.delete(b"x" + ID.pack(ino) + name)

    def put_setting(self, name: bytes, value: bytes) -> None:
        """Set a setting or counter."""
        self.batch.put(b"m" + name, value)
