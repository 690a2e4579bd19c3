"""What can be put into a tree without FUSE: directories and files of this machine, as items.

A source gives its items in an order in which every directory comes before what is in it, and every file
before its further names. It is walked in a thread of its own.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from flistfs.authoring.encoder import FileSource, Source, file_version
from flistfs.authoring.excludes import Filter, nothing_excluded
from flistfs.authoring.journal import Stored
from flistfs.errors import SourceError
from flistfs.format.records import CHUNK_SIZE

# os.listxattr costs 1.5 µs a file; a file system without any says so at the first.
_NO_XATTRS = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})

# What a minimal access control list says is in the mode already.
_ACL_PREFIX = b"system.posix_acl_"


class Piece(NamedTuple):
    """A chunk of a file, by its number in it; those that no piece names are holes."""

    number: int
    source: Source


@dataclass(frozen=True, slots=True)
class Item:
    """Something to be put into a tree.

    `path` is relative to where it is put, with no slash at either end, and empty for that place itself.
    `mode` is the full st_mode; times are nanoseconds since 1970, and without a `ctime_ns` it is that of the
    putting. A file has `size` bytes in `pieces`, which are to be taken before the next item, or in `stored`,
    all its chunks in order, of which a store holds the blocks already; an item that is a further name of a
    file has the file's path as `link`.
    """

    path: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    atime_ns: int
    size: int = 0
    rdev: int = 0
    target: bytes = b""
    link: bytes | None = None
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)
    pieces: Iterable[Piece] = ()
    count: int = 0
    """How many pieces there are."""
    stored: Sequence[Stored] = ()
    ctime_ns: int | None = None
    makes_parents: bool = False
    """Whether directories that it lies in are made if they are not there."""
    replaces_link: bool = False
    """Whether a directory takes the place of a link, instead of going where that leads."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An entry that cannot be put into a tree, and why. `path` is as in an item."""

    path: bytes
    reason: str

    def __str__(self) -> str:
        return f"{os.fsdecode(self.path) or '.'}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Note:
    """Something that the user is told, though everything is taken."""

    text: str


class TreeSource(Protocol):
    """Where items come from."""

    def items(self) -> Iterator[Item | Problem | Note]:
        """Walk everything (blocks).

        Raises:
            SourceError: it cannot be read at all, or not to its end.
        """

    def measure(self) -> None:
        """Find out how much there is (blocks), so that `extent` can tell."""

    def extent(self, size: int) -> tuple[int, int]:
        """Say how far it is when `size` bytes of content are done: so much, of so much (0: nobody knows)."""

    def close(self) -> None:
        """Let go of files."""


@dataclass(frozen=True, slots=True)
class Start:
    """A directory or file to begin with: its path on this machine, and in the tree (empty: its top)."""

    path: bytes
    name: bytes

    def status(self) -> os.stat_result:
        """Return what is there.

        Raises:
            SourceError: nothing is, or it cannot be reached.
        """
        try:
            return os.lstat(self.path)
        except OSError as error:
            raise SourceError(f"{os.fsdecode(self.path)} cannot be read: {error.strerror}") from None


def starting_points(sources: Sequence[str]) -> list[Start]:
    """Say where sources go, as `cp -a SOURCE… TARGET` has it: `dir` to TARGET/dir, `dir/.` to TARGET itself.

    Raises:
        SourceError: a source has no name.
    """
    return [_start(source) for source in sources]


def _start(source: str) -> Start:
    if source == "." or source.endswith("/."):  # a Path would have dropped it
        return Start(os.fsencode(os.path.realpath(source)), b"")
    path = os.path.abspath(source)  # noqa: PTH100  without resolving a link that is itself the source
    name = os.path.basename(path)  # noqa: PTH119  a text, not a path, from here on
    if not name:
        raise SourceError(f"{source} has no name; to put what is in it into the tree, write {source}.")
    return Start(os.fsencode(path), os.fsencode(name))


