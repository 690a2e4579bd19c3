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
    from flistfs.format.metadata import MetadataChange
    from flistfs.format.router import Router


@dataclass(frozen=True, slots=True)
class Block:
    """A chunk as a store holds it.

    `parts` are the buffers that make up the stored bytes, in order. They are kept separate so that they can
    be sent to a socket without copying.
    """

    hash: bytes
    key: bytes
    parts: tuple[bytes, ...]

    @property
    def size(self) -> int:
        """The stored size in bytes."""
        return sum(map(len, self.parts))

    @property
    def stored(self) -> bytes:
        """A copy of the stored bytes in one piece."""
        return b"".join(self.parts)

    @property
    def ref(self) -> BlockRef:
        """The reference to this block in a file's record."""
        return BlockRef(self.hash, self.key)


class Codec(Protocol):
    """Converts chunks to blocks and back. Hashes and keys are opaque bytes everywhere else.

    All calls that touch a chunk's bytes release the GIL: encoding runs in as many threads as there are cores.
    """

    @property
    def no_block(self) -> bytes:
        """A hash that no block has, for test queries to a store."""

    def key(self, chunk: bytes | memoryview) -> bytes:
        """Return the key of a chunk, which is the same for equal chunks."""

    def encode(self, chunk: bytes | memoryview, key: bytes | None = None) -> Block:
        """Return the block of a chunk, which has at most `CHUNK_SIZE` bytes.

        `key` saves computing it if the caller already has; it is not checked.

        Raises:
            ValueError: the chunk is too long.
        """

    def decode(self, stored: bytes | memoryview, ref: BlockRef) -> bytes:
        """Return the chunk of the block `stored`, checked; never more than a chunk is decompressed.

        Raises:
            BlockCorruptError: the bytes do not match `ref.hash`, or `ref.key` is not their key.
        """

    def has_hash(self, stored: bytes | memoryview, block_hash: bytes) -> bool:
        """Return whether these are the stored bytes of the block with this hash; needs no key."""

    def is_ref(self, ref: BlockRef) -> bool:
        """Return whether hash and key are well-formed; stores are never queried for others."""

    def show(self, block_hash: bytes) -> str:
        """Return a hash or key as text for messages and file names."""

    def compact(self, name: bytes) -> bytes:
        """Return a hash or key in its shortest unambiguous form, for keeping many of them."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong at a path of an flist.

    `is_read_past` tells what a program is known to have lost or mixed up in flists that are in use: reading
    goes on with what is there.
    """

    path: bytes
    what: str
    is_read_past: bool = False


class TreeReader(Protocol):
    """An open flist, as a tree. Paths are relative to the root, which is empty; no slash at either end."""

    @property
    def metadata(self) -> Mapping[str, bytes]:
        """The flist's metadata besides the tree, by name; without secrets."""

    @property
    def package_faults(self) -> Sequence[str]:
        """Why readers cannot open the file, though it could be opened here."""

    @property
    def estimated_directories(self) -> int:
        """The approximate number of directories, for progress reports."""

    def router(self) -> Router | None:
        """Return the flist's router to its blocks, if it has one. URLs may contain passwords.

        Raises:
            FormatError: readers would reject it.
        """

    def directory(self, path: bytes) -> Node | None:
        """Return a directory; None if the flist has none at this path.

        Raises:
            FormatError: it is damaged.
        """

    def listing(self, path: bytes) -> Sequence[Node] | None:
        """Return the unchecked entries of a directory, by name; None if it does not exist.

        Subdirectories may be known from these entries only (`Node.whole`): `directory` returns them whole.

        Raises:
            FormatError: the directory is damaged.
        """

    def faults(self, path: bytes) -> Iterator[Fault]:
        """Yield the faults of one directory and its entries, without querying blocks.

        Raises:
            FormatError: the directory is damaged, or does not exist.
        """

    def read_past(self, path: bytes) -> Iterator[Fault]:
        """Yield those of `faults` that reading goes past, quicker; raises as `faults`."""

    def files(self) -> Iterator[Node]:
        """Yield all files, in the fastest order.

        Raises:
            FormatError: the flist is damaged.
        """

    def close(self) -> None:
        """Close it. May be called twice."""


class TreeWriter(Protocol):
    """An flist being written. Directories are added in the order of their positions."""

    def position(self, path: bytes) -> bytes:
        """Return the sort key of a directory, in byte order."""

    def add(self, directory: Node, children: Iterable[Sequence[Node]]) -> None:
        """Add a directory with its entries, by name, some at a time.

        Of a sub-directory only the path counts, unless the format has `complete_entries`.

        Raises:
            OutputError: the format cannot hold that many.
            ValueError: a number does not fit.
        """

    def finish(self, router: Router | None, metadata: Mapping[str, bytes], out: BinaryIO) -> None:
        """Write the flist to `out`, with the router, if any, for its readers.

        There is metadata only if the format has a place for it; what is said of the server is the router's.

        Raises:
            FormatError: it cannot be written.
            OSError: a disk is full.
        """


class Rewrite(Protocol):
    """Writes a sealed flist anew, with its records as they are, and something else about it."""

    def __call__(
        self, package: Path, directory: Path, router: Router | None, change: MetadataChange, out: BinaryIO
    ) -> None:
        """Write what is in `package` to `out`, by way of files in `directory`.

        Args:
            package: A file, or a directory with an unpacked flist.
            directory: An empty directory for temporary files.
            router: Where its blocks are from now on; None leaves what it says of that.
            change: Of its metadata; empty for a format that has none.
            out: Receives the flist.

        Raises:
            FormatError: it is damaged, or its metadata has another shape than the change needs.
            UsageError: its metadata would be too large.
            OSError: a disk is full.
        """


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of an flist: bytes of a file, seconds since 1970, numbers."""

    file_size: int
    latest: int
    minor: int


@dataclass(frozen=True, slots=True)
class Format:
    """A format of flists and their blocks.

    Attributes:
        name: What users call it.
        codec: How its blocks are made.
        limits: What it can hold at most.
        unrepresentable: What it cannot hold or readers drop, by the names of `Unrepresentable`'s fields.
        has_metadata: Whether it has a place for metadata besides the tree.
        names_namespaces: Whether it can name the namespace of a 0-db that has all blocks, to those readers
            that know of namespaces.
        has_known_defects: Whether programs are known to have lost something in flists that are in use, which
            reading goes past (`Fault.is_read_past`).
        complete_entries: Whether a writer takes all attributes of a sub-directory with its parent's entries.
        recognizes: Whether a file or directory looks like an flist of this format.
        open: Opens an flist: a context manager, which owns temporary files. Raises FormatError.
        rewrite: Writes an flist anew, its records as they are; see `Rewrite`.
        writer: Starts an flist, in a directory for temporary files; takes all accesses of its nodes
            beforehand. A context manager.
    """

    name: str
    codec: Codec
    limits: Limits
    unrepresentable: frozenset[str]
    has_metadata: bool
    names_namespaces: bool
    has_known_defects: bool
    complete_entries: bool
    recognizes: Callable[[Path], bool]
    open: Callable[[Path], TreeReader]
    rewrite: Rewrite
    writer: Callable[[Path, Iterable[Access]], AbstractContextManager[TreeWriter]]
