"""Read and encode chunks and put them into the store, a batch at a time.

This runs in a daemon's child process (see `encoder_process`), or in the calling thread.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from flistfs.authoring.upload.known_blocks import Known, KnownBlocks
from flistfs.format.base import Block, Codec
from flistfs.sources.data import BytesSource, FileSource, Source, SpoolSource, Unreadable, file_version
from flistfs.sources.reach import open_file, why_unreadable
from flistfs.stores import Store


class StoredChunk(NamedTuple):
    """A chunk that is in the store: its block, of `size` bytes as stored, and whether it was newly stored.

    `replaced` is whether it replaced a corrupt block.
    """

    hash: bytes
    key: bytes
    size: int
    is_new: bool
    replaced: bool = False


Result = StoredChunk | Unreadable


class Batch(NamedTuple):
    """The outcomes of the chunks of a batch, in order, and the seconds that the store took.

    `store_trouble` is what was wrong with a server that others stood in for, if anything.
    """

    results: list[Result]
    seconds: float
    store_trouble: str | None = None


class Encoder(Protocol):
    """Stores batches of chunks; one thread uses it at a time."""

    def store(self, sources: Sequence[Source], *, check_content: bool = False) -> Batch:
        """Read, encode and store chunks; any of them may already be in the store.

        With `check_content`, each block that is there is fetched, and replaced if it is corrupt.

        A chunk read from the spool may be torn if it is written meanwhile: it is read only once, so that
        block, hash and key are consistent in any case.

        Raises:
            StoreError: not all could be stored; it is safe to try again.
        """

    def close(self) -> None:
        """Close everything; a call in another thread soon ends with an error."""


class LocalEncoder:
    """Stores chunks in the calling thread."""

    def __init__(self, store: Store, spool: int, known: KnownBlocks) -> None:
        """Store chunks in `store`; those of the spool are read from the descriptor `spool`."""
        self._store = store
        self._spool = spool
        self._known = known

    def store(self, sources: Sequence[Source], *, check_content: bool = False) -> Batch:
        """Implement `Encoder.store`."""
        codec = self._store.codec
        chunks = [self._read(source) for source in sources]
        keys = [None if isinstance(chunk, Unreadable) else codec.key(chunk) for chunk in chunks]
        unique = {
            key: chunk
            for key, chunk in zip(keys, chunks, strict=True)
            if key is not None and not isinstance(chunk, Unreadable)
        }
        known = self._known.find(unique)
        blocks = _encode(codec, unique, (key for key in unique if key not in known))
        known |= {key: Known(block.hash, block.size) for key, block in blocks.items()}
        started = time.monotonic()
        sizes = dict(known.values())
        missing = self._store.missing(list(sizes), sizes)
        there = [block_hash for block_hash in sizes if block_hash not in missing]
        wrong = self._store.wrong(there, thorough=check_content)
        missing |= wrong
        # For a chunk that an earlier session stored, only the hash of its block was known.
        blocks |= _encode(
            codec,
            unique,
            [key for key, block in known.items() if block.hash in missing and key not in blocks],
        )
        new = {key: block for key, block in blocks.items() if known[key].hash in missing}
        replaced = {key for key in new if known[key].hash in wrong}
        if new:
            self._store.put(list(new.values()))
        seconds = time.monotonic() - started
        known |= {key: Known(block.hash, block.size) for key, block in new.items()}
        self._known.note(unique, known)
        results: list[Result] = []
        for key, chunk in zip(keys, chunks, strict=True):
            if isinstance(chunk, Unreadable):
                results.append(chunk)
            elif key is not None:
                is_new = key in new
                block = known[key]
                results.append(StoredChunk(block.hash, key, block.size, is_new, is_new and key in replaced))
                new.pop(key, None)  # a repetition in this batch is not new again
        return Batch(results, seconds)

    def close(self) -> None:
        """Close the store, which ends its calls."""
        self._store.close()

    @property
    def store_trouble(self) -> str | None:
        """What is wrong with a server of the store."""
        return self._store.trouble

    def _read(self, source: Source) -> bytes | Unreadable:
        if isinstance(source, SpoolSource):
            data = os.pread(self._spool, source.length, source.position)
            return data if len(data) == source.length else data.ljust(source.length, b"\0")
        if isinstance(source, BytesSource):
            return source.data
        try:
            return _read_file(source)
        except OSError as error:
            return Unreadable(why_unreadable(error))


def _encode(codec: Codec, chunks: Mapping[bytes, bytes], keys: Iterable[bytes]) -> dict[bytes, Block]:
    return {key: codec.encode(chunks[key], key) for key in keys}


def _read_file(source: FileSource) -> bytes | Unreadable:
    descriptor = open_file(source.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        data = os.pread(descriptor, source.length, source.offset)
        # Checked after the read, to detect any change before or during it.
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if (
        file_version(status) != source.version
        or len(data) != source.length
        or not stat.S_ISREG(status.st_mode)
    ):
        return Unreadable("it changed while it was being read")
    return data
