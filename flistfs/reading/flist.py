"""A sealed flist of any format: open it, look up paths, walk it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from flistfs.errors import FormatError
from flistfs.format.base import Codec, Fault, Format, TreeReader
from flistfs.format.faults import damaged
from flistfs.format.opening import open_tree
from flistfs.tree.names import name_fault, place_fault, printable
from flistfs.tree.node import Kind, Node, walkable
from flistfs.util.closing import Closing

if TYPE_CHECKING:
    from flistfs.format.router import Router
    from flistfs.reading.mending import MendedReader, PastDefects

_MAX_LINKS = 40  # links on the way to one path, as in Linux


class Faults(enum.Enum):
    """What reading does where an flist has a fault.

    RAISED raises an error. READ_PAST leaves out what a known program lost (see `mending.PastDefects`);
    READ_AROUND raises an error only where just that is read; ACCEPTED leaves out all that is not right.
    """

    RAISED = enum.auto()
    READ_PAST = enum.auto()
    READ_AROUND = enum.auto()
    ACCEPTED = enum.auto()


class Flist(Closing):
    """An open flist; a context manager."""

    def __init__(
        self, format_: Format, reader: TreeReader, shown: MendedReader | PastDefects | None = None
    ) -> None:
        """Use the reader of an flist of that format, or what another one has `shown` of it.

        `close` closes both.
        """
        self.format = format_
        self._unchanged = reader
        self._shown = shown
        self._reader = shown or reader

    @classmethod
    def open(cls, package: Path, faults: Faults = Faults.RAISED) -> Self:
        """Open a file, or a directory with an unpacked package.

        Temporary files go to a temporary directory: nothing is written next to the user's files.

        Raises:
            FormatError: it does not exist, is damaged, or is not an flist.
        """
        format_, reader = open_tree(package)
        if faults is Faults.RAISED or (faults is not Faults.ACCEPTED and not format_.has_known_defects):
            return cls(format_, reader)
        from flistfs.reading import mending  # noqa: PLC0415  few flists need it

        shown: MendedReader | PastDefects
        match faults:
            case Faults.ACCEPTED:
                shown = mending.MendedReader(reader, format_.codec)
            case Faults.READ_PAST:
                shown = mending.PastDefects(reader, format_.codec)
            case Faults.READ_AROUND:
                shown = mending.AroundDefects(reader, format_.codec)
        return cls(format_, reader, shown)

    def close(self) -> None:
        """Close it and remove temporary files."""
        self._reader.close()

    def as_it_is(self) -> Flist:
        """Return this flist without anything accepted or read past; it is open as long as this one."""
        return Flist(self.format, self._unchanged)

    @property
    def accepted_faults(self) -> int:
        """How many faults were met so far, and accepted or read past."""
        return 0 if self._shown is None else self._shown.count

    @property
    def faults_met(self) -> Sequence[Fault]:
        """The faults that were met so far, up to `mending.MAX_MET`."""
        return () if self._shown is None else self._shown.met

    @property
    def codec(self) -> Codec:
        """The codec of its blocks."""
        return self.format.codec

    @property
    def metadata(self) -> Mapping[str, bytes]:
        """The flist's metadata besides the tree, by name; without secrets."""
        return self._reader.metadata

    @property
    def package_faults(self) -> Sequence[str]:
        """Why other readers would reject it, though it could be opened here."""
        return self._reader.package_faults

    @property
    def estimated_directories(self) -> int:
        """The approximate number of directories, for progress reports."""
        return self._reader.estimated_directories

    def router(self) -> Router | None:
        """Return the flist's router to its blocks, if it has one. URLs may contain passwords.

        Raises:
            FormatError: readers would reject it.
        """
        return self._reader.router()

    def files(self) -> Iterator[Node]:
        """Yield all files, in the fastest order.

        Raises:
            FormatError: the flist is damaged.
        """
        return self._reader.files()

    def faults(self, path: bytes) -> Iterator[Fault]:
        """Yield the faults of one directory and its entries, without querying blocks."""
        try:
            yield from self._reader.faults(path)
        except FormatError as error:
            yield Fault(path, str(error))

    def listing(self, path: bytes) -> Sequence[Node] | None:
        """Return the entries of a directory, by name, as `TreeReader.listing` does.

        Raises:
            FormatError: the directory is damaged.
        """
        return self._reader.listing(path)

    def directory(self, path: bytes) -> Node | None:
        """Return a directory; None if there is none at this path.

        Raises:
            FormatError: it is damaged; the message names the path.
        """
        try:
            return self._reader.directory(path)
        except FormatError as error:
            raise damaged(path, error) from error

    def find(self, path: bytes) -> Node:
        """Look up a path, without following links.

        Raises:
            FormatError: it does not exist.
        """
        parts = [part for part in path.split(b"/") if part not in {b"", b"."}]
        path = b"/".join(parts)
        directory = self.directory(path) if b".." not in parts else None
        if directory is not None:
            return directory
        parent, _, name = path.rpartition(b"/")
        if not path:
            raise FormatError("the flist is damaged: it has no root directory")
        for node in self.entries(parent):
            if node.path == path and name_fault(name) is None:
                return node
        raise FormatError(f"there is no {path.decode(errors='backslashreplace')!r} in this flist")

    def follow(self, path: bytes) -> Node:
        """Look up a path as a program inside the tree would: links are followed, and none leads out of it.

        Raises:
            FormatError: it does not exist, or links form a loop.
        """
        waiting = path.split(b"/")[::-1]
        way: list[bytes] = []
        links = 0
        while waiting:
            name = waiting.pop()
            if name in {b"", b"."}:
                continue
            if name == b"..":
                way = way[:-1]
                continue
            here = self.find(b"/".join([*way, name]))
            if here.target is None:
                way.append(name)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise FormatError(f"there are too many links in the path {printable(path)}")
            way = [] if here.target.startswith(b"/") else way
            waiting += here.target.split(b"/")[::-1]
        return self.find(b"/".join(way))

    def children(
        self, path: bytes, *, leave_out: Callable[[Node, str], None] | None = None
    ) -> Iterator[Node]:
        """Yield the entries of a directory by name, subdirectories with their complete data.

        `leave_out` is called for entries that no file system can have, with the reason.

        Raises:
            FormatError: there is such an entry, and no `leave_out`; or a directory is damaged.
        """
        before: bytes | None = None
        for node in self.entries(path):
            # Not `node.name`: for a name with a slash in it, that would be the last part.
            name = node.path[len(path) + 1 :] if path else node.path
            if (fault := place_fault(node.path, name)) is not None:
                if leave_out is None:
                    raise damaged(path, FormatError(f"of its entry '{printable(name)}': {fault}"))
                leave_out(node, fault)
                continue
            # A repeated name must not be walked each time: on several levels that would multiply.
            is_new = node.path != before
            before = node.path
            if is_new and node.kind is Kind.DIRECTORY and not node.whole:
                yield self.directory(node.path) or node
            else:
                yield node

    def walk(self, start: Node, *, depth: int | None = None) -> Iterator[Node]:
        """Yield everything below a directory, parents first, by name; at most `depth` levels down.

        Only the entries of the directories on the current path are kept in memory.
        """
        if not _has_entries(start) or depth == 0:
            return
        levels = [self.children(start.path)]
        while levels:
            node = next(levels[-1], None)
            if node is None:
                levels.pop()
                continue
            yield node
            if _has_entries(node) and len(levels) != depth:
                levels.append(self.children(node.path))

    def directories(self) -> Iterator[tuple[bytes, Sequence[Node] | FormatError]]:
        """Yield all directories with their listings, parents first, whatever is wrong with the flist.

        A damaged directory is yielded as its error. One that the flist lacks is skipped: its entry has the
        fault.
        """
        waiting = [b""]
        while waiting:
            path = waiting.pop()
            listing = self._listing_or_error(path)
            if listing is None:
                continue
            yield path, listing
            if isinstance(listing, FormatError):
                continue
            waiting += reversed(walkable(path, listing))

    def _listing_or_error(self, path: bytes) -> Sequence[Node] | FormatError | None:
        try:
            listing = self._reader.listing(path)
        except FormatError as error:
            return error
        if listing is None and not path:
            return FormatError("there is no root directory")
        return listing

    def entries(self, path: bytes) -> Sequence[Node]:
        """Return the unchecked entries of a directory, by name; none if there is no such directory.

        Raises:
            FormatError: the directory is damaged; the message names the path.
        """
        try:
            return self._reader.listing(path) or ()
        except FormatError as error:
            raise damaged(path, error) from error


def _has_entries(node: Node) -> bool:
    return node.kind is Kind.DIRECTORY and node.whole
