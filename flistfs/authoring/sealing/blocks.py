"""The blocks of a sealed tree: which they are, and whether the store has them."""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from flistfs.authoring.sealing.survey import (
    walk,
)
from flistfs.authoring.state.view import View
from flistfs.errors import (
    BlockCorruptError,
    BlockMissingError,
    FlistfsError,
)
from flistfs.format.base import Block
from flistfs.sources.excludes import Filter, nothing_excluded
from flistfs.stores import Store
from flistfs.stores.copying import BATCH, Copier
from flistfs.tree.chunks import BlockRef, Stored
from flistfs.tree.names import join
from flistfs.util.progress import Progress, counting

log = logging.getLogger(__name__)

# Hashes per query while checking that the store has every block.
_CHECK_BATCH = 4096


def lost_blocks(view: View, store: Store, excluded: Filter, progress: Progress) -> dict[bytes, bytes]:
    """Ask the store for every block that the session relies on; return those that it lacks: key by hash.

    Raises:
        StoreError: the store cannot be queried.
    """
    lost: dict[bytes, bytes] = {}
    for batch in needed_in_batches(view, excluded, _CHECK_BATCH, counting(progress, "check")):
        keys = {block_hash: key for key, block_hash, _ in batch}
        sizes = {block_hash: size for _, block_hash, size in batch if size is not None}
        missing = store.missing(list(keys), sizes)
        lost.update((block_hash, keys[block_hash]) for block_hash in missing)
    return lost


def needed_in_batches(
    view: View, excluded: Filter, at_once: int, progress: Callable[[int, int], None]
) -> Iterator[list[tuple[bytes, bytes, int | None]]]:
    """Walk what `needed_blocks` gives, `at_once` at a time; reporting to `progress`."""
    total = sum(1 for _ in needed_blocks(view, excluded))
    blocks = needed_blocks(view, excluded)
    done = 0
    while batch := list(islice(blocks, at_once)):
        yield batch
        done += len(batch)
        progress(done, total)


def needed_blocks(view: View, excluded: Filter) -> Iterator[tuple[bytes, bytes, int | None]]:
    """Yield the blocks that this session stored, and the others that the tree needs.

    Each comes with its key and hash, and its size as stored, if that is known.
    """
    yield from view.blocks()
    for stored in _unnoted_chunks(view, excluded):
        yield stored.key, stored.hash, None


def _unnoted_chunks(view: View, excluded: Filter) -> Iterator[Stored]:
    """Yield the chunks of the tree whose blocks are not recorded as stored by this session.

    They are a base's, or an earlier seal found them lost. A block that several chunks need is repeated.
    """
    if not view.has_unnoted_blocks():
        return
    for stored in _chunks_of_all(view) if excluded is nothing_excluded else _chunks_of_some(view, excluded):
        if not view.has_block(stored):
            yield stored


def _chunks_of_all(view: View) -> Iterator[Stored]:
    """Yield the stored chunks of all files that have a name, in the order of the journal, which is faster."""
    last, is_named = 0, False
    for ino, _, stored in view.all_stored_chunks():
        if ino != last:
            inode = view.inode(ino)
            last, is_named = ino, inode is not None and inode.nlink > 0
        if is_named:
            yield stored


def _chunks_of_some(view: View, excluded: Filter) -> Iterator[Stored]:
    """Yield the stored chunks of the files that are not excluded."""
    for _, _, entries in walk(view, excluded):
        for entry in entries:
            if entry.kind == stat.S_IFREG:
                yield from (stored for _, stored in view.stored_chunks(entry.ino))


def copy_base_blocks(view: View, base: Store, store: Store, excluded: Filter, progress: Progress) -> None:
    """Copy the base's blocks that the tree needs and the session's store lacks from the base's store.

    Blocks that are missing there too are found by the check of the store, which comes afterwards.

    Raises:
        StoreError: a store cannot be queried.
    """
    total = sum(1 for _ in _unnoted_chunks(view, excluded))
    chunks = _unnoted_chunks(view, excluded)
    with Copier(base, store, total, counting(progress, "copy"), _log_fault) as copier:
        while batch := [BlockRef(chunk.hash, chunk.key) for chunk in islice(chunks, BATCH)]:
            copier.submit(batch)
        copier.finish()
    if copier.sent:
        store.sync()
        log.info("copied %d blocks (%d bytes) from %s", copier.sent, copier.sent_bytes, base.url)


def _log_fault(_: BlockRef, error: FlistfsError) -> None:
    if not isinstance(error, BlockMissingError):  # otherwise the check reports it, once for each file
        log.warning("not copied to the store: %s", error)


def files_lacking(view: View, lost: Iterable[bytes], excluded: Filter) -> dict[bytes, list[bytes]]:
    """Return the paths of the files that need lost blocks, each with the hashes of those."""
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
        StoreError: the store cannot be read or written.
    """
    gone: set[bytes] = set()
    for block_hash, key in blocks.items():
        try:
            stored = store.get(block_hash)
            store.codec.decode(stored, BlockRef(block_hash, key))
        except (BlockMissingError, BlockCorruptError):
            gone.add(block_hash)
        else:
            store.put([Block(block_hash, key, (stored,))])
    return gone


def store_holes(store: Store, lengths: Iterable[int]) -> dict[int, BlockRef]:
    """Store a block of zeros of each length, as readers do not support holes; the few are all compared."""
    blocks = {length: store.codec.encode(bytes(length)) for length in sorted(lengths)}
    hashes = [block.hash for block in blocks.values()]
    missing = store.missing(hashes)
    missing |= store.wrong([each for each in hashes if each not in missing], thorough=True)
    if missing:
        store.put([block for block in blocks.values() if block.hash in missing])
    return {length: BlockRef(block.hash, block.key) for length, block in blocks.items()}
