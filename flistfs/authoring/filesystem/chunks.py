"""The spooled chunks of a session's files, and counts of stored ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from flistfs.authoring.state.journal import Journal
from flistfs.tree.chunks import Stored

ChunkId = tuple[int, int]  # inode number, index of the chunk in the file


_NO_CHUNKS: Mapping[int, Chunk] = {}


@dataclass(slots=True, eq=False)
class Chunk:
    """A spooled chunk.

    `length` is in bytes, `written` on the monotonic clock. `version` counts the changes; `reported` is the
    latest version of which a block was stored. `counted` is the version counted as stored: a chunk that is
    sent again, for example because the store lost it, is counted once. `durable` means that an fsync covers
    it: its slot may be freed only once its block survives a power cut too.
    """

    ino: int
    index: int
    slot: int
    length: int
    version: int = 0
    durable: bool = False
    written: float = 0.0
    reported: int = -1
    counted: int = -1


class SpooledChunks:
    """The spooled chunks of all files, by file: a walk of the journal would pass all removed records."""

    def __init__(self) -> None:
        self._files: dict[int, dict[int, Chunk]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Chunk]:
        for chunks in self._files.values():
            yield from chunks.values()

    def get(self, ino: int, index: int) -> Chunk | None:
        """Return a chunk, if it is spooled."""
        return self.of(ino).get(index)

    def of(self, ino: int) -> Mapping[int, Chunk]:
        """Return a file's spooled chunks, by index."""
        return self._files.get(ino, _NO_CHUNKS)

    def add(self, chunk: Chunk) -> None:
        """Add a chunk that is not in the table."""
        self._files.setdefault(chunk.ino, {})[chunk.index] = chunk
        self._count += 1

    def remove(self, chunk: Chunk) -> None:
        """Remove a chunk from the table."""
        chunks = self._files[chunk.ino]
        del chunks[chunk.index]
        if not chunks:
            del self._files[chunk.ino]
        self._count -= 1


@dataclass(slots=True)
class Copy:
    """The slot of a stored chunk. `durable` means that it survives a power cut."""

    slot: int
    length: int
    durable: bool = False


class _Kept(Protocol):
    """The uploader's report on a stored chunk."""

    @property
    def stored(self) -> Stored: ...
    @property
    def size(self) -> int: ...
    @property
    def is_new(self) -> bool: ...
    @property
    def replaced(self) -> bool: ...


@dataclass(slots=True)
class Counts:
    """What a session has stored so far: new blocks, their encoded bytes, and blocks already in the store.

    `replaced_blocks` counts blocks that replaced corrupt ones.
    """

    new_blocks: int = 0
    new_bytes: int = 0
    shared_blocks: int = 0
    replaced_blocks: int = 0

    def add(self, outcomes: Iterable[_Kept], journal: Journal) -> None:
        """Count stored chunks, each new block once.

        Two encoders that process the same chunk at the same time both find its block missing in the store.
        """
        noted: set[bytes] = set()
        for outcome in outcomes:
            block = outcome.stored.hash
            if outcome.is_new and block not in noted and not journal.has_block(outcome.stored):
                self.new_blocks += 1
                self.new_bytes += outcome.size
            else:
                self.shared_blocks += 1
            noted.add(block)
            self.replaced_blocks += outcome.replaced


@dataclass(frozen=True, slots=True)
class ContentStatus:
    """Use of the spool: chunks not stored yet, their bytes, and copies kept for reading."""

    spooled_chunks: int
    spooled_bytes: int
    cached_chunks: int
    waiting_writers: int
