"""What must survive: a session's inodes, names and chunk states, in one RocksDB.

Every change is one atomic `WriteBatch`. RocksDB hands each batch to the operating system before `commit`
returns, so it survives the death of the daemon; `sync` makes it survive that of the machine.

Keys (integers are big-endian, so that neighbours in the tree are neighbours on the disk):

    i INO                 an inode
    d PARENT NAME         a name: the inode it stands for, and its cookie
    e PARENT COOKIE       the same name in the order of its making, which is what readdir walks: a position
                          in it stays true while entries come and go
    c INO INDEX           a chunk that is stored: length, hash, key
    s INO INDEX           a chunk that lies in a slot of the spool and is not stored yet
    b KEY                 a block this session has stored: its size and hash, by the hash of the plain chunk
    o INO                 an inode without a name that the kernel may still hold
    x INO NAME            an extended attribute, in sessions that keep them
    m NAME                settings and counters

The inodes that were used last are kept in memory: a small file that is copied asks four times for its own or
its directory's. Names are not: they are asked for once.
"""

from __future__ import annotations

import errno
import logging
import shutil
import stat
import struct
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self, cast

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
)

from flistfs.authoring.state.disk import Disk, Held
from flistfs.errors import JournalError
from flistfs.util.closing import Closing

log = logging.getLogger(__name__)

ROOT_INO = 1  # what the kernel calls the root of every FUSE mount

_INODE = struct.Struct(">IIIIQQQqqqQ")
_ID = struct.Struct(">Q")
_ENTRY = struct.Struct(">QQH")
_ORDERED_ENTRY = struct.Struct(">QH")
_DIRECTORY_KIND = struct.pack(">H", stat.S_IFDIR)
_CHUNK_KEY = struct.Struct(">cQQ")
_CHUNK_HEAD = struct.Struct(">IB")
_BLOCK_HEAD = struct.Struct(">I")

_SEQUENCE = b"msequence"
# Ids are reserved by the million, so that giving one out costs no write of its own.
_SEQUENCE_STEP = 1_000_000

# Memory that RocksDB may use, in bytes. Two write buffers and the block cache stay far below the daemon's
# 256 MiB, whatever the number of files.
_WRITE_BUFFER = 16 << 20
_BLOCK_CACHE = 32 << 20


# Inodes that are kept in memory, about 400 bytes each. When there are more, all are forgotten.
_RECENT_INODES = 4096

# What was removed from a directory lies in RocksDB's way, 0.1 µs a name. So where a listing has met no name
# for so many cookies, it is remembered that there is none, for so many places at most (about 200 bytes each).
_WIDE = 1000
_KNOWN_GAPS = 4096

# Keys whose numbers are no further apart are read in one walk, if they are at least so many, and with so many
# steps for each at most: a step costs 0.7 µs, the start of a walk 10 µs, and a look-up 4 µs. (Between the
# first chunks of two files there may be any number of others.)
_NEAR = 8
_WORTH_A_WALK = 4
_STEPS = 4

# Bytes of the disk that no change may take. Once RocksDB could not write its log, it refuses every write
# until it is opened anew, even when there is room again; so it must not come to that.
_RESERVE = 256 << 10

# Bytes of the disk that are held for changes that make room, on a disk that is full to the last byte: about
# 2,000 names can be removed then. They are let go in such steps; so much must be free, as others write too.
_HELD = 1 << 20
_HELD_STEP = 64 << 10
_LEAST = 32 << 10


class Inode(NamedTuple):
    """An inode. A tuple and no dataclass: `_make` of the unpacked fields costs 0.4 µs, a dataclass 2 µs.

    `size` is in bytes; for a directory it counts its entries. `chunks` counts a file's chunks that are not
    holes. Times are nanoseconds since 1970, and may be negative. `parent` is that of a directory, else 0.
    """

    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    rdev: int
    size: int
    chunks: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    parent: int
    target: bytes


class Dirent(NamedTuple):
    """A name in a directory. `kind` is the type bits of the inode's mode (`stat.S_IFMT`)."""

    name: bytes
    ino: int
    cookie: int
    kind: int


class Stored(NamedTuple):
    """A chunk that the store holds: its plain length in bytes, and the block it became."""

    length: int
    hash: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class Spooled:
    """A chunk in the spool that is not stored yet."""

    ino: int
    index: int
    slot: int