class DirectorySource:
    """Directories and files of this machine."""

    def __init__(
        self,
        starts: Sequence[Start],
        *,
        excluded: Filter = nothing_excluded,
        forbidden: Mapping[tuple[int, int], str] | None = None,
    ) -> None:
        """Walk everything below `starts`.

        Args:
            starts: Where to begin.
            excluded: What is left out, with all that is in it.
            forbidden: Directories, by device and inode number, that must not be walked into because what
                is written to them would be read again and again; and what they are.
        """
        self._starts = starts
        self._excluded = excluded
        self._forbidden = forbidden or {}
        self._total = 0
        self._closed = False
        self._names: dict[tuple[int, int], bytes] = {}
        self._has_xattrs: dict[int, bool] = {}

    def items(self) -> Iterator[Item | Problem]:
        """Walk everything."""
        for start in self._starts:
            yield from self._walk(start.path, start.name, start.status())

    def measure(self) -> None:
        """Add up the sizes of all files; what cannot be read is for `items` to say."""
        total = 0
        for start in self._starts:
            with suppress(OSError):
                total += os.lstat(start.path).st_size
            waiting = [start.path]
            while waiting and not self._closed:
                with suppress(OSError), os.scandir(waiting.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            total += entry.stat(follow_symlinks=False).st_size
        self._total = total

    def extent(self, size: int) -> tuple[int, int]:
        """Say how far it is."""
        return min(size, self._total) if self._total else size, self._total

    def close(self) -> None:
        """Stop measuring."""
        self._closed = True

    def _walk(self, path: bytes, name: bytes, status: os.stat_result) -> Iterator[Item | Problem]:
        is_folder = stat.S_ISDIR(status.st_mode)
        if name and self._excluded(name, is_folder):
            return
        if not is_folder:
            yield self._item_or_problem(path, name, status)
            return
        waiting = [(path, name, status)]
        while waiting:
            path, name, status = waiting.pop()
            what = self._forbidden.get((status.st_dev, status.st_ino))
            if what is not None:
                raise SourceError(
                    f"{os.fsdecode(path)} is {what}, which would be read while it is written: exclude it"
                )
            yield self._item(path, name, status)
            folders: list[tuple[bytes, bytes, os.stat_result]] = []
            yield from self._folder(path, name, folders)
            waiting += sorted(folders, reverse=True, key=lambda folder: folder[1])

    def _folder(
        self, path: bytes, name: bytes, folders: list[tuple[bytes, bytes, os.stat_result]]
    ) -> Iterator[Item | Problem]:
        """Walk what is no directory in a directory, and collect what is."""
        prefix = name + b"/" if name else b""
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    child = prefix + entry.name
                    if self._excluded(child, entry.is_dir(follow_symlinks=False)):
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except OSError as error:
                        yield Problem(child, _reason(error))
                        continue
                    if stat.S_ISDIR(status.st_mode):
                        folders.append((entry.path, child, status))
                    else:
                        yield self._item_or_problem(entry.path, child, status)
        except OSError as error:
            yield Problem(name, _reason(error))

    def _item_or_problem(self, path: bytes, name: bytes, status: os.stat_result) -> Item | Problem:
        try:
            return self._item(path, name, status)
        except OSError as error:
            return Problem(name, _reason(error))

    def _item(self, path: bytes, name: bytes, status: os.stat_result) -> Item:
        mode = status.st_mode
        link = self._first_name(name, status) if status.st_nlink > 1 and not stat.S_ISDIR(mode) else None
        data: Sequence[range] = ()
        if stat.S_ISREG(mode) and link is None and status.st_size:
            data = _chunks_with_data(path, status)
        return Item(
            path=name,
            mode=mode,
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            atime_ns=status.st_atime_ns,
            size=status.st_size if stat.S_ISREG(mode) else 0,
            rdev=status.st_rdev,
            target=os.readlink(path) if stat.S_ISLNK(mode) else b"",  # noqa: PTH115  bytes
            link=link,
            xattrs=self._xattrs(path, status.st_dev),
            pieces=_pieces(path, status, data),
            count=sum(map(len, data)),
        )

    def _first_name(self, name: bytes, status: os.stat_result) -> bytes | None:
        """Return the name under which a file with several was met first, unless this is it."""
        first = self._names.setdefault((status.st_dev, status.st_ino), name)
        return None if first == name else first

    def _xattrs(self, path: bytes, device: int) -> Mapping[bytes, bytes]:
        if not self._has_xattrs.setdefault(device, True):
            return {}
        try:
            names = os.listxattr(path, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_XATTRS:
                self._has_xattrs[device] = False
            return {}
        return {
            os.fsencode(name): os.getxattr(path, name, follow_symlinks=False)
            for name in names
            if not os.fsencode(name).startswith(_ACL_PREFIX)
        }


def _pieces(path: bytes, status: os.stat_result, data: Iterable[range]) -> Iterator[Piece]:
    """Cut a file into pieces, one at a time: a large one has half a million."""
    size, version = status.st_size, file_version(status)
    for indexes in data:
        for index in indexes:
            offset = index * CHUNK_SIZE
            yield Piece(index, FileSource(path, offset, min(CHUNK_SIZE, size - offset), version))


def _chunks_with_data(path: bytes, status: os.stat_result) -> Sequence[range]:
    """Find the chunks of a file that are no holes."""
    size = status.st_size
    if status.st_blocks * 512 >= size:
        return [range(-(-size // CHUNK_SIZE))]
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found: list[range] = []
        position = done = 0
        while position < size:
            try:
                start = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # a hole up to the end
                    return found
                raise
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            end = -(-min(position, size) // CHUNK_SIZE)
            found.append(range(max(start // CHUNK_SIZE, done), end))
            done = end
        return found
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "it has vanished"
    return f"it cannot be read: {error.strerror}"
