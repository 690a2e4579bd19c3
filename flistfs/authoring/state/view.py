"""What is read of a session's journal, now or as it was at one moment."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import cast

from rocksdict import (
    AccessType,
    Rdict,
    ReadOptions,
)

from flistfs.authoring.state.options import journal_options
from flistfs.authoring.state.records import (
    BLOCK_HEAD,
    CHUNK_KEY,
    DIRECTORY_KIND,
    ENTRY,
    ID,
    ORDERED_ENTRY,
    Dirent,
    Inode,
    Spooled,
    behind,
    damaged,
    inode_from,
    stored_from,
)
from flistfs.tree.chunks import Stored
from flistfs.util.closing import Closing

# Keys whose numbers are no further apart are read in one walk, if they are at least so many, and with so many
# steps for each at most: a step costs 0.7 µs, the start of a walk 10 µs, and a look-up 4 µs. (Between the
# first chunks of two files there may be any number of others.)
_NEAR = 8


_WORTH_A_WALK = 4


_STEPS = 4


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
            raise damaged(str(error)) from error

    def _get_all(
        self, prefix: bytes, numbers: Iterable[int], suffix: bytes = b""
    ) -> Iterator[tuple[int, bytes]]:
        """Look up the keys that have these numbers between `prefix` and `suffix`; those that are there."""
        for run in _runs(numbers):
            keys = {prefix + ID.pack(number) + suffix: number for number in run}
            if len(run) >= _WORTH_A_WALK:
                first, end = next(iter(keys)), behind(next(reversed(keys)))
                steps = 0
                for key, raw in islice(self._scan(prefix, first, end), _STEPS * len(run)):
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
        walk = self._walk(max(prefix, start), behind(prefix) if end is None else end)
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
            raise damaged(str(error)) from error
        while items.valid():
            yield items.key(), items.value()
            items.next()
        try:
            items.status()  # where a table is damaged, a walk ends as it does at its end
        except Exception as error:
            raise damaged(str(error)) from error

    def inode(self, ino: int) -> Inode | None:
        """Return the inode, or None where there is none."""
        raw = self._get(b"i" + ID.pack(ino))
        return None if raw is None else inode_from(ino, raw)

    def inodes_among(self, numbers: Iterable[int]) -> dict[int, Inode]:
        """Return the inodes with these numbers, by number, those that are there.

        Numbers that were given out one after the other, as those of a directory's files are, cost a quarter
        of what `inode` does.
        """
        return {ino: inode_from(ino, raw) for ino, raw in self._get_all(b"i", numbers)}

    def inodes(self) -> Iterator[Inode]:
        """Walk all inodes, in the order of their numbers."""
        for key, raw in self._scan(b"i"):
            yield inode_from(ID.unpack_from(key, 1)[0], raw)

    def child(self, parent: int, name: bytes) -> Dirent | None:
        """Return what `name` stands for in the directory `parent`."""
        raw = self._get(b"d" + ID.pack(parent) + name)
        return None if raw is None else Dirent(name, *ENTRY.unpack(raw))

    def children(self, parent: int, after: int = 0) -> Iterator[Dirent]:
        """Walk a directory in the order of its cookies, those greater than `after`."""
        prefix = b"e" + ID.pack(parent)
        for key, raw in self._scan(prefix, prefix + ID.pack(after + 1)):
            ino, kind = ORDERED_ENTRY.unpack_from(raw)
            yield Dirent(raw[ORDERED_ENTRY.size :], ino, ID.unpack_from(key, 9)[0], kind)

    def children_by_name(self, parent: int) -> Iterator[Dirent]:
        """Walk a directory in the order of its names' bytes."""
        for key, raw in self._scan(b"d" + ID.pack(parent)):
            yield Dirent(key[9:], *ENTRY.unpack(raw))

    def directory_names(self) -> Iterator[tuple[int, bytes, int]]:
        """Walk the names of all directories: parent, name, and the directory's own number."""
        for key, raw in self._scan(b"d"):
            if raw.endswith(DIRECTORY_KIND):
                yield ID.unpack_from(key, 1)[0], key[9:], ID.unpack_from(raw)[0]

    def stored(self, ino: int, index: int) -> Stored | None:
        """Return where a chunk is stored, or None if it isn't (it may be spooled, or a hole)."""
        raw = self._get(CHUNK_KEY.pack(b"c", ino, index))
        return None if raw is None else stored_from(raw)

    def first_chunks(self, numbers: Iterable[int]) -> dict[int, Stored]:
        """Return where the first chunks of files are stored, by inode number, as `inodes_among` does."""
        return {ino: stored_from(raw) for ino, raw in self._get_all(b"c", numbers, ID.pack(0))}

    def stored_chunks(self, ino: int, start: int = 0, end: int | None = None) -> Iterator[tuple[int, Stored]]:
        """Walk a file's stored chunks from the index `start` on, up to `end` (which is not among them)."""
        prefix = b"c" + ID.pack(ino)
        behind = None if end is None else prefix + ID.pack(end)
        for key, raw in self._scan(prefix, prefix + ID.pack(start), behind):
            yield ID.unpack_from(key, 9)[0], stored_from(raw)

    def all_stored_chunks(self) -> Iterator[tuple[int, int, Stored]]:
        """Walk the stored chunks of all files: inode number, index, block."""
        for key, raw in self._scan(b"c"):
            _, ino, index = CHUNK_KEY.unpack(key)
            yield ino, index, stored_from(raw)

    def spooled(self) -> Iterator[Spooled]:
        """Walk the chunks that are not stored yet, of all files."""
        for key, raw in self._scan(b"s"):
            _, owner, index = CHUNK_KEY.unpack(key)
            yield Spooled(owner, index, ID.unpack(raw)[0])

    def has_block(self, stored: Stored) -> bool:
        """Say whether this session stored the block of a chunk: that very one, as libraries differ."""
        raw = self._get(b"b" + stored.key)
        return raw is not None and raw[BLOCK_HEAD.size :] == stored.hash

    def has_base(self) -> bool:
        """Say whether the tree had chunks of sealed flists from the start."""
        return self.setting(b"base") is not None

    def has_unnoted_blocks(self) -> bool:
        """Say whether chunks may need blocks that are not noted here: a base's, or some found lost before."""
        return self.setting(b"lost") is not None or self.has_base()

    def blocks(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Walk the blocks that this session stored: key, hash, and size as stored."""
        for key, raw in self._scan(b"b"):
            yield key[1:], raw[BLOCK_HEAD.size :], BLOCK_HEAD.unpack_from(raw)[0]

    def orphans(self) -> Iterator[int]:
        """Walk the inodes that have no name left."""
        for key, _ in self._scan(b"o"):
            yield ID.unpack_from(key, 1)[0]

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        """Return the value of an inode's extended attribute."""
        return self._get(b"x" + ID.pack(ino) + name)

    def xattrs(self, ino: int) -> Iterator[bytes]:
        """Walk the names of an inode's extended attributes."""
        for key, _ in self._scan(b"x" + ID.pack(ino)):
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
        super().__init__(Rdict(str(place), journal_options(), access_type=AccessType.read_only()))
        self._place = place

    def close(self) -> None:
        """Close the view and remove its directory."""
        self._close_walks()
        self._db.close()
        remove_checkpoint(self._place)


def remove_checkpoint(place: Path) -> None:
    """Remove what a frozen view lay in."""
    for path in (place, place.with_name(f"{place.name}.tmp")):  # where RocksDB makes it, before it is whole
        shutil.rmtree(path, ignore_errors=True)
