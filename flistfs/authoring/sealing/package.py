"""A session's tree becomes a catalog, and the catalog a package.

Plain blocking functions over a view of the journal; `session` says when they run.
"""

from __future__ import annotations

import heapq
import logging
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path

from flistfs.authoring.filesystem.vfs import DIRECTORY_SIZE
from flistfs.authoring.request import SealOptions
from flistfs.authoring.sealing.accounts import Accounts
from flistfs.authoring.sealing.blocks import store_holes
from flistfs.authoring.sealing.survey import (
    Owner,
    Survey,
    checked_inode,
    clamp_time,
    entries_of,
    join,
    known_inode,
    owner_of,
    take_survey,
)
from flistfs.authoring.state.journal import ROOT_INO, Inode, Stored, View
from flistfs.errors import (
    FormatError,
    JournalError,
    OutputError,
)
from flistfs.format.rocksdb.catalog import write_catalog
from flistfs.format.router import Router, format_router
from flistfs.format.zeroos.keys import aci_key, directory_key, distinct_aci_key
from flistfs.format.zeroos.limits import check_record, entries_size
from flistfs.format.zeroos.records import (
    Aci,
    Attributes,
    Directory,
    Entry,
    File,
    Link,
    Special,
    SpecialKind,
    SubDirectory,
    encode_aci,
    encode_directory,
)
from flistfs.sources.excludes import Filter, excluding
from flistfs.stores import Store
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef, chunk_length
from flistfs.util.output_file import OutputFile
from flistfs.util.progress import Progress, Report

log = logging.getLogger(__name__)


# Entries of a directory that are looked up together: some 0.5 MB.
_ENTRIES_AT_ONCE = 1024


_SPECIAL_KINDS = {
    stat.S_IFSOCK: SpecialKind.SOCKET,
    stat.S_IFBLK: SpecialKind.BLOCK,
    stat.S_IFCHR: SpecialKind.CHAR,
    stat.S_IFIFO: SpecialKind.FIFO,
}


class ChangedError(Exception):
    """The tree was changed while it was being sealed; it has to be done again."""


def find_inode(view: View, path: bytes) -> Inode | None:
    """Find a path in a tree, without following links."""
    ino = ROOT_INO
    for name in path.split(b"/"):
        entry = view.child(ino, name)
        if entry is None:
            return None
        ino = entry.ino
    return view.inode(ino)


# Blocks


# The catalog


class _Acis:
    """The ACIs of a tree, and which entry has which.

    An ACI's usual key says neither ids nor all bits of the mode (a directory of 0777 shares it with one of
    01777), so the later one of two that would share a key gets one of its own. The order of the owners
    decides which, so that equal trees give equal ACIs. A file type is no reason: readers take it from
    the entry.
    """

    def __init__(self, owners: Iterable[Owner], accounts: Accounts) -> None:
        self._keys: dict[Owner, bytes] = {}
        self._acis: dict[bytes, Aci] = {}
        for owner in sorted(owners, key=lambda owner: (owner.uid, owner.gid, owner.mode)):
            (uname, uid), (gname, gid) = accounts.user(owner.uid), accounts.group(owner.gid)
            aci = Aci(uname=uname, gname=gname, mode=owner.mode, uid=uid, gid=gid)
            key = aci_key(aci)
            if not _are_alike(self._acis.setdefault(key, aci), aci):
                key = distinct_aci_key(aci)
                self._acis[key] = aci
            self._keys[owner] = key

    def key(self, owner: Owner) -> bytes:
        return self._keys[owner]

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(self._acis):
            yield key, encode_aci(self._acis[key])


def _are_alike(one: Aci, other: Aci) -> bool:
    return (one.uid, one.gid, stat.S_IMODE(one.mode)) == (other.uid, other.gid, stat.S_IMODE(other.mode))


