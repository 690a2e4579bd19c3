"""Write a session's tree as a catalog, and the catalog as a package.

Plain blocking functions over a view of the journal; `session` decides when they run.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

from flistfs.authoring.filesystem.values import DIRECTORY_SIZE
from flistfs.authoring.request import SealOptions
from flistfs.authoring.sealing.accounts import Accounts
from flistfs.authoring.sealing.blocks import store_holes
from flistfs.authoring.sealing.survey import (
    Owner,
    Survey,
    checked_inode,
    clamp_time,
    entries_of,
    known_inode,
    owner_of,
    take_survey,
)
from flistfs.authoring.state.records import Inode
from flistfs.authoring.state.view import View
from flistfs.errors import (
    FormatError,
    JournalError,
    OutputError,
)
from flistfs.format.base import Format, TreeWriter
from flistfs.format.router import Router
from flistfs.sources.excludes import Filter, excluding
from flistfs.stores import Store
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef, Stored, chunk_length
from flistfs.tree.names import join
from flistfs.tree.node import DEVICES, KIND_OF, Access, Kind, Node
from flistfs.util.output_file import OutputFile
from flistfs.util.progress import Progress, Report

log = logging.getLogger(__name__)


# Entries of a directory looked up at a time: some 0.5 MB.
_ENTRIES_AT_ONCE = 1024


class ChangedError(Exception):
    """The tree was changed while it was being sealed; the seal must be repeated."""


class _Tree:
    """The nodes of a tree, as they are written to its flist."""

    def __init__(
        self,
        view: View,
        accesses: Mapping[Owner, Access],
        holes: Mapping[int, BlockRef],
        options: SealOptions,
        excluded: Filter,
        latest: int,
        *,
        complete: bool,
    ) -> None:
        self._view = view
        self._excluded = excluded
        self._accesses = accesses
        self._holes = holes
        self._options = options
        self._latest = latest
        self._complete = complete
        self.names_of_bytes = 0
        """How many names were no texts so far."""

    def directory(self, ino: int, path: bytes) -> Node:
        """Return the node of a directory."""
        return self._node(path, Kind.DIRECTORY, known_inode(self._view, ino), DIRECTORY_SIZE)

    def children(self, ino: int, path: bytes) -> Iterator[list[Node]]:
        """Yield the entries of a directory, sorted by name, in batches."""
        names = entries_of(self._view, ino, path, self._excluded)
        while part := list(islice(names, _ENTRIES_AT_ONCE)):
            inodes = self._view.inodes_among(
                entry.ino for entry in part if self._complete or not stat.S_ISDIR(entry.kind)
            )
            chunks = self._view.first_chunks(
                inode.ino for inode in inodes.values() if inode.chunks and inode.size <= CHUNK_SIZE
            )
            self.names_of_bytes += sum(not _is_text(entry.name) for entry in part)
            yield [
                Node(join(path, entry.name), Kind.DIRECTORY, None, 0, 0, 0, whole=False)
                if stat.S_ISDIR(entry.kind) and not self._complete
                else self._entry(
                    join(path, entry.name),
                    checked_inode(entry.ino, inodes.get(entry.ino)),
                    chunks.get(entry.ino),
                )
                for entry in part
            ]

    def _entry(self, path: bytes, inode: Inode, first: Stored | None) -> Node:
        """Make the node of an entry; `first` is the chunk of a file that has one."""
        kind = KIND_OF[stat.S_IFMT(inode.mode)]
        if kind is Kind.DIRECTORY:
            return self._node(path, kind, inode, DIRECTORY_SIZE)
        if kind is Kind.FILE:
            return self._node(path, kind, inode, inode.size, blocks=self._blocks(inode, first))
        if kind is Kind.LINK:
            return self._node(path, kind, inode, len(inode.target), target=inode.target)
        device = (os.major(inode.rdev), os.minor(inode.rdev)) if kind in DEVICES else None
        return self._node(path, kind, inode, inode.size, device=device)

    def _node(
        self,
        path: bytes,
        kind: Kind,
        inode: Inode,
        size: int,
        target: bytes | None = None,
        device: tuple[int, int] | None = None,
        blocks: tuple[BlockRef, ...] = (),
    ) -> Node:
        access = self._accesses[owner_of(inode, self._options.owner)]
        mtime = clamp_time(inode.mtime_ns, self._latest)
        ctime = clamp_time(inode.ctime_ns, self._latest)
        return Node(path, kind, access, size, mtime, ctime, target, device, blocks)

    def _blocks(self, inode: Inode, first: Stored | None) -> tuple[BlockRef, ...]:
        count = -(-inode.size // CHUNK_SIZE)
        if count == 1:  # true for most files: a scan for each would cost 10 µs
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


def _is_text(name: bytes) -> bool:
    if name.isascii():
        return True
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def build_package(
    view: View,
    store: Store,
    format_: Format,
    accounts: Accounts,
    options: SealOptions,
    router: Router | None,
    metadata: Mapping[str, bytes],
    output: OutputFile,
    scratch: Path,
    progress: Progress,
) -> Survey:
    """Write the flist of a tree to `output`, flushed to disk, with the router to its blocks and metadata.

    Temporary files are written to the directory `scratch`, which is created anew and removed again.

    Raises:
        ChangedError: a file has chunks that are not stored yet.
        StoreError: a block of zeros could not be stored.
        OutputError: a disk is full, or a directory cannot be written; or one has too many entries.
    """
    if any(known_inode(view, spooled.ino).nlink for spooled in view.spooled()):
        raise ChangedError
    if options.owner is not None:  # by the numbers that the user gave
        accounts = replace(accounts, named_users={}, named_groups={})
    excluded = excluding(options.exclude)
    survey = take_survey(view, options.owner, format_, excluded)
    accesses = {owner: accounts.access(owner) for owner in survey.owners}
    latest = format_.limits.latest if options.epoch is None else min(format_.limits.latest, options.epoch)
    holes = store_holes(store, survey.hole_lengths)
    tree = _Tree(view, accesses, holes, options, excluded, latest, complete=format_.complete_entries)
    shutil.rmtree(scratch, ignore_errors=True)  # a daemon that died may have left one
    try:
        scratch.mkdir()
        with format_.writer(scratch, accesses.values()) as writer:
            _write_tree(tree, survey, writer, progress)
            if "names" in format_.unrepresentable:
                survey.unrepresentable.names = tree.names_of_bytes
            progress(Report("package", 0, 1))
            output.write(partial(writer.finish, router, metadata))
    except OSError as error:
        raise OutputError(
            f"the flist cannot be written, in {scratch.parent} or its place: {error.strerror or error}"
        ) from error
    except (ValueError, FormatError) as error:  # we write valid data, so the disk must be at fault
        raise OutputError(f"the flist cannot be written: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    progress(Report("package", 1, 1))
    return survey


def _write_tree(tree: _Tree, survey: Survey, writer: TreeWriter, progress: Progress) -> None:
    directories = sorted((writer.position(path), ino, path) for ino, path in survey.directories)
    for done, (_, ino, path) in enumerate(directories):
        progress(Report("catalog", done, len(directories)))
        writer.add(tree.directory(ino, path), tree.children(ino, path))
