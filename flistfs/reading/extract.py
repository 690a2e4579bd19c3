"""Extract an flist to a tree of files on this machine.

One thread creates names and directories, in the order of a walk; a few others fetch chunks and write them
into the open files. A package is not trusted, so nothing is accessed by a path: names are validated, and
everything is created relative to the descriptor of its directory, which is entered step by step without
following links. Existing files are never written to.

A directory gets its owner, mode and time when everything below it has been created.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from flistfs.errors import FormatError, OutputError
from flistfs.format.base import Codec, Fault
from flistfs.format.faults import node_fault
from flistfs.reading.flist import Flist
from flistfs.reading.search import Selection
from flistfs.reading.writers import Writers, explained
from flistfs.stores import Store
from flistfs.tree.names import join, printable
from flistfs.tree.node import DEVICES, TYPE_BITS, Kind, Node
from flistfs.tree.owners import Owners, id_fault
from flistfs.util.progress import Progress, Report, quiet

_NANO: Final = 1_000_000_000


@dataclass(slots=True)
class Extracted:
    """What was extracted, and what could not be reproduced as in the flist.

    Attributes:
        foreign: Entries that belong to the extracting user, as only root may give them to their owners.
        set_id: How many of those had set-id bits; these are dropped, as they would grant that user's rights.
        devices: Paths of devices that were not created, as only root may create them.
        faults: What the program that wrote the flist lost or mixed up, and what readers make of it; up to
            10,000 of `fault_count`.
    """

    files: int = 0
    directories: int = 0
    links: int = 0
    specials: int = 0
    size: int = 0
    foreign: int = 0
    set_id: int = 0
    devices: list[bytes] = field(default_factory=list)
    faults: Sequence[Fault] = ()
    fault_count: int = 0


def extract(
    flist: Flist,
    store: Store,
    target: Path,
    *,
    only: Selection | None = None,
    devices: bool = True,
    progress: Progress = quiet,
) -> Extracted:
    """Create the tree of an flist in the directory `target`, which is created, or must be empty.

    The whole flist is checked before anything is created. What was created before an error stays.

    Args:
        flist: The flist to extract.
        store: The store of its blocks.
        target: The directory.
        only: Which entries; directories on the way to them are made as well.
        devices: Whether devices are made.
        progress: Called with a `Report` of the bytes of content written.

    Raises:
        FormatError: it has an entry that cannot be created, or none that is selected.
        OutputError: `target` is not empty, or cannot be written.
        StoreError: the store cannot be reached, or lacks a block.
    """
    chosen = partial(_is_chosen, only, devices)
    total = _check(flist, chosen, progress)
    with _opened(target) as top, Writers(store, target, total, progress) as writers:
        extracted = _Tree(flist, target, top, writers).make(chosen)
    extracted.faults, extracted.fault_count = flist.faults_met, flist.accepted_faults
    return extracted


def _is_chosen(only: Selection | None, devices: bool, node: Node) -> bool:  # noqa: FBT001  bound by name once
    return (only is None or only.matches(node)) and (devices or node.kind not in DEVICES)


def _check(flist: Flist, chosen: Callable[[Node], bool], progress: Progress) -> int:
    """Reject entries that cannot be created; return the total bytes of content."""
    total = 0
    directories = 0
    is_empty = True
    before: dict[int, bytes] = {}  # by level: equal names are adjacent, except for what is below them
    root = flist.find(b"")
    for node in flist.walk(root):
        if node.kind is Kind.DIRECTORY:
            directories += 1
            progress(Report("structure", directories, max(directories, flist.estimated_directories)))
        fault = None
        level = node.path.count(b"/")
        if before.get(level) == node.path:
            fault = "its name occurs twice"
        before[level] = node.path
        if fault is None and chosen(node):
            fault = _fault(node, flist.codec)
            is_empty = False
            total += node.size if node.kind is Kind.FILE else 0
        if fault is not None:
            raise FormatError(f"{printable(node.path)} cannot be created: {fault} (flistfs verify lists all)")
    progress(Report("structure", 1, 1))
    if is_empty and not chosen(root):
        raise FormatError("nothing to extract: the patterns match no path of this flist")
    return total


def _fault(node: Node, codec: Codec) -> str | None:
    if (fault := node_fault(node, codec)) is not None:
        return fault
    return None if node.access is None else id_fault(node.access)


@contextmanager
def _opened(target: Path) -> Iterator[int]:
    """Open the directory to extract into, inaccessible to other users until it is complete."""
    try:
        target.mkdir(exist_ok=True)
        descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.listdir(descriptor):  # noqa: PTH208  of a descriptor
                raise OutputError(f"{target} is not empty; choose an empty directory, or a new one")
            os.fchmod(descriptor, 0o700)
            yield descriptor
        finally:
            os.close(descriptor)
    except FileExistsError:
        raise OutputError(f"{target} is not a directory") from None
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class _Attributes:
    """Owner, mode and times of an entry to be created. An id of -1 is left as it is."""

    uid: int
    gid: int
    mode: int
    times: tuple[int, int]


class _Tree:
    """Creates the entries of a tree, except their content."""

    def __init__(self, flist: Flist, target: Path, top: int, writers: Writers) -> None:
        self._flist = flist
        self._target = target
        self._writers = writers
        self._directories = _Directories(top)
        self._owners = Owners()
        self._found = Extracted()
        self._ancestors: list[Node] = []  # directories from the root down to the current one
        self._made = 0  # how many of them exist

    def make(self, chosen: Callable[[Node], bool]) -> Extracted:
        try:
            root = self._flist.find(b"")
            self._ancestors, self._made = [root], 1
            self._found.directories += 1
            for node in self._flist.walk(root):
                while len(self._ancestors) > node.path.count(b"/") + 1:
                    self._leave()
                if node.kind is Kind.DIRECTORY:
                    self._ancestors.append(node)
                if chosen(node):
                    self._make_ancestors()
                    self._make(node)
            while self._ancestors:
                self._leave()
        finally:
            self._directories.close()
        return self._found

    def _make_ancestors(self) -> None:
        while self._made < len(self._ancestors):
            node = self._ancestors[self._made]
            with explained(self._target, node.path):
                os.mkdir(node.name, 0o700, dir_fd=self._parent(node))
            self._found.directories += 1
            self._made += 1

    def _leave(self) -> None:
        """Set the attributes of the innermost directory: everything below it has been created."""
        node = self._ancestors.pop()
        if self._made > len(self._ancestors):
            self._made = len(self._ancestors)
            with explained(self._target, node.path):
                self._directories.leave(
                    node.path, partial(_set_attributes, attributes=self._attributes_of(node))
                )

    def _make(self, node: Node) -> None:
        with explained(self._target, node.path):
            match node.kind:
                case Kind.DIRECTORY:
                    pass
                case Kind.FILE:
                    self._make_file(node)
                case Kind.LINK:
                    self._make_link(node)
                case _:
                    self._make_special(node)

    def _make_file(self, node: Node) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(node.name, flags, 0o600, dir_fd=self._parent(node))
        try:
            os.ftruncate(descriptor, node.size)
            complete = partial(self._complete_file, node, self._attributes_of(node))
        except BaseException:
            os.close(descriptor)
            raise
        self._writers.write(descriptor, node, complete)
        self._found.files += 1
        self._found.size += node.size

    def _complete_file(self, node: Node, attributes: _Attributes, descriptor: int) -> None:
        with explained(self._target, node.path):
            _set_attributes(descriptor, attributes)

    def _make_link(self, node: Node) -> None:
        assert node.target is not None  # noqa: S101  for the type checker
        parent, name = self._parent(node), node.name
        attributes = self._attributes_of(node)
        os.symlink(node.target, name, dir_fd=parent)
        os.chown(name, attributes.uid, attributes.gid, dir_fd=parent, follow_symlinks=False)
        os.utime(name, ns=attributes.times, dir_fd=parent, follow_symlinks=False)
        self._found.links += 1

    def _make_special(self, node: Node) -> None:
        parent, name = self._parent(node), node.name
        numbers = node.device if node.kind in DEVICES else None
        try:
            os.mknod(name, TYPE_BITS[node.kind] | 0o600, os.makedev(*numbers or (0, 0)), dir_fd=parent)
        except PermissionError:
            if numbers is None:
                raise
            self._found.devices.append(node.path)
            return
        attributes = self._attributes_of(node)
        os.chown(name, attributes.uid, attributes.gid, dir_fd=parent, follow_symlinks=False)
        os.chmod(name, attributes.mode, dir_fd=parent)
        os.utime(name, ns=attributes.times, dir_fd=parent, follow_symlinks=False)
        self._found.specials += 1

    def _parent(self, node: Node) -> int:
        return self._directories.open(node.path.rpartition(b"/")[0])

    def _attributes_of(self, node: Node) -> _Attributes:
        """Return the attributes of an entry, and count those that cannot be set here."""
        uid, gid, is_foreign = self._owners.allowed(node.access)
        mode = stat.S_IMODE(node.mode)
        if is_foreign:
            self._found.foreign += 1
            if node.kind is Kind.FILE and mode & (stat.S_ISUID | stat.S_ISGID):
                self._found.set_id += 1
                mode &= ~(stat.S_ISUID | stat.S_ISGID)
        seconds = node.mtime
        return _Attributes(uid, gid, mode, (seconds * _NANO, seconds * _NANO))


def _set_attributes(descriptor: int, attributes: _Attributes) -> None:
    os.fchown(descriptor, attributes.uid, attributes.gid)
    os.fchmod(descriptor, attributes.mode)  # after the owner: changing that clears set-id bits
    os.utime(descriptor, ns=attributes.times)


class _Directories:
    """Holds one directory open at a time, and moves step by step: trees may be deep, open files are limited.

    No other user can have moved any, as the top is inaccessible until it is complete; it is checked all the
    same.
    """

    def __init__(self, top: int) -> None:
        self._path = b""
        self._descriptor = os.dup(top)
        self._above: list[tuple[int, int]] = []  # device and inode of the directories above, top first

    def open(self, path: bytes) -> int:
        """Return the descriptor of a directory, valid until the next call."""
        while self._path and path != self._path and not path.startswith(self._path + b"/"):
            self._move_up()
        below = path[len(self._path) :].lstrip(b"/")
        for name in below.split(b"/") if below else []:
            self._move_down(name)
        return self._descriptor

    def leave(self, path: bytes, complete: Callable[[int], None]) -> None:
        """Finish a directory: its mode, which may end the right to leave it, and its times."""
        inner = os.dup(self.open(path))
        try:
            if path:
                self._move_up()
            complete(inner)
        finally:
            os.close(inner)

    def close(self) -> None:
        os.close(self._descriptor)

    def _move_down(self, name: bytes) -> None:
        here = _identity(self._descriptor)
        self._enter(name)
        self._above.append(here)
        self._path = join(self._path, name)

    def _move_up(self) -> None:
        self._enter(b"..")
        self._path = self._path.rpartition(b"/")[0]
        if _identity(self._descriptor) != self._above.pop():
            raise OSError(errno.ESTALE, "its directory has been moved")

    def _enter(self, name: bytes) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        inner = os.open(name, flags, dir_fd=self._descriptor)
        os.close(self._descriptor)
        self._descriptor = inner


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
