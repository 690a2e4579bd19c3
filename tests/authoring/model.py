"""The same operations on `Vfs` and on a directory of the local file system, side by side.

`play` takes a list of operations. Each is done on both sides; result or errno must agree, and after each the
two trees must look alike. In between come events that nobody may see: chunks are settled and stored,
copies of them are dropped, the store fails for a while, the daemon dies.

Operations name what they act on by small numbers that are taken modulo what there is, so that any list of
operations makes sense and stays one when parts of it are left out.

It is one file because every operation is a pair, ours and the local one, with one state between them: what
one operation means can only be read beside the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import logging
import os
import shutil
import stat
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, cast
from unittest.mock import patch

import trio

from flistfs.authoring.filesystem import content as content_module
from flistfs.authoring.filesystem.values import Attributes, Caller, Totals, allocated
from flistfs.authoring.filesystem.vfs import RENAME_EXCHANGE, Vfs
from flistfs.authoring.session import Session, open_session
from flistfs.authoring.state import spool as spool_module
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.disk import Disk
from flistfs.authoring.state.records import ROOT_INO, Inode
from flistfs.authoring.upload import uploader as uploader_module
from flistfs.errors import StoreUnavailableError
from flistfs.format.rocksdb.generation1 import ROCKSDB
from flistfs.stores.directory import DirectoryStore
from flistfs.tree.chunks import CHUNK_SIZE, chunk_length, pieces
from flistfs.tree.names import MAX_NAME
from tests.generation1 import CODEC

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

    from flistfs.authoring.filesystem.content import Content
    from flistfs.format.base import Block

T = TypeVar("T")
U = TypeVar("U")

# Times that an operation sets lie before this (2001), so that any later one means «when it happened».
LONG_AGO = 10**18

READ_SIZE = 1 << 20  # what the kernel asks for at most

_PATTERN = bytes(n * n // 7 % 251 for n in range(251 * 64)) * 160

_libc = ctypes.CDLL(None, use_errno=True)


def pattern(seed: int, length: int) -> bytes:
    """Return bytes that differ from place to place and from seed to seed; zeros for seed 0."""
    return _PATTERN[seed * 7 : seed * 7 + length] if seed else bytes(length)


class TroubledStore(DirectoryStore):
    """A store that fails while `down` is set, and stores nothing while it is held."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, CODEC)
        self.down = False
        self.held_calls = 0
        self._open = threading.Event()
        self._open.set()

    @property
    def held(self) -> bool:
        return not self._open.is_set()

    def hold(self) -> None:
        self._open.clear()

    def let_go(self) -> None:
        self._open.set()

    def missing(self, hashes: Sequence[bytes], sizes: Mapping[bytes, int] | None = None) -> set[bytes]:
        self.held_calls += 1
        self._open.wait()
        self.held_calls -= 1
        self._fail_if_down()
        return super().missing(hashes, sizes)

    def put(self, blocks: Sequence[Block]) -> None:
        self._fail_if_down()
        super().put(blocks)

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002  the protocol's
        self._fail_if_down()
        return super().get(hash, deadline)

    def sync(self) -> None:
        """Nothing here is about power cuts, and flushing a whole file system takes its time."""

    def _fail_if_down(self) -> None:
        if self.down:
            raise StoreUnavailableError("switched off by the test")


@dataclass(slots=True)
class Directory:
    """A directory on both sides; it may be removed already."""

    ino: int
    descriptor: int


@dataclass(slots=True)
class Opened:
    """An open file on both sides; it may be without a name already."""

    handle: int
    descriptor: int
    writable: bool

    @property
    def ino(self) -> int:
        return self.handle >> 1


@dataclass(slots=True)
class Listing:
    """A directory that is being listed: which names were there all the while, or at any time."""

    ino: int
    always: set[bytes]
    ever: set[bytes]
    position: int = 0
    seen: Counter[bytes] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Tuning:
    """How small caches and limits are.

    Args:
        cached: Copies of stored chunks kept for reading back. One request of the kernel needs up to three.
        warm: Freed slots that keep their disk space.
        limit: Bytes of unstored chunks above which writers wait.
    """

    cached: int = 4096
    warm: int = 64
    limit: int = 1 << 40


class Operation(Protocol):
    async def run(self, world: World) -> None: ...


def _error(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error))


