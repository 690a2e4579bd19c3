"""A session's tree becomes a catalog, and the catalog a package.

Plain blocking functions over a view of the journal; `session` says when they run.
"""

from __future__ import annotations

import heapq
import logging
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

from flistfs.authoring.filesystem.content import chunk_length
from flistfs.authoring.filesystem.vfs import DIRECTORY_SIZE
from flistfs.authoring.request import SealOptions
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
    walk,
)
from flistfs.authoring.state.journal import ROOT_INO, Inode, Stored, View
from flistfs.errors import (
    BlockCorruptError,
    BlockMissingError,
    FlistfsError,
    FormatError,
    JournalError,
    OutputError,
)
from flistfs.format.codecs import Block, decode_block, encode_block
from flistfs.format.rocksdb.catalog import write_catalog
from flistfs.format.router import Router, format_router
from flistfs.format.zeroos.keys import aci_key, directory_key, distinct_aci_key
from flistfs.format.zeroos.limits import check_record, entries_size
from flistfs.format.zeroos.records import (
    CHUNK_SIZE,
    NO_ID,
    Aci,
    Attributes,
    BlockRef,
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
from flistfs.sources.excludes import Filter, excluding, nothing_excluded
from flistfs.stores import Store
from flistfs.stores.copying import BATCH, Copier
from flistfs.util.output_file import OutputFile
from flistfs.util.progress import Progress

log = logging.getLogger(__name__)

# Hashes that are asked for at a time while checking that the store has every block.
_CHECK_BATCH = 4096

# Entries of a directory that are looked up together: some 0.5 MB.
_ENTRIES_AT_ONCE = 1024

# The tree's own account files are read up to this many bytes.
MAX_ACCOUNTS_SIZE = 1 << 20

_SPECIAL_KINDS = {
    stat.S_IFSOCK: SpecialKind.SOCKET,
    stat.S_IFBLK: SpecialKind.BLOCK,
    stat.S_IFCHR: SpecialKind.CHAR,
    stat.S_IFIFO: SpecialKind.FIFO,
}


class ChangedError(Exception):
    """The tree was changed while it was being sealed; it has to be done again."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """The names of users and groups, by number.

    `named_users` and `named_groups` are those that a base knows by name alone: so are they sealed.
    """

    users: Mapping[int, bytes]
    groups: Mapping[int, bytes]
    named_users: Mapping[int, bytes] = field(default_factory=dict)
    named_groups: Mapping[int, bytes] = field(default_factory=dict)

    @classmethod
    def parse(cls, passwd: bytes, group: bytes) -> Accounts:
        """Read the tree's etc/passwd and etc/group; what is no account in them is passed over."""
        return cls(_names(passwd), _names(group))

    def user(self, uid: int) -> tuple[bytes, int]:
        """Return the name and number that a user has in the flist."""
        return _account(uid, self.users, self.named_users)

    def group(self, gid: int) -> tuple[bytes, int]:
        """Return the name and number that a group has in the flist."""
        return _account(gid, self.groups, self.named_groups)


def _account(number: int, names: Mapping[int, bytes], named: Mapping[int, bytes]) -> tuple[bytes, int]:
    if number in named:
        return named[number], NO_ID
    return names.get(number, b"%d" % number), number


def _names(text: bytes) -> dict[int, bytes]:
    names: dict[int, bytes] = {}
    for line in text.splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and fields[0] and fields[2].isdigit() and len(fields[2]) <= 10:
            names.setdefault(int(fields[2]), fields[0])
    return {0: b"root", **names}


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


def lost_blocks(view: View, store: Store, excluded: Filter, progress: Progress) -> dict[bytes, bytes]:
    """Ask the store for every block that the session relies on; return those it has not: key by hash.

    Raises:
        StoreError: the store can't be asked.
    """
    lost: dict[bytes, bytes] = {}
    for batch in needed_in_batches(view, excluded, _CHECK_BATCH, partial(progress, "check")):
        keys = {block_hash: key for key, block_hash, _ in batch}
        sizes = {block_hash: size for _, block_hash, size in batch if size is not None}
        missing = store.missing(list(keys), sizes)
        lost.update((block_hash, keys[block_hash]) for block_hash in missing)
    return lost


def needed_in_batches(
    view: View, excluded: Filter, at_once: int, progress: Callable[[int, int], None]
) -> Iterator[list[tuple[bytes, bytes, int | None]]]:
    """Walk what `needed_blocks` gives, `at_once` at a time; `progress` is told how far that is."""
    total = sum(1 for _ in needed_blocks(view, excluded))
    blocks = needed_blocks(view, excluded)
    done = 0
    while batch := list(islice(blocks, at_once)):
        yield batch
        done += len(batch)
        progress(done, total)


def needed_blocks(view: View, excluded: Filter) -> Iterator[tuple[bytes, bytes, int | None]]:
    """Walk the blocks that this session stored, and those that the tree needs besides.

    Of each its key and hash, and its size as stored, where that is known.
    """
    yield from view.blocks()
    for stored in _unnoted_chunks(view, excluded):
        yield stored.key, stored.hash, None


def _unnoted_chunks(view: View, excluded: Filter) -> Iterator[Stored]:
    """Walk the chunks of the tree whose blocks this session has not noted as stored by itself.

    They are a base's, or a seal before found them lost. A block that several chunks need comes as often.
    """
    if not view.has_unnoted_blocks():
        return
    for stored in _chunks_of_all(view) if excluded is nothing_excluded else _chunks_of_some(view, excluded):
        if not view.has_block(stored):
            yield stored


def _chunks_of_all(view: View) -> Iterator[Stored]:
    """Walk the stored chunks of all files that have a name, in the order of the journal, which is quicker."""
    last, is_named = 0, False
    for ino, _, stored in view.all_stored_chunks():
        if ino != last:
            inode = view.inode(ino)
            last, is_named = ino, inode is not None and inode.nlink > 0
        if is_named:
            yield stored


def _chunks_of_some(view: View, excluded: Filter) -> Iterator[Stored]:
    """Walk the stored chunks of the files that are not left out."""
    for _, _, entries in walk(view, excluded):
        for entry in entries:
            if entry.kind == stat.S_IFREG:
                yield from (stored for _, stored in view.stored_chunks(entry.ino))


def copy_base_blocks(view: View, base: Store, store: Store, excluded: Filter, progress: Progress) -> None:
    """Copy what the tree needs of a session's base, and only the base's store has, to the session's.

    What that cannot give is found missing by the check of the store, which comes afterwards.

    Raises:
        StoreError: a store can't be asked.
    """
    total = sum(1 for _ in _unnoted_chunks(view, excluded))
    chunks = _unnoted_chunks(view, excluded)
    with Copier(base, store, total, partial(progress, "copy"), _log_fault) as copier:
        while batch := [BlockRef(chunk.hash, chunk.key) for chunk in islice(chunks, BATCH)]:
            copier.submit(batch)
        copier.finish()
    if copier.sent:
        store.sync()
        log.info("copied %d blocks (%d bytes) from %s", copier.sent, copier.sent_bytes, base.url)


def _log_fault(_: BlockRef, error: FlistfsError) -> None:
    if not isinstance(error, BlockMissingError):  # else the check says so, once for each file
        log.warning("not copied to the store: %s", error)


def files_lacking(view: View, lost: Iterable[bytes], excluded: Filter) -> dict[bytes, list[bytes]]:
    """Name the files that need one of the lost blocks, each with the hashes of those it needs."""
    wanted = set(lost)
    lacking: dict[int, list[bytes]] = {}
    for ino, _, stored in view.all_stored_chunks():
        if stored.hash in wanted:
            lacking.setdefault(ino, []).append(stored.hash)
    named = (
        (join(path, entry.name), lacking[entry.ino])
        for path, _, entries in walk(view, excluded)
        for entry in entries
        if entry.ino in lacking
    )
    return dict(sorted(named))


def copy_replicas(store: Store, blocks: Mapping[bytes, bytes]) -> set[bytes]:
    """Store blocks (key by hash) again that a replica of the store still has; return those that none has.

    Raises:
        StoreError: it can't be told, or not be done.
    """
    gone: set[bytes] = set()
    for block_hash, key in blocks.items():
        try:
            stored = store.get(block_hash)
            decode_block(stored, BlockRef(block_hash, key))
        except (BlockMissingError, BlockCorruptError):
            gone.add(block_hash)
        else:
            store.put([Block(block_hash, key, (stored,))])
    return gone


def store_holes(store: Store, lengths: Iterable[int]) -> dict[int, BlockRef]:
    """Store a block of zeros of each length, as readers know no holes; they are few, so all are compared."""
    blocks = {length: encode_block(bytes(length)) for length in sorted(lengths)}
    hashes = [block.hash for block in blocks.values()]
    missing = store.missing(hashes)
    missing |= store.wrong([each for each in hashes if each not in missing], thorough=True)
    if missing:
        store.put([block for block in blocks.values() if block.hash in missing])
    return {length: BlockRef(block.hash, block.key) for length, block in blocks.items()}


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
            progress("catalog", done, total)
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
        progress("package", 0, 1)
        output.write(scratch)
    except OSError as error:
        raise OutputError(
            f"the flist cannot be written, in {scratch.parent} or its place: {error.strerror or error}"
        ) from error
    except (ValueError, FormatError) as error:  # of what we write ourselves, only the disk can be wrong
        raise OutputError(f"the flist cannot be written: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    progress("package", 1, 1)
    return survey
