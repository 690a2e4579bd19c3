"""A sealed flist: open it, look a path up, walk it. Listing a directory reads one record, not the catalog."""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from flistfs.errors import FormatError
from flistfs.format.generation import Generation
from flistfs.format.rocksdb.catalog import Catalog
from flistfs.format.router import MAX_SIZE, Router, parse_router
from flistfs.format.zeroos.keys import directory_key
from flistfs.format.zeroos.package import link_package, unpack_package
from flistfs.format.zeroos.records import (
    Aci,
    Directory,
    Entry,
    File,
    Link,
    Special,
    SpecialKind,
    SubDirectory,
    decode_aci,
    decode_directory,
    decode_head,
)
from flistfs.tree.names import join, name_fault, place_fault, printable
from flistfs.tree.node import _TYPE_BITS, Kind
from flistfs.util.closing import Closing
from flistfs.util.scratch import Scratch

ROUTER_FILE = "router.yaml"

_NO_ACI_MODE = 0o400  # what readers show of an entry without an ACI
_ALL_FAULTS = "flistfs verify --no-store lists all faults"
_MAX_LINKS = 40  # links on the way to one path, as in Linux


_SPECIAL_KINDS = {
    SpecialKind.SOCKET: Kind.SOCKET,
    SpecialKind.BLOCK: Kind.BLOCK,
    SpecialKind.CHAR: Kind.CHAR,
    SpecialKind.FIFO: Kind.FIFO,
}


# The other records are ACIs, whose keys are half as long.
_DIRECTORY_KEY_SIZE = 64


@dataclass(frozen=True, slots=True)
class Node:
    """Something in an flist: an entry, and for a directory what its own record says of it.

    `directory` has no entries: ask the flist for them. It is None for a sub-directory without a record, and
    where a name occurs a second time.
    """

    path: bytes
    entry: Entry
    directory: Directory | None = None

    @property
    def kind(self) -> Kind:
        """What it is."""
        match self.entry.attributes:
            case SubDirectory():
                return Kind.DIRECTORY
            case File():
                return Kind.FILE
            case Link():
                return Kind.LINK
            case Special(kind=kind):
                return _SPECIAL_KINDS.get(kind, Kind.UNKNOWN)
            case _:
                return Kind.UNKNOWN

    @property
    def target(self) -> bytes | None:
        """Where a link leads; None for anything else."""
        return self.entry.attributes.target if isinstance(self.entry.attributes, Link) else None

    @property
    def aclkey(self) -> bytes:
        """The key of its ACI."""
        return self.entry.aclkey if self.directory is None else self.directory.aclkey

    @property
    def size(self) -> int:
        """Its length in bytes; of a directory, what its record says."""
        return (self.entry if self.directory is None else self.directory).size

    @property
    def modification_time(self) -> int:
        """Whole seconds since 1970."""
        return (self.entry if self.directory is None else self.directory).modification_time

    @property
    def creation_time(self) -> int:
        """Whole seconds since 1970."""
        return (self.entry if self.directory is None else self.directory).creation_time


def _is_directory(package: Path) -> bool:
    try:
        return stat.S_ISDIR(package.stat().st_mode)
    except FileNotFoundError:
        raise FormatError(f"there is no file {package}") from None
    except OSError as error:
        raise FormatError(f"cannot read {package}: {error.strerror}") from error


def _damaged(path: bytes, error: FormatError) -> FormatError:
    name = printable(path) or "/"
    return FormatError(f"{name} is damaged: {error} ({_ALL_FAULTS})")


def _placed(path: bytes, directory: Directory) -> Directory:
    """Return a directory that is at `path`; so no walk is longer than what the records hold."""
    if directory.location != path:
        raise FormatError("its record says that it is elsewhere")
    return directory


def _name(entry: Entry) -> bytes:
    return entry.name