class World:
    """Both sides, and what is open on them."""

    def __init__(self, base: Path, tuning: Tuning) -> None:
        self.base = base
        self.tuning = tuning
        self.store = TroubledStore(base / "blocks")
        (base / "local").mkdir(mode=0o755)
        self.root = os.open(base / "local", os.O_RDONLY | os.O_DIRECTORY)
        self.caller = Caller(os.geteuid(), os.getegid())
        self.directories = [Directory(ROOT_INO, self.root)]
        self.opened: list[Opened] = []
        self.listings: list[Listing] = []
        self.chunks: dict[int, set[int]] = {}  # by inode: the chunks of a file that were ever written
        self.lives = 0
        self._session: Session | None = None
        self.state = base / "state"
        self.state.mkdir()

    @property
    def session(self) -> Session:
        assert self._session is not None
        return self._session

    @property
    def vfs(self) -> Vfs:
        return self.session.vfs

    @property
    def content(self) -> Content:
        return self.session.parts.content

    def attach(self, session: Session) -> None:
        """Go on with a session that was opened just now."""
        self._session = session
        self.tune()

    def tune(self) -> None:
        """Let writers wait for the store only while it works."""
        works = not self.store.down and not self.store.held
        self.content._limit = self.tuning.limit if works else Tuning().limit

    def repair(self) -> None:
        """Let the store work again."""
        self.store.down = False
        self.store.let_go()
        self.tune()

    # Doing

    def both(
        self, ours: Callable[[], T], theirs: Callable[[], U], *, refused: bool = False
    ) -> tuple[T, U] | None:
        """Do something on both sides; returns what came of it, or None if it failed alike.

        With `refused` it must fail, with whatever errno: the kernel finds out by itself and asks nobody.
        """
        try:
            mine, my_error = ours(), ""
        except OSError as error:
            mine, my_error = cast("T", None), _error(error)
        if refused:
            assert my_error, "success, though the kernel would have refused it"
            with contextlib.suppress(OSError):
                theirs()
                raise AssertionError("success, though only locally")
            return None
        return self._agree(mine, my_error, theirs)

    async def both_async(
        self, ours: Callable[[], Awaitable[T]], theirs: Callable[[], U]
    ) -> tuple[T, U] | None:
        """Do the same with an operation that may need the store; if that is down, it works afterwards."""
        try:
            mine, my_error = await self.patiently(ours), ""
        except OSError as error:
            mine, my_error = cast("T", None), _error(error)
        return self._agree(mine, my_error, theirs)

    async def patiently(self, ours: Callable[[], Awaitable[T]]) -> T:
        """Do it; if it fails because the store is down, do it again when the store is back."""
        try:
            return await ours()
        except OSError as error:
            if error.errno != errno.EIO or not self.store.down:
                raise
        self.compare()
        self.repair()
        return await ours()

    @staticmethod
    def _agree(mine: T, my_error: str, theirs: Callable[[], U]) -> tuple[T, U] | None:
        try:
            other, their_error = theirs(), ""
        except OSError as error:
            other, their_error = cast("U", None), _error(error)
        if (my_error, their_error) == ("ENAMETOOLONG", "ENOENT"):
            return None  # both are true in a directory that is removed: the kernel asks nobody about it
        assert my_error == their_error, f"{my_error or 'success'}, but locally {their_error or 'success'}"
        return None if my_error else (mine, other)

    def directory(self, number: int) -> Directory:
        return self.directories[number % len(self.directories)]

    def file(self, number: int, *, writable: bool = False) -> Opened | None:
        """Choose an open file."""
        found = [one for one in self.opened if one.writable or not writable]
        return found[number % len(found)] if found else None

    def find(self, directory: Directory, name: bytes) -> Inode | None:
        """Look a name up on both sides; None if there is none, or can be none."""
        if len(name) > MAX_NAME:
            return None
        found = self.both(
            lambda: self.vfs.lookup(directory.ino, name),
            lambda: _lstat(directory.descriptor, name),
        )
        if found is None:
            return None
        mine, theirs = found
        assert (mine is None) == (theirs is None), f"{name!r}: {mine}, but locally {theirs}"
        return mine

    def is_inside(self, directory: Directory, other: Inode) -> bool:
        """Say whether a directory is `other` or lies in it, however deep."""
        ino = directory.ino
        while ino not in {other.ino, ROOT_INO}:
            above = self.vfs.lookup(ino, b"..")
            assert above is not None
            ino = above.ino
        return ino == other.ino

    def named(self, directory: Directory, name: bytes) -> None:
        """Note for running listings that there is a name now."""
        for listing in self.listings:
            if listing.ino == directory.ino:
                listing.ever.add(name)

    def unnamed(self, directory: Directory, name: bytes) -> None:
        """Note for running listings that a name is gone, if only for a while."""
        for listing in self.listings:
            if listing.ino == directory.ino:
                listing.always.discard(name)

    def wrote(self, ino: int, offset: int, length: int) -> None:
        """Note which chunks are no holes any more."""
        self.chunks.setdefault(ino, set()).update(index for index, _, _ in pieces(offset, length))

    def resized(self, ino: int, size: int) -> None:
        """Note that the chunks behind a file's new end are gone."""
        self.chunks[ino] = {index for index in self.chunks.get(ino, ()) if index * CHUNK_SIZE < size}

    # Comparing

    def compare(self) -> None:
        """See that the trees look alike: names, kinds, attributes, links; and what is open without a name."""
        descriptors = {directory.ino: directory.descriptor for directory in self.directories}
        self._alike(b"/", self.vfs.inode(ROOT_INO), os.fstat(self.root))
        identities: dict[int, int] = {}
        directories = [ROOT_INO]
        while directories:
            ino = directories.pop()
            for name, inode, status in self._entries(ino, descriptors[ino]):
                assert identities.setdefault(inode.ino, status.st_ino) == status.st_ino, name
                if stat.S_ISDIR(inode.mode):
                    parent = self.vfs.lookup(inode.ino, b"..")
                    assert parent is not None
                    assert parent.ino == ino
                    directories.append(inode.ino)
        assert len(set(identities.values())) == len(identities)
        opened = [(one.ino, one.descriptor) for one in self.opened]
        for ino, descriptor in [*opened, *descriptors.items()]:
            self._alike(b"(open)", self.vfs.inode(ino), os.fstat(descriptor))

    def _entries(self, ino: int, descriptor: int) -> Iterator[tuple[bytes, Inode, os.stat_result]]:
        entries = list(self.vfs.readdir(ino, 0))
        names = sorted(entry.name for entry in entries)
        assert names == sorted(_names_in(descriptor))
        assert names == [entry.name for entry in self.session.parts.journal.children_by_name(ino)]
        for entry in entries:
            inode, status = self.vfs.inode(entry.ino), os.lstat(entry.name, dir_fd=descriptor)
            self._alike(entry.name, inode, status)
            assert entry.kind == stat.S_IFMT(inode.mode), entry
            found = self.vfs.lookup(ino, entry.name)
            assert found == inode
            if stat.S_ISLNK(inode.mode):
                assert self.vfs.readlink(inode.ino) == os.readlink(entry.name, dir_fd=descriptor)
            yield entry.name, inode, status

    def _alike(self, name: bytes, inode: Inode, status: os.stat_result) -> None:
        mine = _visible(inode.mode, inode.size, inode.mtime_ns, inode.atime_ns) | {
            "nlink": inode.nlink,
            "owner": (inode.uid, inode.gid),
        }
        theirs = _visible(status.st_mode, status.st_size, status.st_mtime_ns, status.st_atime_ns) | {
            "nlink": status.st_nlink,
            "owner": (status.st_uid, status.st_gid),
        }
        assert mine == theirs, name
        if stat.S_ISREG(inode.mode):
            written = bool(self.chunks.get(inode.ino))
            assert bool(allocated(inode)) == written, f"{name!r}: {allocated(inode)} units, {inode}"
            assert written or not status.st_blocks

    async def compare_content(self) -> None:
        """See that all files hold the same bytes, with a name or without."""
        done = set()
        for opened in self.opened:
            if opened.ino not in done:
                done.add(opened.ino)
                await self._same_bytes(opened.ino, opened.descriptor)
        for directory in self.directories:
            for entry in list(self.vfs.readdir(directory.ino, 0)):
                if entry.kind == stat.S_IFREG and entry.ino not in done:
                    done.add(entry.ino)
                    descriptor = os.open(entry.name, os.O_RDONLY | os.O_NOATIME, dir_fd=directory.descriptor)
                    try:
                        await self._same_bytes(entry.ino, descriptor)
                    finally:
                        os.close(descriptor)

    async def _same_bytes(self, ino: int, descriptor: int) -> None:
        handle = await self.vfs.open(ino, os.O_RDONLY, self.caller)
        offset, data = 0, b"-"
        while data:
            data = await self.patiently(lambda offset=offset: self.vfs.read(handle, offset, READ_SIZE))  # type: ignore[misc]
            _assert_same(data, os.pread(descriptor, READ_SIZE, offset), f"inode {ino} from {offset} on")
            offset += len(data)
        self.vfs.release(handle)

    def check_books(self) -> None:
        """See that the content's, the spool's and the tree's counts are right."""
        content, journal = self.content, self.session.parts.journal
        spooled = {(one.ino, one.index): one.slot for one in journal.spooled()}
        assert spooled == {(chunk.ino, chunk.index): chunk.slot for chunk in content._chunks}
        assert content._spooled_bytes == sum(chunk.length for chunk in content._chunks)
        assert content._cached_bytes == sum(copy.length for copy in content._cached.values())
        assert content._unsettled.keys() <= spooled.keys()
        slots = [*spooled.values(), *(copy.slot for copy in content._cached.values())]
        free = [*content._spool._warm, *content._spool._cold]
        assert sorted([*slots, *free]) == list(range(content._spool._end))
        assert all(journal.stored(*chunk_id) for chunk_id in content._cached)
        records = Counter(ino for ino, _ in spooled)
        for ino, index, stored in journal.all_stored_chunks():
            records[ino] += 1
            inode = self.vfs.inode(ino)
            assert stored.length == chunk_length(inode.size, index), (inode, index)
            assert (ino, index) not in spooled
        totals = Totals()
        for inode in journal.inodes():
            totals.add(inode, 1)
            assert inode.chunks == records.pop(inode.ino, 0), inode
        assert not records, f"chunks without an inode: {records}"
        assert totals == self.vfs.totals

    # Ending

    def close_all(self) -> None:
        """Close what is open on the local side, save the directories that still have a name."""
        for opened in self.opened:
            os.close(opened.descriptor)
        for directory in self.directories:
            if not os.fstat(directory.descriptor).st_nlink:
                os.close(directory.descriptor)
            else:
                continue
            directory.descriptor = -1
        self.directories = [directory for directory in self.directories if directory.descriptor >= 0]
        self.opened.clear()
        self.listings.clear()

    def die(self) -> None:
        """Have the session end as if its process were killed now.

        The journal goes on from a copy of the files as they are, which is what the operating system has of
        them; whatever is reported to the old objects from now on is lost.
        """
        self.lives += 1
        state = self.base / f"state{self.lives}"
        state.mkdir()
        _copy_database(self.state / "journal", state / "journal")
        (state / "spool").hardlink_to(self.state / "spool")
        setattr(self.content, "stored", lambda _: None)  # noqa: B010 - mypy minds an assignment
        self.state = state
        self._end_life()

    def end(self) -> None:
        """Have the session end cleanly, with all that is unsettled or unstored."""
        self._end_life()

    def _end_life(self) -> None:
        self.close_all()
        self.store.down = True  # what is on its way does not arrive
        self.store.let_go()

    def revive(self) -> None:
        """See that only what has a name came back."""
        self.store.down = False
        journal = self.session.parts.journal
        assert not list(journal.orphans())
        assert all(inode.nlink for inode in journal.inodes())
        self.compare()
        self.check_books()


