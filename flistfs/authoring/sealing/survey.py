"""One walk over a session's tree before it is sealed: what there is, what it needs, what gets lost."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from flistfs.authoring.state.journal import ROOT_INO, Dirent, Inode, View
from flistfs.authoring.summaries import Losses
from flistfs.errors import JournalError
from flistfs.format.zeroos.keys import directory_key
from flistfs.format.zeroos.limits import check_depth
from flistfs.sources.excludes import Filter, nothing_excluded
from flistfs.tree.chunks import CHUNK_SIZE, chunk_length

# Times in a record are unsigned 32-bit seconds.
MAX_TIME = 2**32 - 1

# Readers of generation 1 keep eight bits of a minor number.
_MAX_MINOR = 255

_NANO = 1_000_000_000


class Owner(NamedTuple):
    """Who owns an entry, and its full mode: what an ACI is made of."""

    mode: int
    uid: int
    gid: int


@dataclass(slots=True)
class Survey:
    """What a tree holds. Directories are (key, inode number, path), in the order of their keys."""

    directories: list[tuple[bytes, int, bytes]] = field(default_factory=list)
    owners: set[Owner] = field(default_factory=set)
    hole_lengths: set[int] = field(default_factory=set)
    files: int = 0
    links: int = 0
    specials: int = 0
    size: int = 0
    losses: Losses = field(default_factory=Losses)


def entries_of(view: View, ino: int, path: bytes, excluded: Filter) -> Iterator[Dirent]:
    """Walk the entries of a directory by name, save those that are left out."""
    entries = view.children_by_name(ino)
    if excluded is nothing_excluded:
        return entries
    return (entry for entry in entries if not excluded(join(path, entry.name), stat.S_ISDIR(entry.kind)))


def walk(view: View, excluded: Filter = nothing_excluded) -> Iterator[tuple[bytes, int, list[Dirent]]]:
    """Walk the directories of a tree: path (no slash at either end), inode number, entries by name."""
    waiting = [(b"", ROOT_INO)]
    while waiting:
        path, ino = waiting.pop()
        entries = list(entries_of(view, ino, path, excluded))
        yield path, ino, entries
        waiting += [(join(path, entry.name), entry.ino) for entry in entries if stat.S_ISDIR(entry.kind)]


def join(path: bytes, name: bytes) -> bytes:
    """Put a name behind a path in the tree."""
    return path + b"/" + name if path else name


def known_inode(view: View, ino: int) -> Inode:
    """Return an inode that some name stands for.

    Raises:
        JournalError: the journal has the name but not the inode.
    """
    return checked_inode(ino, view.inode(ino))


def checked_inode(ino: int, inode: Inode | None) -> Inode:
    """Return what was found of an inode that some name stands for.

    Raises:
        JournalError: nothing was.
    """
    if inode is None:
        raise JournalError(f"the session's journal is damaged: inode {ino} has a name but is not there")
    return inode


def take_survey(view: View, owner: tuple[int, int] | None, excluded: Filter = nothing_excluded) -> Survey:
    """Look through the whole tree, save what is left out. `owner` (uid, gid) stands for everybody.

    Raises:
        JournalError: the tree has a name that stands for nothing.
        OutputError: a directory lies too deep.
    """
    survey = Survey()
    survey.losses.xattrs = int(view.setting(b"xattrs") or 0) + view.count_xattrs()
    if excluded is nothing_excluded:
        _survey_all(survey, view, owner)
    else:
        _survey_walk(survey, view, owner, excluded)
    survey.directories.sort()
    return survey


def _survey_walk(survey: Survey, view: View, owner: tuple[int, int] | None, excluded: Filter) -> None:
    """Look through the tree from its top."""
    for path, ino, entries in walk(view, excluded):
        _note_directory(survey, ino, path)
        _count(survey, known_inode(view, ino), owner)
        for entry in entries:
            if not stat.S_ISDIR(entry.kind):
                _count(survey, known_inode(view, entry.ino), owner)


def _survey_all(survey: Survey, view: View, owner: tuple[int, int] | None) -> None:
    """Look through all that has a name, in the order of the journal: in half the time that a walk takes."""
    for inode in view.inodes():
        names = 1 if stat.S_ISDIR(inode.mode) else inode.nlink
        if inode.nlink:
            _count(survey, inode, owner, names)
    folders: dict[int, list[tuple[bytes, int]]] = {}
    for parent, name, ino in view.folder_names():
        folders.setdefault(parent, []).append((name, ino))
    waiting = [(b"", ROOT_INO)]
    while waiting:
        path, ino = waiting.pop()
        _note_directory(survey, ino, path)
        waiting += [(join(path, name), child) for name, child in folders.pop(ino, ())]


def _note_directory(survey: Survey, ino: int, path: bytes) -> None:
    check_depth(path)
    survey.directories.append((directory_key(path), ino, path))


def clamp_time(nanoseconds: int, epoch: int | None) -> int:
    """Return whole seconds as a record holds them, not later than `epoch` (SOURCE_DATE_EPOCH)."""
    seconds = min(max(nanoseconds // _NANO, 0), MAX_TIME)
    return seconds if epoch is None else min(seconds, epoch)


def owner_of(inode: Inode, owner: tuple[int, int] | None) -> Owner:
    """Return who owns an entry in the flist."""
    uid, gid = owner or (inode.uid, inode.gid)
    return Owner(inode.mode, uid, gid)


def _count(survey: Survey, inode: Inode, owner: tuple[int, int] | None, names: int = 1) -> None:
    """Count what an inode is in the flist, under each of its names."""
    owned_by = owner_of(inode, owner)
    survey.owners.add(owned_by)
    losses = survey.losses
    losses.owners += names * ((owned_by.uid, owned_by.gid) != (0, 0))
    losses.set_id += names * bool(inode.mode & (stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX))
    losses.times += names * (not (0 <= inode.mtime_ns // _NANO <= MAX_TIME))
    if stat.S_ISDIR(inode.mode):
        return
    losses.hard_links += names * (inode.nlink > 1)
    if stat.S_ISREG(inode.mode):
        survey.files += names
        survey.size += names * inode.size
        survey.hole_lengths |= _hole_lengths(inode)
    elif stat.S_ISLNK(inode.mode):
        survey.links += names
    else:
        survey.specials += names
        losses.large_devices += names * (os.minor(inode.rdev) > _MAX_MINOR)


def _hole_lengths(inode: Inode) -> set[int]:
    """Of which lengths a file may have holes; empty for a file without any."""
    count = -(-inode.size // CHUNK_SIZE)
    if inode.chunks >= count:
        return set()
    tail = chunk_length(inode.size, count - 1)
    return {tail} if count == 1 else {CHUNK_SIZE, tail}