class Change:
    """What one operation changes: nothing of it is seen before it is committed, and then all of it.

    Used as a context manager it commits itself at the end of the block. If the block or the commit fails,
    the journal is as it was, and what `on_abort` was given is called, the last first; if all went well,
    what `on_commit` was given. So memory and spool follow the journal, whatever the disk does.
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
        """Have `action` called if the change is not made."""
        self._undo.append(action)

    def on_commit(self, action: Callable[[], object]) -> None:
        """Have `action` called once the change is made."""
        self._after.append(action)

    def _abort(self) -> None:
        for action in reversed(self._undo):
            action()

    def put_inode(self, inode: Inode) -> None:
        """Write the inode, new or changed."""
        self.inodes[inode.ino] = inode
        self.batch.put(b"i" + _ID.pack(inode.ino), _INODE.pack(*inode[1:12]) + inode.target)

    def drop_inode(self, ino: int) -> None:
        """Remove the inode, and its mark as an orphan."""
        self.inodes[ino] = None
        self.batch.delete(b"i" + _ID.pack(ino))
        self.batch.delete(b"o" + _ID.pack(ino))

    def put_orphan(self, ino: int) -> None:
        """Note that the inode has no name left but may still be in use."""
        self.batch.put(b"o" + _ID.pack(ino), b"")

    def put_name(self, parent: int, entry: Dirent) -> None:
        """Add a name to a directory, or let it stand for another inode."""
        tail = _ID.pack(parent)
        self.batch.put(b"d" + tail + entry.name, _ENTRY.pack(entry.ino, entry.cookie, entry.kind))
        self.batch.put(
            b"e" + tail + _ID.pack(entry.cookie), _ORDERED_ENTRY.pack(entry.ino, entry.kind) + entry.name
        )

    def drop_name(self, parent: int, entry: Dirent) -> None:
        """Remove a name from a directory."""
        tail = _ID.pack(parent)
        self.batch.delete(b"d" + tail + entry.name)
        self.batch.delete(b"e" + tail + _ID.pack(entry.cookie))

    def put_stored(self, ino: int, index: int, stored: Stored) -> None:
        """Note that a chunk is in the store."""
        head = _CHUNK_HEAD.pack(stored.length, len(stored.hash))
        self.batch.put(_CHUNK_KEY.pack(b"c", ino, index), head + stored.hash + stored.key)

    def drop_stored(self, ino: int, index: int) -> None:
        """Forget that a chunk is in the store."""
        self.batch.delete(_CHUNK_KEY.pack(b"c", ino, index))

    def put_spooled(self, ino: int, index: int, slot: int) -> None:
        """Note that a chunk lies in the given slot."""
        self.batch.put(_CHUNK_KEY.pack(b"s", ino, index), _ID.pack(slot))

    def drop_spooled(self, ino: int, index: int) -> None:
        """Forget a chunk's slot."""
        self.batch.delete(_CHUNK_KEY.pack(b"s", ino, index))

    def put_block(self, key: bytes, block_hash: bytes, size: int) -> None:
        """Note that this session stored a block, of `size` bytes as stored."""
        self.batch.put(b"b" + key, _BLOCK_HEAD.pack(size) + block_hash)

    def drop_block(self, key: bytes) -> None:
        """Trust no longer that a block is in the store; from then on `has_unnoted_blocks`."""
        self.batch.delete(b"b" + key)
        self.put_setting(b"lost", b"1")

    def rely_on_base(self) -> None:
        """Note that chunks are put into the tree whose blocks others stored; then `has_unnoted_blocks`."""
        self.put_setting(b"base", b"1")

    def put_xattr(self, ino: int, name: bytes, value: bytes) -> None:
        """Set an extended attribute."""
        self.batch.put(b"x" + _ID.pack(ino) + name, value)

    def drop_xattr(self, ino: int, name: bytes) -> None:
        """Remove an extended attribute."""
        self.batch.delete(b"x" + _ID.pack(ino) + name)

    def put_setting(self, name: bytes, value: bytes) -> None:
        """Set a setting or counter."""
        self.batch.put(b"m" + name, value)


def _inode(ino: int, raw: bytes) -> Inode:
    fields = _INODE.unpack_from(raw)
    return Inode._make((ino, *fields, raw[_INODE.size :]))


def _stored(raw: bytes) -> Stored:
    length, hash_length = _CHUNK_HEAD.unpack_from(raw)
    split = _CHUNK_HEAD.size + hash_length
    return Stored(length, raw[_CHUNK_HEAD.size : split], raw[split:])


