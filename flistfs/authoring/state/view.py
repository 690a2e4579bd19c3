"""Read a session's journal, as it is now or as it was at one moment."""

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

# Keys are read in one walk if their numbers are at most this far apart, there are at least this many of them,
# and it takes at most this many steps per key: a step costs 0.7 µs, starting a walk 10 µs, a lookup 4 µs.
# (Between the first chunks of two files there may be any number of others.)
_NEAR = 8


_WORTH_A_WALK = 4


_STEPS = 4


def _runs(numbers: Iterable[int]) -> Iterator[list[int]]:
    """Sort numbers and split them where two neighbours are far apart."""
    run: list[int] = []
    for number in sorted(numbers):
        if run and number - run[-1] > _NEAR:
            yield run
            run = []
        run.append(number)
    if run:
        yield run


class View:
    """Read access to a journal, as it is now or as it was at one moment (`Journal.freeze`)."""

    def __init__(self, db: Rdict) -> None:
        self._db = db
        # Weak references cost a walk 1 µs of the 10 that its start takes.
        self._walks: weakref.WeakSet[Generator[tuple[bytes, bytes]]] = weakref.WeakSet()

    def _close_walks(self) -> None:
        """Close open iterators: one that an error's traceback still references keeps RocksDB's lock."""
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
        """Look up the keys with these numbers between `prefix` and `suffix`; missing keys are omitted."""
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
                    keys.clear()  # the remaining keys do not exist
            for key, number in keys.items():
                if (value := self._get(key)) is not None:
                    yield number, value

    def _scan(
        self, prefix: bytes, start: bytes = b"", end: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the keys that begin with `prefix`, from `start` up to but excluding `end`."""
        walk = self._walk(max(prefix, start), behind(prefix) if end is None else end)
        self._walks.add(walk)
        return walk

    def _walk(self, start: bytes, end: bytes) -> Generator[tuple[bytes, bytes]]:
        # RocksDB must know the end. Otherwise a walk that meets none of its keys continues through all keys
        # removed after them, 0.1 µs each, which may be everything the session ever removed.
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
            items.status()  # a walk stops silently at a damaged table
        except Exception as error:
            raise damaged(str(error)) from error

    def inode(self, ino: int) -> Inode | None:
        """Return the inode, or None where there is none."""
        raw = self._get(b"i" + ID.pack(ino))
        return None if raw is None else inode_from(ino, raw)

    def inodes_among(self, numbers: Iterable[int]) -> dict[int, Inode]:
        """Return the existing inodes with these numbers, by number.

        Consecutive numbers, as those of a directory's files are, cost a quarter of calling `inode` for each.
        """
        return {ino: inode_from(ino, raw) for ino, raw in self._get_all(b"i", numbers)}

    def inodes(self) -> Iterator[Inode]:
        """Yield all inodes, in the order of their numbers."""
        for key, raw in self._scan(b"i"):
            yield inode_from(ID.unpack_from(key, 1)[0], raw)

    def child(self, parent: int, name: bytes) -> Dirent | None:
        """Return the entry `name` of the directory `parent`, or None."""
        raw = self._get(b"d" + ID.pack(parent) + name)
        return None if raw is None else Dirent(name, *ENTRY.unpack(raw))

    def children(self, parent: int, after: int = 0) -> Iterator[Dirent]:
        """Yield the entries of a directory whose cookies are greater than `after`, in cookie order."""
        prefix = b"e" + ID.pack(parent)
        for key, raw in self._scan(prefix, prefix + ID.pack(after + 1)):
            ino, kind = ORDERED_ENTRY.unpack_from(raw)
            yield Dirent(raw[ORDERED_ENTRY.size :], ino, ID.unpack_from(key, 9)[0], kind)

    def children_by_name(self, parent: int) -> Iterator[Dirent]:
        """Yield the entries of a directory in byte order of their names."""
        for key, raw in self._scan(b"d" + ID.pack(parent)):
            yield Dirent(key[9:], *ENTRY.unpack(raw))

    def directory_names(self) -> Iterator[tuple[int, bytes, int]]:
        """Yield the names of all directories: parent, name, inode number."""
        for key, raw in self._scan(b"d"):
            if raw.endswith(DIRECTORY_KIND):
                yield ID.unpack_from(key, 1)[0], key[9:], ID.unpack_from(raw)[0]

    def stored(self, ino: int, index: int) -> Stored | None:
        """Return a chunk's block, or None if it is not stored (it may be spooled, or a hole)."""
        raw = self._get(CHUNK_KEY.pack(b"c", ino, index))
        return None if raw is None else stored_from(raw)

    def first_chunks(self, numbers: Iterable[int]) -> dict[int, Stored]:
        """Return the blocks of files' first chunks, by inode number, as `inodes_among` does."""
        return {ino: stored_from(raw) for ino, raw in self._get_all(b"c", numbers, ID.pack(0))}

    def stored_chunks(self, ino: int, start: int = 0, end: int | None = None) -> Iterator[tuple[int, Stored]]:
        """Yield a file's stored chunks from index `start` up to but excluding `end`."""
        prefix = b"c" + ID.pack(ino)
        behind = None if end is None else prefix + ID.pack(end)
        for key, raw in self._scan(prefix, prefix + ID.pack(start), behind):
            yield ID.unpack_from(key, 9)[0], stored_from(raw)

    def all_stored_chunks(self) -> Iterator[tuple[int, int, Stored]]:
        """Yield the stored chunks of all files: inode number, index, block."""
        for key, raw in self._scan(b"c"):
            _, ino, index = CHUNK_KEY.unpack(key)
            yield ino, index, stored_from(raw)

    def spooled(self) -> Iterator[Spooled]:
        """Yield the chunks that are not stored yet, of all files."""
        for key, raw in self._scan(b"s"):
            _, owner, index = CHUNK_KEY.unpack(key)
            yield Spooled(owner, index, ID.unpack(raw)[0])

    def has_block(self, stored: Stored) -> bool:
        """Return whether this session stored exactly this block of a chunk: compression libraries differ."""
        raw = self._get(b"b" + stored.key)
        return raw is not None and raw[BLOCK_HEAD.size :] == stored.hash

    def has_base(self) -> bool:
        """Return whether the tree started with chunks of sealed flists."""
        return self.setting(b"base") is not None

    def has_unnoted_blocks(self) -> bool:
        """Return whether chunks may need unrecorded blocks: a base's, or blocks once found lost."""
        return self.setting(b"lost") is not None or self.has_base()

    def blocks(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield the blocks that this session stored: key, hash, and size as stored."""
        for key, raw in self._scan(b"b"):
            yield key[1:], raw[BLOCK_HEAD.size :], BLOCK_HEAD.unpack_from(raw)[0]

    def orphans(self) -> Iterator[int]:
        """Yield the inodes without a name."""
        for key, _ in self._scan(b"o"):
            yield ID.unpack_from(key, 1)[0]

    def xattr(self, ino: int, name: bytes) -> bytes | None:
        """Return the value of an inode's extended attribute."""
        return self._get(b"x" + ID.pack(ino) + name)

    def xattrs(self, ino: int) -> Iterator[bytes]:
        """Yield the names of an inode's extended attributes."""
        for key, _ in self._scan(b"x" + ID.pack(ino)):
            yield key[9:]

    def count_xattrs(self) -> int:
        """Count the extended attributes of all inodes."""
        return sum(1 for _ in self._scan(b"x"))

    def setting(self, name: bytes) -> bytes | None:
        """Return a setting or counter."""
        return self._get(b"m" + name)


class FrozenView(View, Closing):
    """A view that later changes do not affect, in a directory of its own, removed when it is closed."""

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
    """Remove the directory of a frozen view."""
    for path in (place, place.with_name(f"{place.name}.tmp")):  # RocksDB builds it there first
        shutil.rmtree(path, ignore_errors=True)
