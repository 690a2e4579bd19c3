"""A session's persistent state: inodes, names and chunk states, in one RocksDB.

Every change is one atomic `WriteBatch`. RocksDB hands each batch to the operating system before `commit`
returns, so it survives a crash of the daemon; `sync` makes it survive a crash of the machine.

Keys (integers are big-endian, so that neighbours in the tree are neighbours on the disk):

    i INO                 an inode
    d PARENT NAME         a name: its inode, and its cookie
    e PARENT COOKIE       the same name in the order of creation, which is what readdir walks: a position
                          in it stays valid while entries come and go
    c INO INDEX           a chunk that is stored: length, hash, key
    s INO INDEX           a chunk that is in a slot of the spool and not stored yet
    b KEY                 a block this session has stored: its size and hash, by the hash of the plain chunk
    o INO                 an inode without a name that the kernel may still hold
    x INO NAME            an extended attribute, in sessions that keep them
    m NAME                settings and counters

Recently used inodes are cached in memory: copying a small file looks up its own or its directory's inode four
times. Names are not cached: each is looked up once.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from rocksdict import (
    Checkpoint,
    Rdict,
)

from flistfs.authoring.state.change import Change
from flistfs.authoring.state.disk import Disk, Held
from flistfs.authoring.state.options import WRITE_BUFFER, journal_options
from flistfs.authoring.state.records import (
    ID,
    ROOT_INO,
    Dirent,
    Inode,
    damaged,
    os_error,
)
from flistfs.authoring.state.view import FrozenView, View, remove_checkpoint
from flistfs.errors import JournalError

log = logging.getLogger(__name__)


_SEQUENCE = b"msequence"
# Ids are reserved by the million, so that allocating one costs no write of its own.
_SEQUENCE_STEP = 1_000_000


# Inodes cached in memory, about 400 bytes each. When there are more, the whole cache is cleared.
_RECENT_INODES = 4096

# RocksDB has to skip names removed from a directory, 0.1 µs each. Where a listing found no name for this many
# cookies, the gap is remembered, for at most this many gaps (about 200 bytes each).
_WIDE = 1000
_KNOWN_GAPS = 4096


# Bytes of the disk that no change may use. Once RocksDB fails to write its log, it refuses every write until
# it is reopened, even when there is space again; that must never happen.
_RESERVE = 256 << 10

# Bytes of the disk reserved for changes that free space when the disk is completely full: enough to remove
# about 2,000 names. They are released in steps of this size; this much must be free, as others write too.
_HELD = 1 << 20
_HELD_STEP = 64 << 10
_LEAST = 32 << 10


class Journal(View):
    """The journal of a session, open for writing by this process alone."""

    def __init__(self, directory: Path) -> None:
        """Open the journal in `directory`, or create one there.

        Raises:
            JournalError: RocksDB found it damaged. A torn last record after a crash is not damage: the
                operation it belonged to had not returned.
        """
        try:
            super().__init__(Rdict(str(directory), journal_options()))
        except Exception as error:  # rocksdict raises nothing narrower
            reason = " ".join(str(error).split())
            raise JournalError(
                f"the session's journal {directory} cannot be opened: {reason}; nothing in it was changed. "
                f"What was sealed or stored before is not affected"
            ) from error
        self._disk = Disk(directory)
        self._held = Held(directory / "held", _HELD)
        self._recent: dict[int, Inode | None] = {}
        self._gaps: dict[tuple[int, int], int] = {}
        self._next_id = self._reserved = 0

    def inode(self, ino: int) -> Inode | None:
        """Return the inode, or None where there is none."""
        if ino in self._recent:
            return self._recent[ino]
        inode = super().inode(ino)
        self._remember({ino: inode})
        return inode

    def _remember(self, inodes: Mapping[int, Inode | None]) -> None:
        self._recent.update(inodes)
        if len(self._recent) > _RECENT_INODES:
            self._recent = dict(inodes)

    def children(self, parent: int, after: int = 0) -> Iterator[Dirent]:
        """Yield the entries of a directory whose cookies are greater than `after`, in cookie order."""
        position, last = after, self._next_id
        while True:
            resumed = self._gaps.get((parent, position), position + 1) - 1
            for entry in super().children(parent, resumed):
                self._note_gap(parent, position, entry.cookie)
                yield entry
                position = entry.cookie
                if (parent, position) in self._gaps:
                    break
            else:
                self._note_gap(parent, position, last)
                return

    def _note_gap(self, parent: int, position: int, end: int) -> None:
        """Remember that a directory has no entry between two cookies; new entries are always last."""
        if end - position > _WIDE:
            if len(self._gaps) >= _KNOWN_GAPS:
                self._gaps.clear()
            self._gaps[parent, position] = end

    def change(self, *, makes_room: bool = False) -> Change:
        """Start a change: `with journal.change() as change: ...`.

        With `makes_room`, for changes that free disk space, it may use the reserve of a full disk.
        """
        return Change(self, makes_room=makes_room)

    def commit(self, change: Change) -> None:
        """Write all of `change` atomically; once written, it survives the death of this process.

        Raises:
            OSError: the disk is full (ENOSPC) or failing (EIO); nothing was changed.
        """
        size = change.batch.size_in_bytes()
        if self._disk.lacks(_RESERVE + size):
            if not change.makes_room or not self._find_room(size):
                raise OSError(errno.ENOSPC, "the journal cannot be written: the disk is full")
        else:
            self._held.fill()
        try:
            self._db.write(change.batch)
        except Exception as error:
            raise os_error("the journal cannot be written", error) from error
        self._remember(change.inodes)

    def _find_room(self, size: int) -> bool:
        """Make room for `size` bytes of the log, from the reserve if needed; return whether there is."""
        in_memory = self._db.property_int_value("rocksdb.cur-size-active-mem-table") or 0
        if in_memory + size > WRITE_BUFFER * 7 // 8:
            return False  # it would soon be flushed to a table, for which there is no space
        while self._disk.lacks(_LEAST + size):
            if not self._held.give(_HELD_STEP):
                return False
        return True

    def _put(self, key: bytes, value: bytes) -> None:
        change = self.change()
        change.batch.put(key, value)
        try:
            self.commit(change)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise damaged(str(error)) from error

    def freeze(self, place: Path) -> FrozenView:
        """Return a view of the journal as it is now, in `place`; later changes do not affect it.

        It is a checkpoint: hard links to the tables, and one more table of what was only in memory; 40 ms for
        100,000 keys. (rocksdict's snapshots are consistent only for single keys: iterating over one shows
        later changes.) It may run in any thread, concurrently with changes; it has all earlier commits.

        Raises:
            OSError: the disk is full (ENOSPC) or failing (EIO); the journal itself is unchanged.
        """
        remove_checkpoint(place)  # a daemon that died may have left it
        # A failed flush would end all writing (see `_RESERVE`), so that must not happen either.
        in_memory = self._db.property_int_value("rocksdb.cur-size-all-mem-tables") or 0
        if self._disk.lacks(_RESERVE + in_memory):
            raise OSError(errno.ENOSPC, "the journal cannot be copied: the disk is full")
        try:
            Checkpoint(self._db).create_checkpoint(str(place))
            return FrozenView(place)
        except Exception as error:
            remove_checkpoint(place)
            raise os_error("the journal cannot be copied", error) from error

    def next_id(self) -> int:
        """Return a number never used before in this session, for an inode or a cookie."""
        if self._next_id == self._reserved:
            raw = self._get(_SEQUENCE)
            self._next_id = ID.unpack(raw)[0] if raw else ROOT_INO + 1
            self._reserved = self._next_id + _SEQUENCE_STEP
            self._put(_SEQUENCE, ID.pack(self._reserved))
        self._next_id += 1
        return self._next_id - 1

    def sync(self) -> None:
        """Make everything committed survive a power cut (blocks; about 180 µs on a quiet disk)."""
        self._db.flush_wal(sync=True)

    def close(self) -> None:
        """Close the database; everything committed is kept."""
        self._close_walks()
        try:
            self._db.close()
        except Exception as error:  # noqa: BLE001  rocksdict raises nothing narrower
            log.warning("the journal could not be flushed when it was closed: %s", error)