def _runs(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Cut numbers, put in order, where two are far apart."""
    run: list[int] = []
    for number in sorted(numbers):
        if run and number - run[-1] > _NEAR:
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def _os_error(what: str, error: Exception) -> OSError:
    """Make an error of what rocksdict raises, which is nothing narrower than Exception."""
    number = errno.ENOSPC if "No space left" in str(error) else errno.EIO
    return OSError(number, f"{what}: {' '.join(str(error).split())}")


def _behind(prefix: bytes) -> bytes:
    """Return the first key behind all that begin with `prefix`, which is not all \\xff."""
    kept = prefix.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1])


def _damaged(reason: str) -> JournalError:
    return JournalError(
        f"the session's journal is damaged: {' '.join(reason.split())}. What was sealed or stored before is "
        f"not affected"
    )


class View:
    """Reads a journal: as it is now, or as it was at one moment (`Journal.freeze`)."""

    def __init__(self, db: Rdict) -> None:
        self._db = db
        # Weak references cost a walk 1 µs of the 10 that its start takes.
        self._walks: weakref.WeakSet[Generator[tuple[bytes, bytes]]] = weakref.WeakSet()

    def _close_walks(self) -> None:
        """End what still walks: an iterator that the traceback of an error holds keeps RocksDB's lock."""
        for walk in list(self._walks):
            walk.close()

    def _get(self, key: bytes) -> bytes | None:
        try:
            return cast("bytes | None", self._db.get(key))
        except Exception as error:  # rocksdict raises nothing narrower
            raise _damaged(str(error)) from error

    def _get_all(
        self, prefix: bytes, numbers: Iterable[int], suffix: bytes = b""
    ) -> Iterator[tuple[int, bytes]]:
        """Look up the keys that have these numbers between `prefix` and `suffix`; those that are there."""
        for run in _runs(numbers):
            keys = {prefix + _ID.pack(number) + suffix: number for number in run}
            if len(run) >= _WORTH_A_WALK:
                first, behind = next(iter(keys)), _behind(next(reversed(keys)))
                steps = 0
                for key, raw in islice(self._scan(prefix, first, behind), _STEPS * len(run)):
                    steps += 1
                    if key in keys:
                        yield keys.pop(key), raw
                if steps < _STEPS * len(run):
                    keys.clear()  # what is left is not there
            for key, number in keys.items():
                if (value := self._get(key)) is not None:
                    yield number, value

    def _scan(
        self, prefix: bytes, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Walk the keys that begin with `prefix`: those from `start` on, and before `end`."""
        walk = self._walk(max(prefix, start), _behind(prefix) if end is None else end)
        self._walks.add(walk)
        return walk

    def _walk(self, start: bytes, end: bytes) -> Generator[tuple[bytes, bytes]]:
        # RocksDB must know the end. Else a walk that meets none of its keys goes on through whatever was
        # removed behind them, 0.1 µs a key, which is all that the session ever had and has no more.
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        try:
            items = self._db.iter(options)
            items.seek(start)
        except Exception as error:  # rocksdict raises nothing narrower
            raise _damaged(str(error)) from error
        while items.valid():
            yield items.key(), items.value()
            items.next()
        try:
            items.status()  # where a table is damaged, a walk ends as it does at its end
        except Exception as error:
            raise _damaged(str(error)) from error

    def inode(self, ino: int) -> Inode | None:
        """Return the inode, or None where there is none."""
        raw = self._get(b"i" + _ID.pack(ino))
        return None if raw is None else _inode(ino, raw)

    def inodes_among(self, numbers: Iterable[int]) -> dict[int, Inode]:
        """Return the inodes with these numbers, by number, those that are there.

        Numbers that were given out one after the other, as those of a directory's files are, cost a quarter
        of what `inode` does.
        """
        return {ino: _inode(ino, raw) for ino, raw in self._get_all(b"i", numbers)}

    def inodes(self) -> Iterator[Inode]:
        """Walk all inodes, in the order of their numbers."""
        for key, raw in self._scan(b"i"):
            yield _inode(_ID.unpack_from(key, 1)[0], raw)

    def child(self, parent: int, name: bytes) -> Dirent | None:
        """Return what `name` stands for in the directory `parent`."""
        raw = self._get(b"d" + _ID.pack(parent) + name)
        return None if raw is None else Dirent(name, *_ENTRY.unpack(raw))

    def children(self, parent: int, after: int = 0) -> Iterator[Dirent]:
        """Walk a directory in the order of its cookies, those greater than `after`."""
        prefix = b"e" + _ID.pack(parent)
        for key, raw in self._scan(prefix, prefix + _ID.pack(after + 1)):
            ino, kind = _ORDERED_ENTRY.unpack_from(raw)
            yield Dirent(raw[_ORDERED_ENTRY.size :], ino, _ID.unpack_from(key, 9)[0], kind)

    def children_by_name(self, parent: int) -> Iterator[Dirent]:
        """Walk a directory in the order of its names' bytes."""
        for key, raw in self._scan(b"d" + _ID.pack(parent)):
            yield Dirent(key[9:], *_ENTRY.unpack(raw))

    def directory_names(self) -> Iterator[tuple[int, bytes, int]]:
        """Walk the names of all directories: parent, name, and the directory's own number."""
        for key, raw in self._scan(b"d"):
            if raw.endswith(_DIRECTORY_KIND):
                yield _ID.unpack_from(key, 1)[0], key[9:], _ID.unpack_from(raw)[0]

    def stored(self, ino: int, index: int) -> Stored | None:
        """Return where a chunk is stored, or None if it isn't (it may be spooled, or a hole)."""
        raw = self._get(_CHUNK_KEY.pack(b"c", ino, index))
        return None if raw is None else _stored(raw)

    def first_chunks(self, numbers: Iterable[int]) -> dict[int, Stored]:
        """Return where the first chunks of files are stored, by inode number, as `inodes_among` does."""
        return {ino: _stored(raw) for ino, raw in self._get_all(b"c", numbers, _ID.pack(0))}

    def stored_chunks(self, ino: int, start: int = 0, end: int | None = None) -> Iterator[tuple[int, Stored]]:
        """Walk a file's stored chunks from the index `start` on, up to `end` (which is not among them)."""
        prefix = b"c" + _ID.pack(ino)
        behind = None if end is None else prefix + _ID.pack(end)
        for key, raw in self._scan(prefix, prefix + _ID.pack(start), behind):
            yield _ID.unpack_from(key, 9)[0], _stored(raw)

    def all_stored_chunks(self) -> Iterator[tuple[int, int, Stored]]:
        """Walk the stored chunks of all files: inode number, index, block."""
        for key, raw in self._scan(b"c"):
            _, ino, index = _CHUNK_KEY.unpack(key)
            yield ino, index, _stored(raw)

    def spooled(self) -> Iterator[Spooled]:
        """Walk the chunks that are not stored yet, of all files."""
        for key, raw in self._scan(b"s"):
            _, owner, index = _CHUNK_KEY.unpack(key)
            yield Spooled(owner, index, _ID.unpack(raw)[0])

    def has_block(self, stored: Stored) -> bool:
        """Say whether this session stored the block of a chunk: that very one, as libraries differ."""
        raw = self._get(b"b" + stored.key)
        return raw is not None and raw[_BLOCK_HEAD.size :] == stored.hash

    def has_base(self) -> bool:
        """Say whether the tree had chunks of sealed flists from the start."""
        return self.setting(b"base") is not None

    def has_unnoted_blocks(self) -> bool:
        """Say whether chunks may need blocks that are not noted here: a base's, or some found lost before."""
        return self.setting(b"lost") is not None or self.has_base()

    def blocks(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Walk the blocks that this session stored: key, hash, and size as stored."""
        for key, raw in self._scan(b"b"):
            yield key[1:], raw[_BLOCK_HEAD.size :], _BLOCK_HEAD.unpack_from(raw)[0]

    def orphans(self) -> Iterator[int]:
        """Walk the inodes that have no name left."""
        for key, _ in self._scan(b"o"):
            yield _ID.unpack_from(key, 1)[0]

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        """Return the value of an inode's extended attribute."""
        return self._get(b"x" + _ID.pack(ino) + name)

    def xattrs(self, ino: int) -> Iterator[bytes]:
        """Walk the names of an inode's extended attributes."""
        for key, _ in self._scan(b"x" + _ID.pack(ino)):
            yield key[9:]

    def count_xattrs(self) -> int:
        """Count the extended attributes of all inodes."""
        return sum(1 for _ in self._scan(b"x"))

    def setting(self, name: bytes) -> bytes | None:
        """Return a setting or counter."""
        return self._get(b"m" + name)


class FrozenView(View, Closing):
    """A view that later changes do not reach, in a directory of its own, which goes when it is closed."""

    def __init__(self, place: Path) -> None:
        """Open the checkpoint at `place`."""
        super().__init__(Rdict(str(place), _options(), access_type=AccessType.read_only()))
        self._place = place

    def close(self) -> None:
        """Close the view and remove its directory."""
        self._close_walks()
        self._db.close()
        _remove_checkpoint(self._place)


def _remove_checkpoint(place: Path) -> None:
    for path in (place, place.with_name(f"{place.name}.tmp")):  # where RocksDB makes it, before it is whole
        shutil.rmtree(path, ignore_errors=True)


class Journal(View):
    """The journal of a session, open for writing by this process alone."""

    def __init__(self, directory: Path) -> None:
        """Open the journal in `directory`, or make one there.

        Raises:
            JournalError: RocksDB found it damaged. A torn last record is what a crash leaves and is no
                damage: the operation it belonged to had not returned.
        """
        try:
            super().__init__(Rdict(str(directory), _options()))
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
        """Walk a directory in the order of its cookies, those greater than `after`."""
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
        """Note that no entry lies between two cookies of a directory; no other will, as new ones are last."""
        if end - position > _WIDE:
            if len(self._gaps) >= _KNOWN_GAPS:
                self._gaps.clear()
            self._gaps[parent, position] = end

    def change(self, *, makes_room: bool = False) -> Change:
        """Start a change: `with journal.change() as change: ...`.

        One that makes room on the disk, or for others to do so, is possible where there is none.
        """
        return Change(self, makes_room=makes_room)

    def commit(self, change: Change) -> None:
        """Write all of `change` at once; it survives the death of this process from here on.

        Raises:
            OSError: the disk is full (ENOSPC) or broken (EIO); nothing of the change was made.
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
            raise _os_error("the journal cannot be written", error) from error
        self._remember(change.inodes)

    def _find_room(self, size: int) -> bool:
        """Have room for `size` bytes of the log, from what is held if need be; say whether there is."""
        in_memory = self._db.property_int_value("rocksdb.cur-size-active-mem-table") or 0
        if in_memory + size > _WRITE_BUFFER * 7 // 8:
            return False  # it would become a table soon, for which there is no room
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
            raise _damaged(str(error)) from error

    def freeze(self, place: Path) -> FrozenView:
        """Return a view of the journal as it is now, in the directory `place`; later changes do not reach it.

        It is a checkpoint: hard links to the tables, and one table more of what is in memory only; 40 ms for
        100,000 keys. (rocksdict's snapshots keep to their moment for single keys alone: whoever walks one
        meets later changes.) It may run in any thread, beside changes; what was committed before is in it.

        Raises:
            OSError: the disk is full (ENOSPC) or broken (EIO); the journal itself is as it was.
        """
        _remove_checkpoint(place)  # a daemon that died may have left one
        # A flush that fails would end all writing (see `_RESERVE`), so it must not come to that either.
        in_memory = self._db.property_int_value("rocksdb.cur-size-all-mem-tables") or 0
        if self._disk.lacks(_RESERVE + in_memory):
            raise OSError(errno.ENOSPC, "the journal cannot be copied: the disk is full")
        try:
            Checkpoint(self._db).create_checkpoint(str(place))
            return FrozenView(place)
        except Exception as error:
            _remove_checkpoint(place)
            raise _os_error("the journal cannot be copied", error) from error

    def next_id(self) -> int:
        """Return a number that was never given out in this session, for an inode or a cookie."""
        if self._next_id == self._reserved:
            raw = self._get(_SEQUENCE)
            self._next_id = _ID.unpack(raw)[0] if raw else ROOT_INO + 1
            self._reserved = self._next_id + _SEQUENCE_STEP
            self._put(_SEQUENCE, _ID.pack(self._reserved))
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


def _options() -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(_WRITE_BUFFER)
    options.set_max_write_buffer_number(2)
    options.set_max_background_jobs(2)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_keep_log_file_num(2)
    # A record that was half written when the daemon died is left out; damage anywhere else is an error.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    table = BlockBasedOptions()
    table.set_bloom_filter(10, False)
    table.set_block_cache(Cache(_BLOCK_CACHE))
    table.set_cache_index_and_filter_blocks(True)
    # Filters and indexes in pieces: whole ones of a large table have megabytes, and were read again for each
    # look-up once the cache could not hold them all. So a file costs 51 µs at 600,000 of them as at 75,000,
    # and not 1,400.
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_pin_top_level_index_and_filter(True)
    options.set_block_based_table_factory(table)
    return options
