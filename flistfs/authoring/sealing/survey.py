"""A survey of a session's tree before it is sealed: what it contains, what it needs, what gets lost."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import NamedTuple

from flistfs.authoring.state.records import ROOT_INO, Dirent, Inode
from flistfs.authoring.state.view import View
from flistfs.authoring.summaries import Unrepresentable
from flistfs.errors import JournalError, OutputError
from flistfs.format.base import Format, Limits
from flistfs.sources.excludes import Filter, nothing_excluded
from flistfs.tree.chunks import CHUNK_SIZE, chunk_length
from flistfs.tree.names import MAX_NAME, MAX_PATH, join

_NANO = 1_000_000_000


class Owner(NamedTuple):
    """The owner of an entry, and its full mode: the fields of an ACI."""

    mode: int
    uid: int
    gid: int


@dataclass(slots=True)
class Survey:
    """The contents of a tree. Directories are (inode number, path), in no particular order."""

    directories: list[tuple[int, bytes]] = field(default_factory=list)
    owners: set[Owner] = field(default_factory=set)
    hole_lengths: set[int] = field(default_factory=set)
    files: int = 0
    links: int = 0
    specials: int = 0
    size: int = 0
    unrepresentable: Unrepresentable = field(default_factory=Unrepresentable)


def entries_of(view: View, ino: int, path: bytes, excluded: Filter) -> Iterator[Dirent]:
    """Yield the entries of a directory, sorted by name, without those excluded."""
    entries = view.children_by_name(ino)
    if excluded is nothing_excluded:
        return entries
    return (entry for entry in entries if not excluded(join(path, entry.name), stat.S_ISDIR(entry.kind)))


def walk(view: View, excluded: Filter = nothing_excluded) -> Iterator[tuple[bytes, int, list[Dirent]]]:
    """Yield the directories of a tree: path (no slash at either end), inode number, entries by name."""
    waiting = [(b"", ROOT_INO)]
    while waiting:
        path, ino = waiting.pop()
        entries = list(entries_of(view, ino, path, excluded))
        yield path, ino, entries
        waiting += [(join(path, entry.name), entry.ino) for entry in entries if stat.S_ISDIR(entry.kind)]


def known_inode(view: View, ino: int) -> Inode:
    """Return an inode that has a name.

    Raises:
        JournalError: the journal has the name but not the inode.
    """
    return checked_inode(ino, view.inode(ino))


def checked_inode(ino: int, inode: Inode | None) -> Inode:
    """Return the inode that was found for a number that has a name.

    Raises:
        JournalError: none was found.
    """
    if inode is None:
        raise JournalError(f"the session's journal is damaged: inode {ino} has a name but does not exist")
    return inode


def take_survey(
    view: View, owner: tuple[int, int] | None, format_: Format, excluded: Filter = nothing_excluded
) -> Survey:
    """Survey the whole tree without what is excluded. `owner` (uid, gid) replaces all owners.

    Raises:
        JournalError: the tree has a name that stands for nothing.
        OutputError: a directory is nested too deeply.
    """
    survey = Survey()
    survey.unrepresentable.xattrs = int(view.setting(b"xattrs") or 0) + view.count_xattrs()
    if excluded is nothing_excluded:
        _survey_all(survey, view, owner, format_.limits)
    else:
        _survey_walk(survey, view, owner, excluded, format_.limits)
    held = {each.name: 0 for each in fields(Unrepresentable) if each.name not in format_.unrepresentable}
    survey.unrepresentable = replace(survey.unrepresentable, **held)
    return survey


def _survey_walk(
    survey: Survey, view: View, owner: tuple[int, int] | None, excluded: Filter, limits: Limits
) -> None:
    """Survey the tree from its root."""
    for path, ino, entries in walk(view, excluded):
        _note_directory(survey, ino, path)
        _count(survey, known_inode(view, ino), owner, limits)
        for entry in entries:
            if not stat.S_ISDIR(entry.kind):
                _count(survey, known_inode(view, entry.ino), owner, limits)


def _survey_all(survey: Survey, view: View, owner: tuple[int, int] | None, limits: Limits) -> None:
    """Survey all named inodes in the order of the journal, which takes half the time of a walk."""
    for inode in view.inodes():
        names = 1 if stat.S_ISDIR(inode.mode) else inode.nlink
        if inode.nlink:
            _count(survey, inode, owner, limits, names)
    directories: dict[int, list[tuple[bytes, int]]] = {}
    for parent, name, ino in view.directory_names():
        directories.setdefault(parent, []).append((name, ino))
    waiting = [(b"", ROOT_INO)]
    while waiting:
        path, ino = waiting.pop()
        _note_directory(survey, ino, path)
        waiting += [(join(path, name), child) for name, child in directories.pop(ino, ())]


def _note_directory(survey: Survey, ino: int, path: bytes) -> None:
    _check_depth(path)
    survey.directories.append((ino, path))


def _check_depth(path: bytes) -> None:
    """Refuse a directory nested so deeply that its entries could have too long a path.

    Raises:
        OutputError: it is; the message says what to do.
    """
    if len(path) + 1 + MAX_NAME > MAX_PATH:
        start = path[:MAX_NAME].decode(errors="replace")
        raise OutputError(
            f"a directory below {start}… has a path of {len(path):,} bytes, too long for an flist; leave it "
            f"out, or move it up"
        )


def clamp_time(nanoseconds: int, latest: int) -> int:
    """Return a time as whole seconds since 1970, between 0 and `latest`."""
    return min(max(nanoseconds // _NANO, 0), latest)


def owner_of(inode: Inode, owner: tuple[int, int] | None) -> Owner:
    """Return the owner of an entry in the flist."""
    uid, gid = owner or (inode.uid, inode.gid)
    return Owner(inode.mode, uid, gid)


def _count(
    survey: Survey, inode: Inode, owner: tuple[int, int] | None, limits: Limits, names: int = 1
) -> None:
    """Count an inode as in the flist, once for each of its names."""
    owned_by = owner_of(inode, owner)
    survey.owners.add(owned_by)
    unrepresentable = survey.unrepresentable
    unrepresentable.owners += names * ((owned_by.uid, owned_by.gid) != (0, 0))
    unrepresentable.set_id += names * bool(inode.mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX))
    unrepresentable.times += names * (not (0 <= inode.mtime_ns // _NANO <= limits.latest))
    if stat.S_ISDIR(inode.mode):
        return
    unrepresentable.hard_links += names * (inode.nlink > 1)
    if stat.S_ISREG(inode.mode):
        survey.files += names
        survey.size += names * inode.size
        survey.hole_lengths |= _hole_lengths(inode)
    elif stat.S_ISLNK(inode.mode):
        survey.links += names
    else:
        survey.specials += names
        unrepresentable.special_files += names
        unrepresentable.large_devices += names * (os.minor(inode.rdev) > limits.minor)


def _hole_lengths(inode: Inode) -> set[int]:
    """Return the possible lengths of a file's holes; empty for a file without any."""
    count = -(-inode.size // CHUNK_SIZE)
    if inode.chunks >= count:
        return set()
    tail = chunk_length(inode.size, count - 1)
    return {tail} if count == 1 else {CHUNK_SIZE, tail}