class _Tree:
    """Makes the records of a tree."""

    def __init__(
        self,
        view: View,
        survey: Survey,
        acis: _Acis,
        holes: Mapping[int, BlockRef],
        options: SealOptions,
        excluded: Filter,
    ) -> None:
        self._view = view
        self._excluded = excluded
        self._survey = survey
        self._acis = acis
        self._holes = holes
        self._options = options

    def records(self, progress: Progress) -> Iterator[tuple[bytes, bytes]]:
        """Make every record, in the order of their keys."""
        return heapq.merge(self._acis.records(), self._directories(progress))

    def _directories(self, progress: Progress) -> Iterator[tuple[bytes, bytes]]:
        total = len(self._survey.directories)
        for done, (key, ino, path) in enumerate(self._survey.directories):
            progress(Report("catalog", done, total))
            raw = encode_directory(self._directory(ino, path))
            check_record(_shown(path), len(raw))
            yield key, raw

    def _directory(self, ino: int, path: bytes) -> Directory:
        inode = known_inode(self._view, ino)
        parent, _, name = path.rpartition(b"/")
        return Directory(
            name=name,
            location=path,
            entries=self._bounded_entries(ino, path),
            parent=directory_key(parent) if path else b"",
            size=DIRECTORY_SIZE,
            aclkey=self._aclkey(inode),
            modification_time=clamp_time(inode.mtime_ns, self._options.epoch),
            creation_time=clamp_time(inode.ctime_ns, self._options.epoch),
        )

    def _bounded_entries(self, ino: int, path: bytes) -> list[Entry]:
        """Make the entries of a directory; one with too many is refused before they fill the memory."""
        entries: list[Entry] = []
        size = 0
        for part in self._entries(ino, path):
            size += entries_size(part)
            check_record(_shown(path), size)
            entries += part
        return entries

    def _entries(self, ino: int, path: bytes) -> Iterator[list[Entry]]:
        names = entries_of(self._view, ino, path, self._excluded)
        while part := list(islice(names, _ENTRIES_AT_ONCE)):
            inodes = self._view.inodes_among(entry.ino for entry in part if not stat.S_ISDIR(entry.kind))
            chunks = self._view.first_chunks(
                inode.ino for inode in inodes.values() if inode.chunks and inode.size <= CHUNK_SIZE
            )
            yield [
                self._folder_entry(path, entry.name)
                if stat.S_ISDIR(entry.kind)
                else self._entry(
                    entry.name, checked_inode(entry.ino, inodes.get(entry.ino)), chunks.get(entry.ino)
                )
                for entry in part
            ]

    def _aclkey(self, inode: Inode) -> bytes:
        return self._acis.key(owner_of(inode, self._options.owner))

    def _folder_entry(self, path: bytes, name: bytes) -> Entry:
        # The rest of a sub-directory lies in its own record.
        return Entry(name, 0, SubDirectory(directory_key(join(path, name))), b"", 0, 0)

    def _entry(self, name: bytes, inode: Inode, first: Stored | None) -> Entry:
        """Make the entry of what is no directory; `first` is the chunk of a file that has one."""
        return Entry(
            name=name,
            size=len(inode.target) if stat.S_ISLNK(inode.mode) else inode.size,
            attributes=self._attributes(inode, first),
            aclkey=self._aclkey(inode),
            modification_time=clamp_time(inode.mtime_ns, self._options.epoch),
            creation_time=clamp_time(inode.ctime_ns, self._options.epoch),
        )

    def _attributes(self, inode: Inode, first: Stored | None) -> Attributes:
        if stat.S_ISREG(inode.mode):
            return File(self._blocks(inode, first))
        if stat.S_ISLNK(inode.mode):
            return Link(inode.target)
        kind = _SPECIAL_KINDS[stat.S_IFMT(inode.mode)]
        if kind in {SpecialKind.BLOCK, SpecialKind.CHAR}:
            return Special(kind, b"%d,%d" % (os.major(inode.rdev), os.minor(inode.rdev)))
        return Special(kind)

    def _blocks(self, inode: Inode, first: Stored | None) -> tuple[BlockRef, ...]:
        count = -(-inode.size // CHUNK_SIZE)
        if count == 1:  # as most files have: a scan for each would cost 10 µs
            return (self._block(inode, 0, first),)
        stored = dict(self._view.stored_chunks(inode.ino)) if inode.chunks else {}
        return tuple(self._block(inode, index, stored.get(index)) for index in range(count))

    def _block(self, inode: Inode, index: int, stored: Stored | None) -> BlockRef:
        length = chunk_length(inode.size, index)
        if stored is None:
            return self._holes[length]
        if stored.length != length:
            raise JournalError(
                f"the session's journal is damaged: chunk {index} of inode {inode.ino} has "
                f"{stored.length} bytes instead of {length}"
            )
        return BlockRef(stored.hash, stored.key)


def _shown(path: bytes) -> str:
    return os.fsdecode(path) or "/"


def build_package(
    view: View,
    store: Store,
    accounts: Accounts,
    options: SealOptions,
    router: Router | None,
    output: OutputFile,
    scratch: Path,
    progress: Progress,
) -> Survey:
    """Write the package of a tree, and the router in it, to `output`, flushed to the disk.

    The catalog is made in the folder `scratch`, which is made anew and removed again.

    Raises:
        ChangedError: a file has chunks that are not stored yet.
        StoreError: a block of zeros could not be stored.
        OutputError: a disk is full, or a folder cannot be written; or a directory has too much in it.
    """
    if any(known_inode(view, spooled.ino).nlink for spooled in view.spooled()):
        raise ChangedError
    if options.owner is not None:  # by numbers that the user gave
        accounts = replace(accounts, named_users={}, named_groups={})
    excluded = excluding(options.exclude)
    survey = take_survey(view, options.owner, excluded)
    holes = store_holes(store, survey.hole_lengths)
    tree = _Tree(view, survey, _Acis(survey.owners, accounts), holes, options, excluded)
    shutil.rmtree(scratch, ignore_errors=True)  # a daemon that died may have left one
    try:
        scratch.mkdir()
        write_catalog(scratch, tree.records(progress))
        if router is not None:
            (scratch / "router.yaml").write_bytes(format_router(router))
        progress(Report("package", 0, 1))
        output.write(scratch)
    except OSError as error:
        raise OutputError(
            f"the flist cannot be written, in {scratch.parent} or its place: {error.strerror or error}"
        ) from error
    except (ValueError, FormatError) as error:  # of what we write ourselves, only the disk can be wrong
        raise OutputError(f"the flist cannot be written: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    progress(Report("package", 1, 1))
    return survey