def _copy_database(directory: Path, to: Path) -> None:
    """Copy a RocksDB as it is at one moment, though it may be compacting."""
    while True:
        with contextlib.suppress(OSError):
            before = {file.name: file.stat().st_size for file in directory.iterdir()}
            shutil.copytree(directory, to, ignore=shutil.ignore_patterns("LOG*"))
            if before == {file.name: file.stat().st_size for file in directory.iterdir()}:
                return
        shutil.rmtree(to, ignore_errors=True)


def _names_in(directory: int) -> list[bytes]:
    return [os.fsencode(name) for name in os.listdir(directory)]


def _lstat(directory: int, name: bytes) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return None


def _visible(mode: int, size: int, mtime_ns: int, atime_ns: int) -> dict[str, object]:
    return {
        "mode": oct(mode),
        "size": None if stat.S_ISDIR(mode) else size,
        "mtime": mtime_ns if mtime_ns < LONG_AGO else "recent",
        # Listing a directory and reading a link change it locally; files are opened so that reading doesn't.
        "atime": None if not stat.S_ISREG(mode) else atime_ns if atime_ns < LONG_AGO else "recent",
    }


def _assert_same(mine: bytes, theirs: bytes, where: str) -> None:
    if mine == theirs:
        return
    assert len(mine) == len(theirs), f"{where}: {len(mine)} bytes, but locally {len(theirs)}"
    first = next(n for n, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
    raise AssertionError(f"{where}: byte {first} is {mine[first]}, but locally {theirs[first]}")


# Operations of callers


@dataclass(frozen=True, slots=True)
class Create:
    """open(O_CREAT | O_EXCL)."""

    at: int
    name: bytes
    mode: int = 0o644

    async def run(self, world: World) -> None:
        directory, flags = world.directory(self.at), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOATIME
        made = world.both(
            lambda: world.vfs.create(directory.ino, self.name, self.mode, flags, world.caller),
            lambda: os.open(self.name, flags, self.mode, dir_fd=directory.descriptor),
        )
        if made:
            (_, handle), descriptor = made
            world.opened.append(Opened(handle, descriptor, writable=True))
            world.named(directory, self.name)


@dataclass(frozen=True, slots=True)
class Open:
    """open() of a file that is there."""

    at: int
    name: bytes
    writable: bool = True
    truncate: bool = False

    async def run(self, world: World) -> None:
        directory = world.directory(self.at)
        inode = world.find(directory, self.name)
        if inode is None or not stat.S_ISREG(inode.mode):
            return
        flags = os.O_RDWR if self.writable else os.O_RDONLY
        if self.writable and self.truncate:
            flags |= os.O_TRUNC
        done = await world.both_async(
            lambda: world.vfs.open(inode.ino, flags, world.caller),
            lambda: os.open(self.name, flags | os.O_NOATIME, dir_fd=directory.descriptor),
        )
        if done:
            world.opened.append(Opened(*done, writable=self.writable))
            if flags & os.O_TRUNC:
                world.resized(inode.ino, 0)


@dataclass(frozen=True, slots=True)
class Release:
    """close()."""

    file: int

    async def run(self, world: World) -> None:
        if opened := world.file(self.file):
            world.opened.remove(opened)
            world.both(lambda: world.vfs.release(opened.handle), lambda: os.close(opened.descriptor))


@dataclass(frozen=True, slots=True)
class Write:
    """pwrite()."""

    file: int
    offset: int
    length: int
    seed: int = 1

    async def run(self, world: World) -> None:
        if opened := world.file(self.file, writable=True):
            await _write(world, opened, self.offset, pattern(self.seed, self.length))


@dataclass(frozen=True, slots=True)
class Append:
    """A write with O_APPEND, for which the kernel sends the file's end."""

    file: int
    length: int
    seed: int = 1

    async def run(self, world: World) -> None:
        if opened := world.file(self.file, writable=True):
            end = os.fstat(opened.descriptor).st_size
            await _write(world, opened, end, pattern(self.seed, self.length))


async def _write(world: World, opened: Opened, offset: int, data: bytes) -> None:
    done = await world.both_async(
        lambda: world.vfs.write(opened.handle, offset, data),
        lambda: os.pwrite(opened.descriptor, data, offset),
    )
    assert done == (len(data), len(data))
    world.wrote(opened.ino, offset, len(data))


@dataclass(frozen=True, slots=True)
class Burst:
    """Writes and reads of different parts of files, all at once, none of them with a copy at hand.

    Args:
        regions: (file, half a chunk of it, bytes to write there or 0 to read); a half comes only once.
    """

    regions: tuple[tuple[int, int, int], ...]

    async def run(self, world: World) -> None:
        world.repair()
        await _drain(world)
        world.content.forget_copies()
        taken = set()
        async with trio.open_nursery() as nursery:
            for seed, (number, half, length) in enumerate(self.regions, 1):
                opened = world.file(number, writable=True)
                if opened is not None and (opened.ino, half) not in taken:
                    taken.add((opened.ino, half))
                    nursery.start_soon(self._one, world, opened, half * CHUNK_SIZE // 2, length, seed)

    @staticmethod
    async def _one(world: World, opened: Opened, offset: int, length: int, seed: int) -> None:
        if length:
            data = pattern(seed, length)
            assert await world.vfs.write(opened.handle, offset + 3, data) == length
            os.pwrite(opened.descriptor, data, offset + 3)
            world.wrote(opened.ino, offset + 3, length)
            return
        # A file that grows meanwhile may be read up to its old or its new end.
        before = os.pread(opened.descriptor, CHUNK_SIZE // 2, offset)
        data = await world.vfs.read(opened.handle, offset, CHUNK_SIZE // 2)
        after = os.pread(opened.descriptor, CHUNK_SIZE // 2, offset)
        assert len(before) <= len(data) <= len(after)
        assert data == after[: len(data)]


@dataclass(frozen=True, slots=True)
class Read:
    """pread()."""

    file: int
    offset: int
    length: int

    async def run(self, world: World) -> None:
        opened = world.file(self.file)
        if opened is None:
            return
        data = await world.both_async(
            lambda: world.vfs.read(opened.handle, self.offset, self.length),
            lambda: os.pread(opened.descriptor, self.length, self.offset),
        )
        assert data
        _assert_same(*data, f"{self.length} bytes from {self.offset} on")


@dataclass(frozen=True, slots=True)
class Truncate:
    """ftruncate()."""

    file: int
    size: int

    async def run(self, world: World) -> None:
        opened = world.file(self.file, writable=True)
        if opened is None:
            return
        done = await world.both_async(
            lambda: world.vfs.setattr(opened.ino, Attributes(size=self.size)),
            lambda: os.ftruncate(opened.descriptor, self.size),
        )
        if done:
            world.resized(opened.ino, self.size)


@dataclass(frozen=True, slots=True)
class TruncateOther:
    """truncate() of what is no file."""

    at: int
    name: bytes
    size: int

    async def run(self, world: World) -> None:
        directory = world.directory(self.at)
        inode = world.find(directory, self.name)
        if inode is None or stat.S_IFMT(inode.mode) in {stat.S_IFREG, stat.S_IFLNK}:
            return
        path = _path(directory, self.name)
        await world.both_async(
            lambda: world.vfs.setattr(inode.ino, Attributes(size=self.size)),
            lambda: os.truncate(path, self.size),
        )


@dataclass(frozen=True, slots=True)
class Fsync:
    """fsync()."""

    file: int

    async def run(self, world: World) -> None:
        if opened := world.file(self.file):
            await world.vfs.fsync(opened.handle)


@dataclass(frozen=True, slots=True)
class Unlink:
    """unlink()."""

    at: int
    name: bytes

    async def run(self, world: World) -> None:
        directory = world.directory(self.at)
        if world.both(
            lambda: world.vfs.unlink(directory.ino, self.name),
            lambda: os.unlink(self.name, dir_fd=directory.descriptor),
        ):
            world.unnamed(directory, self.name)


@dataclass(frozen=True, slots=True)
class Mkdir:
    """mkdir(); what is made can be worked in from then on, even when it is removed."""

    at: int
    name: bytes
    mode: int = 0o755

    async def run(self, world: World) -> None:
        directory = world.directory(self.at)
        made = world.both(
            lambda: world.vfs.mkdir(directory.ino, self.name, self.mode, world.caller),
            lambda: os.mkdir(self.name, self.mode, dir_fd=directory.descriptor),
        )
        if made:
            flags = os.O_RDONLY | os.O_DIRECTORY
            descriptor = os.open(self.name, flags, dir_fd=directory.descriptor)
            world.directories.append(Directory(made[0].ino, descriptor))
            world.named(directory, self.name)


@dataclass(frozen=True, slots=True)
class Rmdir:
    """rmdir()."""

    at: int
    name: bytes

    async def run(self, world: World) -> None:
        directory = world.directory(self.at)
        if world.both(
            lambda: world.vfs.rmdir(directory.ino, self.name),
            lambda: os.rmdir(self.name, dir_fd=directory.descriptor),
        ):
            world.unnamed(directory, self.name)


@dataclass(frozen=True, slots=True)
class Rename:
    """renameat2()."""

    at: int
    name: bytes
    to: int
    new_name: bytes
    flags: int = 0

    async def run(self, world: World) -> None:
        old, new = world.directory(self.at), world.directory(self.to)
        inode = world.find(old, self.name)
        other = world.find(new, self.new_name)
        exchange = bool(self.flags & RENAME_EXCHANGE)
        refused = inode is None or (world.is_inside(old, other) if other else exchange)
        done = world.both(
            lambda: world.vfs.rename(old.ino, self.name, new.ino, self.new_name, self.flags),
            lambda: _renameat2(old.descriptor, self.name, new.descriptor, self.new_name, self.flags),
            refused=refused,
        )
        if done and inode != other and not exchange:
            world.unnamed(old, self.name)
            world.named(new, self.new_name)


@dataclass(frozen=True, slots=True)
class Link:
    """link()."""

    at: int
    name: bytes
    to: int
    new_name: bytes

    async def run(self, world: World) -> None:
        old, new = world.directory(self.at), world.directory(self.to)
        inode = world.find(old, self.name)
        if inode is None:
            return
        if world.both(
            lambda: world.vfs.link(inode.ino, new.ino, self.new_name),
            lambda: os.link(
                self.name,
                self.new_name,
                src_dir_fd=old.descriptor,
                dst_dir_fd=new.descriptor,
                follow_symlinks=False,
            ),
            refused=stat.S_ISDIR(inode.mode),
        ):
            world.named(new, self.new_name)


@dataclass(frozen=True, slots=True)
class LinkOpened:
    """A name for an open file, which may have none left."""

    file: int
    to: int
    new_name: bytes

    async def run(self, world: World) -> None:
        opened, new = world.file(self.file), world.directory(self.to)
        if opened is None:
            return
        if world.both(
            lambda: world.vfs.link(opened.ino, new.ino, self.new_name),
            lambda: os.link(
                f"/proc/self/fd/{opened.descriptor}", os.fsdecode(self.new_name), dst_dir_fd=new.descriptor
            ),
            refused=not os.fstat(opened.descriptor).st_nlink,
        ):
            world.named(new, self.new_name)


@dataclass(frozen=True, slots=True)
class Symlink:
    """symlink()."""

    at: int
    name: bytes
    target: bytes

    async def run(self, world: World) -> None:
        directory = world.directory(self.at)
        if world.both(
            lambda: world.vfs.symlink(directory.ino, self.name, self.target, world.caller),
            lambda: os.symlink(self.target, self.name, dir_fd=directory.descriptor),
        ):
            world.named(directory, self.name)


@dataclass(frozen=True, slots=True)
class Mknod:
    """mknod() of an empty file, a fifo or a socket."""

    at: int
    name: bytes
    mode: int = stat.S_IFIFO | 0o644

    async def run(self, world: World) -> None:
        directory = world.directory(self.at)
        if world.both(
            lambda: world.vfs.mknod(directory.ino, self.name, self.mode, 0, world.caller),
            lambda: os.mknod(self.name, self.mode, dir_fd=directory.descriptor),
        ):
            world.named(directory, self.name)


@dataclass(frozen=True, slots=True)
class Chmod:
    """chmod(); the owner keeps access. Set-id bits are for directories: from files the kernel clears them."""

    at: int
    name: bytes
    mode: int

    async def run(self, world: World) -> None:
        directory = world.directory(self.at)
        inode = world.find(directory, self.name)
        if inode is None or stat.S_ISLNK(inode.mode):
            return
        mode = self.mode | 0o700 if stat.S_ISDIR(inode.mode) else self.mode & 0o777 | 0o600
        await world.both_async(
            lambda: world.vfs.setattr(inode.ino, Attributes(mode=mode)),
            lambda: os.chmod(self.name, mode, dir_fd=directory.descriptor),
        )


@dataclass(frozen=True, slots=True)
class Chown:
    """lchown(), by root."""

    at: int
    name: bytes
    uid: int
    gid: int

    async def run(self, world: World) -> None:
        directory = world.directory(self.at)
        inode = world.find(directory, self.name)
        if inode is None or world.caller.uid:
            return
        wanted = Attributes(
            uid=None if self.uid < 0 else self.uid,
            gid=None if self.gid < 0 else self.gid,
        )
        await world.both_async(
            lambda: world.vfs.setattr(inode.ino, wanted),
            lambda: os.chown(
                self.name, self.uid, self.gid, dir_fd=directory.descriptor, follow_symlinks=False
            ),
        )


@dataclass(frozen=True, slots=True)
class Utimens:
    """utimensat()."""

    at: int
    name: bytes
    atime_ns: int
    mtime_ns: int

    async def run(self, world: World) -> None:
        directory = world.directory(self.at)
        inode = world.find(directory, self.name)
        if inode is None:
            return
        times = (self.atime_ns, self.mtime_ns)
        await world.both_async(
            lambda: world.vfs.setattr(inode.ino, Attributes(atime_ns=self.atime_ns, mtime_ns=self.mtime_ns)),
            lambda: os.utime(self.name, ns=times, dir_fd=directory.descriptor, follow_symlinks=False),
        )


@dataclass(frozen=True, slots=True)
class StartListing:
    """opendir()."""

    at: int

    async def run(self, world: World) -> None:
        directory = world.directory(self.at)
        names = _names_in(directory.descriptor)
        world.listings.append(Listing(directory.ino, set(names), set(names)))


@dataclass(frozen=True, slots=True)
class GoOnListing:
    """readdir() of the next few entries; 0 lists the rest."""

    listing: int
    count: int = 0

    async def run(self, world: World) -> None:
        if not world.listings:
            return
        listing = world.listings[self.listing % len(world.listings)]
        entries = list(itertools.islice(world.vfs.readdir(listing.ino, listing.position), self.count or None))
        for entry in entries:
            assert entry.cookie > listing.position
            listing.position = entry.cookie
            listing.seen[entry.name] += 1
        if self.count and len(entries) == self.count:
            return
        world.listings.remove(listing)
        assert listing.seen.keys() <= listing.ever
        once = {name: listing.seen[name] for name in listing.always}
        assert once == dict.fromkeys(listing.always, 1), "reported another number of times than once"


@dataclass(frozen=True, slots=True)
class Forget:
    """The kernel needs its memory: it forgets what has a name, and may forget what has none and is closed."""

    at: int
    name: bytes

    async def run(self, world: World) -> None:
        inode = world.find(world.directory(self.at), self.name)
        if inode is not None:
            world.vfs.forget(inode.ino)
        used = {opened.ino for opened in world.opened} | {directory.ino for directory in world.directories}
        for ino in set(world.session.parts.journal.orphans()) - used:
            world.vfs.forget(ino)


# Events that nobody may see


@dataclass(frozen=True, slots=True)
class Settle:
    """Chunks are settled: all, or those that were left alone."""

    idle: bool = False

    async def run(self, world: World) -> None:
        if self.idle:
            world.content.settle_idle()
        else:
            world.content.settle_all()


@dataclass(frozen=True, slots=True)
class Breathe:
    """Workers get a moment, and what they report is noted."""

    async def run(self, world: World) -> None:  # noqa: ARG002 - as the protocol has it
        await trio.sleep(0.003)


@dataclass(frozen=True, slots=True)
class Drain:
    """Everything is stored; copies of it may go then, or all of them."""

    drop: bool = False

    async def run(self, world: World) -> None:
        world.repair()
        await _drain(world)
        if self.drop:
            world.content.forget_copies()


@dataclass(frozen=True, slots=True)
class DropCopies:
    """What is stored already must be brought back from the store."""

    async def run(self, world: World) -> None:
        world.content.forget_copies()


@dataclass(frozen=True, slots=True)
class Hold:
    """Blocks are on their way, made from the chunks as they are now, and do not arrive before `Repair`."""

    async def run(self, world: World) -> None:
        world.store.hold()
        world.tune()
        world.content.settle_all()
        end = time.monotonic() + 0.2
        uploader = world.session.parts.uploader
        while uploader.status().queued and not world.store.held_calls and time.monotonic() < end:  # noqa: ASYNC110 - threads
            await trio.sleep(0.0005)


@dataclass(frozen=True, slots=True)
class Break:
    """The store fails from now on."""

    async def run(self, world: World) -> None:
        world.store.down = True
        world.tune()


@dataclass(frozen=True, slots=True)
class Repair:
    """The store works again."""

    async def run(self, world: World) -> None:
        world.repair()


@dataclass(frozen=True, slots=True)
class Look:
    """All bytes of all files are compared."""

    async def run(self, world: World) -> None:
        await world.compare_content()
        world.check_books()


@dataclass(frozen=True, slots=True)
class Die:
    """The daemon is killed, or stopped in an orderly way, and another one takes the session over."""

    clean: bool = False

    async def run(self, world: World) -> None:
        if self.clean:
            world.end()
        else:
            world.die()


async def _drain(world: World) -> None:
    await world.content.drain()
    while world.session.parts.uploader.status().queued:  # noqa: ASYNC110 - threads
        await trio.sleep(0.0005)


def _path(directory: Directory, name: bytes) -> bytes:
    return b"/proc/self/fd/%d/%s" % (directory.descriptor, name)


def _renameat2(old: int, name: bytes, new: int, new_name: bytes, flags: int) -> None:
    if _libc.renameat2(old, name, new, new_name, flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


# Playing

_EPILOGUE: Sequence[Operation] = (Look(), Drain(drop=True), Look(), Die(), Look())


def play(base: Path, operations: Sequence[Operation], tuning: Tuning | None = None) -> None:
    """Do all operations in a new directory below `base`, and look through everything at the end.

    Raises:
        AssertionError: the sides differ.
    """
    directory = Path(tempfile.mkdtemp(dir=base))
    old_mask = os.umask(0)
    try:
        with contextlib.ExitStack() as stack:
            chosen = tuning or Tuning()
            constants: list[tuple[object, str, object]] = [
                (content_module, "_CACHED_CHUNKS", chosen.cached),
                (content_module, "SETTLE_AFTER", 0.0),
                (spool_module, "_WARM_SLOTS", chosen.warm),
                (uploader_module, "_FIRST_PAUSE", 0.002),
                (uploader_module, "_LONGEST_PAUSE", 0.01),
                (Disk, "_free_percent", lambda _: 100.0),
            ]
            for module, name, value in constants:
                stack.enter_context(patch.object(module, name, value))
            # What goes wrong here is wanted, and would fill the report of a failure.
            logger = logging.getLogger("flistfs")
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
            world = World(directory, chosen)
            try:
                trio.run(_play, world, [*operations, *_EPILOGUE])
            finally:
                world.close_all()
                for left in world.directories:
                    os.close(left.descriptor)
    finally:
        os.umask(old_mask)
        shutil.rmtree(directory)


async def _play(world: World, operations: Sequence[Operation]) -> None:
    rest = iter(operations)
    ended = False
    while not ended:
        directory = SessionDirectory(world.state)
        # An error that is on its way out need not wait for a store that is held or down.
        async with open_session(directory, ROCKSDB, world.store, world.caller) as session:
            world.attach(session)
            try:
                world.revive()
                ended = await _live(world, rest)
            except BaseException:
                world._end_life()
                raise
            world.store.down = True


async def _live(world: World, operations: Iterator[Operation]) -> bool:
    """Do operations until the session's end, and say whether there are none left."""
    for operation in operations:
        with trio.fail_after(30):
            await operation.run(world)
        if isinstance(operation, Die):
            return False
        world.compare()
    await _tidy(world)
    return True


async def _tidy(world: World) -> None:
    """Let go of everything, and see that nothing is left of what has no name."""
    for opened in world.opened:
        world.vfs.release(opened.handle)
    world.close_all()
    for ino in list(world.session.parts.journal.orphans()):
        world.vfs.forget(ino)
    world.check_books()
    world.compare()