class Flist(Closing):
    """An open flist; a context manager.

    `package_faults` says what keeps readers from opening the package, though it could be opened here.
    """

    def __init__(self, catalog: Catalog, scratch: Scratch, package_faults: Sequence[str] = ()) -> None:
        self.package_faults = package_faults
        self._catalog = catalog
        self._scratch = scratch
        self._acis: dict[bytes, Aci | None] = {}

    @classmethod
    def open(cls, package: Path) -> Self:
        """Open a package, or a directory that one was unpacked into.

        What it takes is put into a temporary folder: nothing is written beside the user's files.

        Raises:
            FormatError: it is not there, damaged, or no flist.
        """
        faults: list[str] = []
        with ExitStack() as held:
            scratch = held.enter_context(Scratch())
            if _is_directory(package):
                link_package(package, scratch.path)
            else:
                faults = unpack_package(package, scratch.path)
            try:
                catalog = Catalog.open(scratch.path)
            except FormatError as error:
                raise FormatError(f"{package} is no flist that can be read: {error}") from error
            flist = cls(catalog, scratch, faults)
            held.pop_all()
        return flist

    def close(self) -> None:
        """Close it and remove the temporary folder."""
        self._catalog.close()
        self._scratch.close()

    @property
    def generation(self) -> Generation:
        """The generation of the format that it has."""
        return Generation.ONE

    @property
    def estimated_records(self) -> int:
        """About how many directories there are, for showing progress: ACIs are few."""
        return self._catalog.estimated_records

    def router(self) -> Router | None:
        """Return what its router.yaml says, if it has one. URLs may hold passwords.

        Raises:
            FormatError: readers would refuse it.
        """
        path = self._scratch.path / ROUTER_FILE
        try:
            with path.open("rb") as file:
                return parse_router(file.read(MAX_SIZE + 1))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FormatError(f"router.yaml cannot be read: {error.strerror}") from error

    def has(self, key: bytes) -> bool:
        """Say whether there is a record of this key."""
        return self._catalog.has(key)

    def directories(self) -> Iterator[Directory]:
        """Walk the records of all directories, in no order that means anything.

        Raises:
            FormatError: one is damaged.
        """
        for key, raw in self._catalog.items():
            if len(key) == _DIRECTORY_KEY_SIZE:
                try:
                    directory = decode_directory(raw)
                except FormatError as error:
                    raise FormatError(f"a directory is damaged: {error} ({_ALL_FAULTS})") from error
                yield directory

    def record_size(self, path: bytes) -> int:
        """Return how many bytes the record of the directory at `path` has; 0 if there is none."""
        return len(self._catalog.get(directory_key(path)) or b"")

    def directory(self, path: bytes) -> Directory | None:
        """Return the record of the directory at `path` (no slash at either end; the root is empty)."""
        raw = self._catalog.get(directory_key(path))
        return None if raw is None else decode_directory(raw)

    def head(self, path: bytes) -> Directory | None:
        """Return the record of a directory without its entries, which saves the time to decode them.

        Raises:
            FormatError: it is damaged, or is that of another path; names the path.
        """
        try:
            raw = self._catalog.get(directory_key(path))
            return None if raw is None else _placed(path, decode_head(raw))
        except FormatError as error:
            raise _damaged(path, error) from error

    def find(self, path: bytes) -> Node:
        """Look a path up, without following links.

        Raises:
            FormatError: there is nothing of that name.
        """
        parts = [part for part in path.split(b"/") if part not in {b"", b"."}]
        path = b"/".join(parts)
        directory = self.head(path) if b".." not in parts else None
        parent, _, name = path.rpartition(b"/")
        if directory is not None:
            return Node(path, Entry(name, 0, SubDirectory(directory_key(path)), b"", 0, 0), directory)
        if not path:
            raise FormatError("the flist is damaged: it has no root directory")
        for entry in self.entries(parent):
            if entry.name == name and name_fault(name) is None:
                return Node(path, entry)
        raise FormatError(f"there is no {path.decode(errors='backslashreplace')!r} in this flist")

    def follow(self, path: bytes) -> Node:
        """Look a path up as a program in the tree would: links are followed, and none leads out of it.

        Raises:
            FormatError: there is nothing of that name, or links lead in circles.
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
            if not isinstance(here.entry.attributes, Link):
                way.append(name)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise FormatError(f"there are too many links on the way to {printable(path)}")
            target = here.entry.attributes.target
            way = [] if target.startswith(b"/") else way
            waiting += target.split(b"/")[::-1]
        return self.find(b"/".join(way))

    def entries(self, path: bytes) -> list[Entry]:
        """Return the entries of a directory, by name; none if there is no such directory.

        Raises:
            FormatError: its record is damaged; names the path.
        """
        try:
            directory = self.directory(path)
            return [] if directory is None else sorted(_placed(path, directory).entries, key=_name)
        except FormatError as error:
            raise _damaged(path, error) from error

    def children(
        self,
        path: bytes,
        directory: Directory | None = None,
        *,
        leave_out: Callable[[Node, str], None] | None = None,
    ) -> Iterator[Node]:
        """Walk the entries of a directory by name, sub-directories with what their records say of them.

        `directory` is its record, where that has been read already. `leave_out` is told of entries which no
        file system can have, and why.

        Raises:
            FormatError: there is such an entry, and no `leave_out`; or a record is damaged.
        """
        before: bytes | None = None
        for entry in self.entries(path) if directory is None else sorted(directory.entries, key=_name):
            child = join(path, entry.name)
            if (fault := place_fault(child, entry.name)) is not None:
                if leave_out is None:
                    raise _damaged(path, FormatError(f"of its entry '{printable(entry.name)}': {fault}"))
                leave_out(Node(child, entry), fault)
                continue
            # A name that is there a thousand times must not be walked into as often, on each level.
            is_new_folder = isinstance(entry.attributes, SubDirectory) and entry.name != before
            before = entry.name
            yield Node(child, entry, self.head(child) if is_new_folder else None)

    def walk(self, start: Node, *, depth: int | None = None) -> Iterator[Node]:
        """Walk all that is below a directory, parents first, by name; at most `depth` levels down.

        Memory holds the entries of the directories on the way down, and nothing else.
        """
        if start.directory is None or depth == 0:
            return
        levels = [self.children(start.path)]
        while levels:
            node = next(levels[-1], None)
            if node is None:
                levels.pop()
                continue
            yield node
            if node.directory is not None and len(levels) != depth:
                levels.append(self.children(node.path))

    def aci(self, node: Node) -> Aci | None:
        """Return what is known of a node's owner and mode; None if the flist lacks it.

        Raises:
            FormatError: that record is damaged; names the path.
        """
        try:
            return self.aci_of(node.aclkey)
        except FormatError as error:
            raise _damaged(node.path, error) from error

    def aci_of(self, key: bytes) -> Aci | None:
        """Return the ACI of a key; None if the flist lacks it."""
        if key not in self._acis:
            raw = self._catalog.get(key)
            self._acis[key] = None if raw is None else decode_aci(raw)
        return self._acis[key]

    def mode(self, node: Node) -> int:
        """Return the mode; its type comes from the entry, as that of an ACI may be another entry's."""
        aci = self.aci(node)
        permissions = stat.S_IMODE(aci.mode) if aci else _NO_ACI_MODE
        return _TYPE_BITS.get(node.kind, 0) | permissions
