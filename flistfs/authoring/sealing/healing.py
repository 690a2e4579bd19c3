"""Blocks that the store holds with other bytes than their names say, and right ones in their place.

Plain blocking functions; `session` says when they run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flistfs.authoring.sealing.blocks import needed_in_batches
from flistfs.authoring.state.view import View
from flistfs.sources.excludes import Filter
from flistfs.stores import Store
from flistfs.stores.copying import right_copy
from flistfs.tree.chunks import BlockRef
from flistfs.util.progress import Progress, counting

# Blocks that are fetched and compared between two reports of progress.
_BATCH = 256


def wrong_blocks(view: View, store: Store, excluded: Filter, progress: Progress) -> dict[bytes, bytes]:
    """Fetch every block that the session relies on; return those that are wrong there: key by hash.

    Raises:
        StoreError: the store can't be asked.
    """
    wrong: dict[bytes, bytes] = {}
    for batch in needed_in_batches(view, excluded, _BATCH, counting(progress, "compare")):
        keys = {block_hash: key for key, block_hash, _ in batch}
        found = store.wrong(list(keys), thorough=True)
        wrong.update((block_hash, keys[block_hash]) for block_hash in found)
    return wrong


def heal(store: Store, wrong: Mapping[bytes, bytes], sources: Sequence[Store]) -> set[bytes]:
    """Put right blocks over wrong ones (key by hash), from whichever source has one; return those healed.

    A replica of the store itself may be a source.

    Raises:
        StoreError: a store can't be asked.
    """
    healed: set[bytes] = set()
    for block_hash, key in wrong.items():
        found = (right_copy(source, BlockRef(block_hash, key)) for source in sources)
        block = next(filter(None, found), None)
        if block is not None:
            store.put([block])
            healed.add(block_hash)
    return healed
