"""What a format of flists consists of; opening an flist or a session yields its `Format`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from flistfs.tree.chunks import BlockRef
from flistfs.tree.node import Access, Node

if TYPE_CHECKING:
    from flistfs.format.router import Router


@dataclass(frozen=True, slots=True)
class Block:
    """A chunk as a store holds it.

    `parts` are the buffers that make up the stored bytes, in order. They are kept apart so that they can go
    to a socket as they are.
    """

    hash: bytes
    key: bytes
    parts: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """Stored size in bytes."""
        return sum(map(len, self.parts))

    @property
    def stored(self) -> bytes:
        """The stored bytes in one piece: a copy."""
        return b"".join(self.parts)

    @property
    def ref(self) -> BlockRef:
        """What a file's record says of this block."""
        return BlockRef(self.hash, self.key)


class Codec(Protocol):
    """Chunks to blocks and back. Hashes and keys are opaque bytes to everybody else.

    All calls that touch a chunk's bytes release the GIL: encoding runs in as many threads as there are cores.
    """

    @property
    def no_block(self) -> bytes:
        """A hash that no block has, to ask a store for."""

    def key(self, chunk: bytes | memoryview) -> bytes:
        """Return the key of a chunk, by which equal chunks are known."""

    def encode(self, chunk: bytes | memoryview, key: bytes | None = None) -> Block:
        """Return the block of a chunk, which has at most `CHUNK_SIZE` bytes.

        `key` saves the time to compute it, where the caller has done so already; it is not checked.

        Raises:
            ValueError: the chunk is too long.
        """

    def decode(self, stored: bytes | memoryview, ref: BlockRef) -> bytes:
        """Return the chunk of the block `stored`, checked; no more than a chunk is ever unpacked.

        Raises:
            BlockCorruptError: the bytes are not those of `ref.hash`, or `ref.key` is not their key.
        """

    def has_hash(self, stored: bytes | memoryview, block_hash: bytes) -> bool:
        """Return whether these are the stored bytes of the block of that name; no key is needed for it."""

    def is_ref(self, ref: BlockRef) -> bool:
        """Return whether hash and key have the form that blocks have; no store is asked for others."""

    def show(self, block_hash: bytes) -> str:
        """Return a hash or key as people and file names have it."""

    def compact(self, name: bytes) -> bytes:
        """Return a hash or key in as few bytes as tell it from others, for keeping many of them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong at a path of an flist."""

    path: bytes
    what: str


class TreeReader(Protocol):
    """An open flist, as a tree. Paths are relative to the root, which is empty; no slash at either end."""

    @property
    def metadata(self) -> Mapping[str, bytes]:
        """What the flist says of itself beside the tree, by name."""

    @property
    def package_faults(self) -> Sequence[str]:
        """What keeps readers from opening the file, though it could be opened here."""

    @property
    def estimated_directories(self) -> int:
        """About how many directories there are, for showing progress."""

    def router(self) -> Router | None:
        """Return where the flist says that its blocks are, if it does. URLs may hold passwords.

        Raises:
            FormatError: readers would refuse it.
        """

    def directory(self, path: bytes) -> Node | None:
        """Return a directory; None if the flist has none at this path.

        Raises:
            FormatError: it is damaged.
        """

    def listing(self, path: bytes) -> Sequence[Node] | None:
        """Return the entries of a directory, by name, whatever is wrong with them; None if there is none.

        Sub-directories may be known from these entries only (`Node.whole`): ask for them by `directory`.

        Raises:
            FormatError: the directory is damaged.
        """

    def faults(self, path: bytes) -> Iterator[Fault]:
        """Walk the faults of one directory and its entries; asks for no block.

        Raises:
            FormatError: the directory is damaged, or there is none.
        """

    def files(self) -> Iterator[Node]:
        """Walk all files, in the order that takes least time.

        Raises:
            FormatError: the flist is damaged.
        """

    def close(self) -> None:
        """Let go of it. May be called twice."""


class TreeWriter(Protocol):
    """An flist in the making. Directories are added in the order of their positions."""

    def position(self, path: bytes) -> bytes:
        """Return where a directory belongs in the order, which is that of the bytes returned."""

    def add(self, directory: Node, children: Iterable[Sequence[Node]]) -> None:
        """Add a directory with its entries, by name, some at a time.

        Of a sub-directory only the path counts, unless the format has `complete_entries`.

        Raises:
            OutputError: the format cannot hold as many.
            ValueError: a number does not fit.
        """

    def finish(self, router: Router | None, out: BinaryIO) -> None:
        """Write the flist to `out`, with where its blocks are if readers are to be told.

        Raises:
            FormatError: it cannot be made.
            OSError: a disk is full.
        """


@dataclass(frozen=True, slots=True)
class Limits:
    """What an flist can hold at most: bytes of a file, seconds since 1970, numbers."""

    file_size: int
    latest: int
    minor: int


@dataclass(frozen=True, slots=True)
class Format:
    """One way in which flists and their blocks are written.

    Attributes:
        name: What users call it.
        codec: How its blocks are made.
        limits: What it can hold at most.
        unrepresentable: What it cannot hold or readers drop, by the names of `Unrepresentable`'s fields.
        complete_entries: Whether a writer takes all attributes of a sub-directory with its parent's entries.
        recognizes: Whether a file or directory looks like an flist of this format.
        open: Opens an flist: a context manager, which owns temporary files. Raises FormatError.
        writer: Begins an flist, in a directory for temporary files; all accesses of its nodes are known
            beforehand. A context manager.
    """

    name: str
    codec: Codec
    limits: Limits
    unrepresentable: frozenset[str]
    complete_entries: bool
    recognizes: Callable[[Path], bool]
    open: Callable[[Path], TreeReader]
    writer: Callable[[Path, Iterable[Access]], AbstractContextManager[TreeWriter]]
