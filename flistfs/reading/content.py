"""The content of files: blocks from the store, checked, in order, prefetched by a few threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from flistfs.errors import BlockCorruptError, BlockMissingError, FormatError
from flistfs.format.base import Codec
from flistfs.format.faults import node_fault
from flistfs.reading.flist import Flist
from flistfs.stores import Store, open_flist_store
from flistfs.stores.url import PASSWORD_VARIABLE
from flistfs.tree.chunks import BlockRef
from flistfs.tree.names import printable
from flistfs.tree.node import Kind, Node, as_far_as_stored

THREADS: Final = 4
"""Threads that fetch and decode: their work releases the GIL, and a store answers several at once."""

_T = TypeVar("_T")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk of a file: its offset and length in the file, and its block."""

    offset: int
    length: int
    ref: BlockRef


def store_of(
    flist: Flist,
    url: str | None,
    password: str | None,
    usual: str | None = None,
    *,
    reading: bool = True,
    password_variable: str = PASSWORD_VARIABLE,
) -> Store:
    """Open the store of an flist's blocks, by default for reading only.

    That is the one at `url`; else the one of the flist's router; else the user's usual store, at the URL
    `usual`; else the user's directory. Servers that only the flist names get no password.
    `password_variable` is the variable that messages name for the password.

    Raises:
        UsageError: the URL is invalid.
        FormatError: the router of the flist is invalid.
    """
    router = None if url else flist.router()
    place = url or (usual if router is None else None)
    return open_flist_store(
        flist.codec, router, place, password, reading=reading, password_variable=password_variable
    )


def pieces(node: Node, codec: Codec) -> Iterator[Piece]:
    """Yield the chunks of a file.

    Raises:
        FormatError: it is not a file, or its blocks in the flist are invalid.
    """
    if node.kind is not Kind.FILE:
        raise FormatError(f"{printable(node.path) or '/'} is a {node.kind}, not a file")
    if (fault := node_fault(node, codec)) is not None:
        raise FormatError(f"{printable(node.path)} cannot be read: {fault}")
    for index, ref in enumerate(node.blocks):
        offset = index * node.chunk_size
        yield Piece(offset, min(node.chunk_size, node.size - offset), ref)


def pieces_there(node: Node, codec: Codec) -> Iterator[Piece]:
    """Yield the chunks of a file that may lack the last ones; raises as `pieces`."""
    yield from pieces(as_far_as_stored(node) if node.blocks and node.chunk_size else node, codec)


def fetch(store: Store, path: bytes, piece: Piece) -> bytes:
    """Fetch, decode and check a chunk of a file.

    Raises:
        BlockMissingError: the store lacks it; the message names the file.
        BlockCorruptError: its bytes do not match the flist.
        StoreError: the store cannot be reached.
    """
    try:
        chunk = store.codec.decode(store.get(piece.ref.hash), piece.ref)
    except BlockMissingError as error:
        raise BlockMissingError(
            f"{printable(path)} cannot be read: {error}", paths=[os.fsdecode(path)]
        ) from error
    except BlockCorruptError as error:
        raise BlockCorruptError(
            f"{printable(path)} cannot be read: {error}", paths=[os.fsdecode(path)]
        ) from error
    if len(chunk) != piece.length:
        raise BlockCorruptError(
            f"{printable(path)} cannot be read: a block has {len(chunk)} bytes instead of {piece.length}",
            paths=[os.fsdecode(path)],
        )
    return chunk


def read(store: Store, node: Node) -> Iterator[bytes]:
    """Yield the content of a file, chunk by chunk.

    Raises:
        FormatError: it is not a file, or cannot be read; see also `fetch`.
    """
    return ahead(lambda piece: fetch(store, node.path, piece), pieces(node, store.codec))


def ahead(work: Callable[[_T], _R], items: Iterable[_T], *, threads: int = THREADS) -> Iterator[_R]:
    """Apply `work` to items in threads, a few ahead of the consumer; yield results in the items' order.

    When the consumer stops early, running work is not waited for: closing the store ends it.
    """
    pool = ThreadPoolExecutor(threads)
    running: deque[Future[_R]] = deque()
    try:
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) >= 2 * threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
