"""What the hub finds in a package: its metadata, and whether its blocks are there. These functions block."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from flistfs.errors import FormatError
from flistfs.format.metadata import BACKEND
from flistfs.reading.flist import Flist
from flistfs.stores.base import Store
from flistfs.tree.names import printable

_BATCH: Final = 4096  # hashes asked for at a time

_MAX_NAMED: Final = 10
"""How many files without their blocks are named."""


def metadata(package: Path, backend: object | None) -> dict[str, Any]:
    """Return the metadata of an flist by their keys, as JSON where they are.

    Args:
        package: The flist.
        backend: Where the hub's own blocks are, for one that does not say where its blocks are.

    Raises:
        FormatError: it is no flist, or damaged.
    """
    with Flist.open(package) as flist:
        found = {key: _value(value) for key, value in flist.metadata.items()}
    if BACKEND not in found and backend is not None:
        found["backend-forced"] = backend
    return found


def lacking(package: Path, store: Store) -> list[str]:
    """Return files of an flist of which a store lacks blocks, up to a number.

    Raises:
        FormatError: it is no flist, or damaged.
        StoreError: the store cannot be asked.
    """
    found: list[str] = []
    with Flist.open(package) as flist:
        if flist.codec is not store.codec:
            raise FormatError(f"it has the format {flist.format.name}, the hub's blocks another")
        for batch in _batches(flist):
            absent = store.missing([block_hash for _, block_hash in batch])
            found += dict.fromkeys(printable(path) for path, block_hash in batch if block_hash in absent)
            if len(found) >= _MAX_NAMED:
                break
    return found[:_MAX_NAMED]


def _batches(flist: Flist) -> Iterator[Sequence[tuple[bytes, bytes]]]:
    """Yield the blocks of all files, each with the path of one that needs it."""
    batch: dict[bytes, bytes] = {}
    for node in flist.files():
        for ref in node.blocks:
            if not flist.codec.is_ref(ref):
                raise FormatError(f"{printable(node.path)} has a block with an invalid hash or key")
            batch.setdefault(ref.hash, node.path)
        if len(batch) >= _BATCH:
            yield [(path, block_hash) for block_hash, path in batch.items()]
            batch = {}
    if batch:
        yield [(path, block_hash) for block_hash, path in batch.items()]


def _value(value: bytes) -> object:
    """Return JSON as clients know it: a number or a word of it stays the text that it is in the flist."""
    text = value.decode(errors="replace")
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, list | dict) else text
