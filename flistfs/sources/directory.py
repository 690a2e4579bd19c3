"""Directories and files of this machine as items, to be put into a tree without FUSE.

A source yields every directory before its content, and every file before its further hard links. It is
walked in a thread of its own.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from flistfs.errors import SourceError
from flistfs.sources.data import FileSource, file_version
from flistfs.sources.excludes import Filter, nothing_excluded
from flistfs.sources.fitting import Fit, SourceTree, fit, rules_of_adding
from flistfs.sources.item import Item, Piece, Problem
from flistfs.sources.reach import file_within_reach, why_unreadable, within_reach
from flistfs.tree.chunks import CHUNK_SIZE
from flistfs.tree.rules import Tree

# os.listxattr takes 1.5 µs per file; a file system without xattrs reports that for the first one.
_NOT_SUPPORTED = frozenset({errno.EOPNOTSUPP, errno.ENOSYS})

_NO_XATTRS: Mapping[bytes, bytes] = MappingProxyType({})

# A minimal access control list is equivalent to the mode.
_ACL_PREFIX = b"system.posix_acl_"


@dataclass(frozen=True, slots=True)
class Start:
    """A directory or file to start from: its path on this machine, and in the tree (empty: the root).

    `shown` is the path as the user typed it.
    """

    path: bytes
    name: bytes
    shown: str

    def below(self, path: bytes) -> str:
        """Return a path at or below this one as the user would type it."""
        rest = os.fsdecode(path[len(self.path) :]).lstrip("/")
        return f"{self.shown.rstrip('/')}/{rest}" if rest else self.shown

    def status(self) -> os.stat_result:
        """Return its status, without following a link.

        Raises:
            SourceError: it does not exist, or cannot be reached.
        """
        try:
            with file_within_reach(self.path) as way:
                return os.lstat(way)
        except OSError as error:
            raise SourceError(f"{self.shown} cannot be read: {error.strerror}") from None


def starting_points(sources: Sequence[str], typed: Sequence[str] = ()) -> list[Start]:
    """Return where sources go, as with `cp -a SOURCE… TARGET`: `dir` to TARGET/dir, `dir/.` to TARGET itself.

    Args:
        sources: Their paths.
        typed: The paths as the user typed them, if they differ.

    Raises:
        SourceError: a source has no name.
    """
    return [_start(source, shown) for source, shown in zip(sources, typed or sources, strict=True)]


def _start(source: str, shown: str) -> Start:
    if source == "." or source.endswith("/."):  # a Path would drop it
        return Start(os.fsencode(os.path.realpath(source)), b"", shown.removesuffix("/.") or "/")
    path = os.path.abspath(source)  # noqa: PTH100  without resolving a link that is itself the source
    name = os.path.basename(path)  # noqa: PTH119  a text, not a path, from here on
    if not name:
        raise SourceError(f"{source} has no name; to add its content to the tree, write {source}.")
    return Start(os.fsencode(path), os.fsencode(name), shown)


class _Place(NamedTuple):
    """A directory to be walked: its path on this machine and in the tree, and its status."""

    path: bytes
    name: bytes
    status: os.stat_result


class DirectorySource:
    """A `TreeSource` of directories and files of this machine."""

    def __init__(
        self,
        starts: Sequence[Start],
        *,
        excluded: Filter = nothing_excluded,
        forbidden: Mapping[tuple[int, int], str] | None = None,
        replace_links: bool = False,
    ) -> None:
        """Walk everything below `starts`.

        Args:
            starts: The directories and files to start from.
            excluded: Matches the paths to leave out, with everything below them.
            forbidden: Directories, by device and inode number, that must not be walked into because what
                is written to them would be read again and again; with a description of each.
            replace_links: Whether a directory replaces a link, instead of following it.
        """
        self._starts = starts
        self._excluded = excluded
        self._forbidden = forbidden or {}
        self._replace_links = replace_links
        self._fits = [Fit() for _ in starts]
        self._unfit: dict[bytes, str | None] = {}  # paths that do not fit, and why; None: it comes later
        self._total = 0
        self._closed = False
        self._names: dict[tuple[int, int], bytes] = {}
        self._has_xattrs: dict[int, bool] = {}

    def fit(self, tree: Tree, to: bytes) -> list[Problem]:
        """Find what has no place in a tree below its directory `to` (blocks); it becomes problems."""
        sources = [SourceTree(start.path, start.name, to, self._excluded) for start in self._starts]
        self._fits = fit(sources, tree, rules_of_adding(replace_links=self._replace_links))
        return [Problem(name, why) for each in self._fits for name, why in sorted(each.refused.items())]

    def items(self) -> Iterator[Item | Problem]:
        """Walk everything."""
        for start, each in zip(self._starts, self._fits, strict=True):
            self._unfit = {**dict.fromkeys(each.late), **each.refused}
            if start.name not in self._unfit:
                yield from self._walk(start, start.status())
            elif (why := self._unfit[start.name]) is not None:
                yield Problem(start.name, why)
            for name in each.late:
                yield from self._walk_late(start, name)

    def _walk_late(self, start: Start, name: bytes) -> Iterator[Item | Problem]:
        path = _place(start, name) or start.path
        try:
            with file_within_reach(path) as way:
                status = os.lstat(way)
        except OSError as error:
            yield Problem(name, why_unreadable(error))
            return
        yield from self._walk(Start(path, name, start.below(path)), status)

    def measure(self) -> None:
        """Add up the sizes of all files; `items` reports what cannot be read."""
        total = 0
        for start in self._starts:
            with suppress(SourceError):
                total += start.status().st_size
            waiting = [start.path]
            while waiting and not self._closed:
                path = waiting.pop()
                with suppress(OSError), within_reach(path) as way, os.scandir(way) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(os.path.join(path, entry.name))  # noqa: PTH118  bytes
                        elif entry.is_file(follow_symlinks=False):
                            total += entry.stat(follow_symlinks=False).st_size
        self._total = total

    def extent(self, size: int) -> tuple[int, int]:
        """Return the progress."""
        return min(size, self._total) if self._total else size, self._total

    def named(self, path: bytes) -> str:
        """Return an item's path as the user would type it; if sources share a name, the one that has it."""
        places = [(start, place) for start in self._starts if (place := _place(start, path)) is not None]
        found = [each for each in places if len(places) > 1 and _is_there(each[1])] or places
        if not found:
            return os.fsdecode(path)
        start, place = found[0]
        return start.below(place)

    def close(self) -> None:
        """Stop measuring."""
        self._closed = True

    def _walk(self, start: Start, status: os.stat_result) -> Iterator[Item | Problem]:
        path, name = start.path, start.name
        is_directory = stat.S_ISDIR(status.st_mode)
        if name and self._excluded(name, is_directory):
            return
        if not is_directory:
            yield from self._file(path, name, status)
            return
        waiting = [_Place(path, name, status)]
        while waiting:
            place = waiting.pop()
            self._refuse_forbidden(start, place)
            directories: list[_Place] = []
            yield from self._directory(place, directories)
            waiting += sorted(directories, reverse=True, key=lambda directory: directory.name)

    def _refuse_forbidden(self, start: Start, place: _Place) -> None:
        what = self._forbidden.get((place.status.st_dev, place.status.st_ino))
        if what is not None:
            raise SourceError(
                f"{start.below(place.path)} is {what}, which would be read while it is written: exclude it"
            )

    def _file(self, path: bytes, name: bytes, status: os.stat_result) -> Iterator[Item | Problem]:
        """Yield the start of a walk, if it is not a directory."""
        try:
            with file_within_reach(path) as way:
                yield self._item(way, path, name, status)
        except OSError as error:
            yield Problem(name, why_unreadable(error))

    def _directory(self, place: _Place, directories: list[_Place]) -> Iterator[Item | Problem]:
        """Yield a directory and its entries that are not directories, and collect the others.

        One that cannot be listed is left out itself: as an empty one it would look complete.
        """
        path, name, status = place
        prefix = name + b"/" if name else b""
        try:
            with within_reach(path) as way, os.scandir(way) as entries:
                yield self._item(path if way is path else way + b"/.", path, name, status)
                for entry in entries:
                    found = self._entry(entry, path, way, prefix + entry.name)
                    if isinstance(found, _Place):
                        directories.append(found)
                    elif found is not None:
                        yield found
        except OSError as error:
            yield Problem(name, why_unreadable(error))

    def _entry(
        self, entry: os.DirEntry[bytes], directory: bytes, way: bytes, name: bytes
    ) -> Item | Problem | _Place | None:
        """Return an entry, or a directory for later; None if it is left out."""
        try:
            if self._excluded(name, entry.is_dir(follow_symlinks=False)):
                return None
            if name in self._unfit:
                why = self._unfit[name]
                return None if why is None else Problem(name, why)
            status = entry.stat(follow_symlinks=False)
            path = entry.path if way is directory else directory + b"/" + entry.name
            if stat.S_ISDIR(status.st_mode):
                return _Place(path, name, status)
            return self._item(entry.path, path, name, status)
        except OSError as error:
            return Problem(name, why_unreadable(error))

    def _item(self, way: bytes, path: bytes, name: bytes, status: os.stat_result) -> Item:
        """Return the item of an entry with the path `path`, which can be reached as `way`.

        Raises:
            OSError: it cannot be read.
        """
        mode = status.st_mode
        link = self._first_name(name, status) if status.st_nlink > 1 and not stat.S_ISDIR(mode) else None
        data: Sequence[range] = ()
        if stat.S_ISREG(mode) and link is None and status.st_size:
            data = _chunks_with_data(way, status)
        return Item(
            path=name,
            mode=mode,
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            atime_ns=status.st_atime_ns,
            size=status.st_size if stat.S_ISREG(mode) else 0,
            rdev=status.st_rdev,
            target=os.readlink(way) if stat.S_ISLNK(mode) else b"",  # noqa: PTH115  bytes
            link=link,
            xattrs=self._xattrs(way, status.st_dev),
            pieces=_pieces(path, status, data),
            count=sum(map(len, data)),
            replaces_link=self._replace_links,
        )

    def _first_name(self, name: bytes, status: os.stat_result) -> bytes | None:
        """Return the name under which a file with several hard links was found first; None if this is it."""
        first = self._names.setdefault((status.st_dev, status.st_ino), name)
        return None if first == name else first

    def _xattrs(self, way: bytes, device: int) -> Mapping[bytes, bytes]:
        """Read the extended attributes of an entry.

        Raises:
            OSError: some cannot be read.
        """
        if not self._has_xattrs.get(device, True):
            return _NO_XATTRS
        try:
            names = os.listxattr(way, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
            self._has_xattrs[device] = False
            return _NO_XATTRS
        return dict(_read_xattrs(way, names)) if names else _NO_XATTRS


def _read_xattrs(way: bytes, names: Iterable[str]) -> Iterator[tuple[bytes, bytes]]:
    """Read extended attributes; one that has gone meanwhile is left out."""
    for name in names:
        raw = os.fsencode(name)
        if raw.startswith(_ACL_PREFIX):
            continue
        try:
            yield raw, os.getxattr(way, name, follow_symlinks=False)
        except OSError as error:
            if error.errno != errno.ENODATA and error.errno not in _NOT_SUPPORTED:
                raise


def _is_there(path: bytes) -> bool:
    try:
        with file_within_reach(path) as way:
            return os.path.lexists(way)
    except OSError:
        return False


def _place(start: Start, path: bytes) -> bytes | None:
    """Return the path on this machine of an item of the tree; None if it does not come from `start`."""
    if not start.name:
        return os.path.join(start.path, path) if path else start.path  # noqa: PTH118  bytes
    name, slash, rest = path.partition(b"/")
    return start.path + slash + rest if name == start.name else None


def _pieces(path: bytes, status: os.stat_result, data: Iterable[range]) -> Iterator[Piece]:
    """Yield a file's pieces one at a time: a large file has half a million."""
    size, version = status.st_size, file_version(status)
    for indexes in data:
        for index in indexes:
            offset = index * CHUNK_SIZE
            yield Piece(index, FileSource(path, offset, min(CHUNK_SIZE, size - offset), version))


def _chunks_with_data(path: bytes, status: os.stat_result) -> Sequence[range]:
    """Find the chunks of a file that are not holes."""
    size = status.st_size
    if status.st_blocks * 512 >= size:
        return [range(-(-size // CHUNK_SIZE))]
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found: list[range] = []
        position = done = 0
        while position < size:
            try:
                start = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # a hole until the end
                    return found
                raise
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            end = -(-min(position, size) // CHUNK_SIZE)
            found.append(range(max(start // CHUNK_SIZE, done), end))
            done = end
        return found
    finally:
        os.close(descriptor)
