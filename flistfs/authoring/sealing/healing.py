"""Find corrupt blocks in the store, and replace them with valid ones.

Plain blocking functions; `session` decides when they run.
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

# Blocks fetched and compared between two progress reports.
_BATCH = 256


def wrong_blocks(view: View, store: Store, excluded: Filter, progress: Progress) -> dict[bytes, bytes]:
    """Fetch every block that the session needs; return those that are corrupt: key by hash.

    Raises:
        StoreError: the store cannot be read.
    """
    wrong: dict[bytes, bytes] = {}
    for batch in needed_in_batches(view, excluded, _BATCH, counting(progress, "compare")):
        keys = {block_hash: key for key, block_hash, _ in batch}
        found = store.wrong(list(keys), thorough=True)
        wrong.update((block_hash, keys[block_hash]) for block_hash in found)
    return wrong


def heal(store: Store, wrong: Mapping[bytes, bytes], sources: Sequence[Store]) -> set[bytes]:
    """Replace corrupt blocks (key by hash) with a valid copy from any of the sources; return those healed.

    The store itself may be a source, for its replicas.

    Raises:
        StoreError: a store cannot be read or written.
    """
    healed: set[bytes] = set()
    for block_hash, key in wrong.items():
        found = (right_copy(source, BlockRef(block_hash, key)) for source in sources)
        block = next(filter(None, found), None)
        if block is not None:
            store.put([block])
            healed.add(block_hash)
    return healed
