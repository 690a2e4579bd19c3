"""What is there of an flist that has faults: a tree without any.

Other programs wrote flists that lack the records of large directories, or the ends of large files. What is
there of them is right, and often all that anybody has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from flistfs.errors import FormatError
from flistfs.format.base import Codec, Fault, TreeReader
from flistfs.format.faults import LostRecordError, damaged, node_fault
from flistfs.tree.names import place_fault
from flistfs.tree.node import Kind, Node, as_far_as_stored, walkable
from flistfs.tree.owners import id_fault

if TYPE_CHECKING:
    from flistfs.format.router import Router

MAX_MET: Final = 10_000
"""How many of the faults that were met are kept; all are counted."""


class _Wrapped(ABC):
    """A `TreeReader` that passes on what another answers; `close` closes it.

    Attributes:
        met: The faults that were met on the way, up to `MAX_MET`.
        count: How many were met.
    """

    def __init__(self, reader: TreeReader, codec: Codec) -> None:
        """Read what a reader reads, whose blocks are of that codec."""
        self.met: list[Fault] = []
        self.count = 0
        self._reader = reader
        self._codec = codec
        self._looked_at: set[bytes] = set()

    @property
    def metadata(self) -> Mapping[str, bytes]:
        """See `TreeReader`."""
        return self._reader.metadata

    @property
    def package_faults(self) -> Sequence[str]:
        """See `TreeReader`."""
        return self._reader.package_faults

    @property
    def estimated_directories(self) -> int:
        """See `TreeReader`."""
        return self._reader.estimated_directories

    def router(self) -> Router | None:
        """See `TreeReader`."""
        return self._reader.router()

    def files(self) -> Iterator[Node]:
        """Yield what is there of all files, by directory."""
        waiting = [b""]
        while waiting:
            path = waiting.pop()
            try:
                listing = self.listing(path) or ()
            except FormatError as error:
                raise damaged(path, error) from error
            yield from (node for node in listing if node.kind is Kind.FILE)
            waiting += reversed(walkable(path, listing))

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    @abstractmethod
    def listing(self, path: bytes) -> Sequence[Node] | None:
        """Return what is shown of the entries of a directory."""

    def _meet(self, path: bytes) -> None:
        """Note the faults of a directory, once."""
        if path in self._looked_at:
            return
        self._looked_at.add(path)
        found = self._faults_of(path)
        self.count += len(found)
        self.met += found[: MAX_MET - len(self.met)]

    @abstractmethod
    def _faults_of(self, path: bytes) -> Sequence[Fault]:
        """Return the faults of a directory that are met."""


class PastDefects(_Wrapped):
    """Reads past what the program that wrote an flist is known to have lost or mixed up in it.

    A directory whose record is lost is empty; a file ends with its last block. Of what it met, `met` says
    what readers make of it. All else that is wrong is an error here as in any other reader.
    """

    def directory(self, path: bytes) -> Node | None:
        """Return a directory; one whose record is lost as its parent's entry describes it."""
        try:
            return self._reader.directory(path)
        except LostRecordError:
            if not path:
                raise
            self._meet(path)
            entries = self._reader.listing(path.rpartition(b"/")[0]) or ()
            found = next((node for node in entries if node.path == path), None)
            return found and found._replace(whole=True)

    def listing(self, path: bytes) -> Sequence[Node] | None:
        """Return what is there of the entries of a directory."""
        self._meet(path)
        try:
            listing = self._reader.listing(path)
        except LostRecordError:
            if not path:
                raise
            return []
        return listing and [self._read(node) for node in listing]

    def faults(self, path: bytes) -> Iterator[Fault]:
        """See `TreeReader`."""
        return self._reader.faults(path)

    def read_past(self, path: bytes) -> Iterator[Fault]:
        """See `TreeReader`."""
        return self._reader.read_past(path)

    def _read(self, node: Node) -> Node:
        # A file without any block is not one that lost its end.
        return as_far_as_stored(node) if node.kind is Kind.FILE and node.blocks else node

    def _faults_of(self, path: bytes) -> Sequence[Fault]:
        try:
            return list(self._reader.read_past(path))
        except FormatError:
            return ()  # an error of listing it


class AroundDefects(PastDefects):
    """Reads around what the program that wrote an flist lost: just that is an error where it is read.

    So it is for who looks through a mount, whom no exit code tells that something is left out.
    """

    def listing(self, path: bytes) -> Sequence[Node] | None:
        """Return the entries of a directory; raises `LostRecordError` as well."""
        return self._reader.listing(path)


class MendedReader(_Wrapped):
    """A `TreeReader` of what is there of another's tree.

    A directory whose record is lost or damaged is empty; a file ends with its last block; what has no place
    in a tree, or nothing by which it could be shown, is left out.
    """

    def read_past(self, path: bytes) -> Iterator[Fault]:
        """Yield nothing: see `faults`."""
        return self.faults(path)

    def faults(self, path: bytes) -> Iterator[Fault]:  # noqa: ARG002  a TreeReader's signature
        """Yield nothing: what is left has no faults."""
        return iter(())

    def directory(self, path: bytes) -> Node | None:
        """Return a directory; one without a record of its own as its parent's entry describes it."""
        try:
            found = self._reader.directory(path)
        except FormatError:
            if not path:
                raise
            found = None
        if found is not None and _is_shown(found):
            return found
        parent = path.rpartition(b"/")[0]
        entries = self.listing(parent) if path else ()
        return next((node for node in entries or () if node.path == path and node.whole), None)

    def listing(self, path: bytes) -> list[Node] | None:
        """Return what is there of the entries of a directory."""
        self._meet(path)
        try:
            listing = self._reader.listing(path)
        except FormatError:
            if not path:
                raise
            return []
        if listing is None:
            return [] if path else None
        mended: dict[bytes, Node] = {}
        start = len(path) + 1 if path else 0
        for node in listing:
            if node.path in mended or place_fault(node.path, node.path[start:]) is not None:
                continue
            if (kept := self._mended(node)) is not None:
                mended[node.path] = kept
        return list(mended.values())

    def _faults_of(self, path: bytes) -> Sequence[Fault]:
        try:
            return list(dict.fromkeys(self._reader.faults(path)))
        except FormatError as error:
            return [Fault(path, str(error))]

    def _mended(self, node: Node) -> Node | None:
        """Return what is there of an entry; None if nothing is."""
        if node.kind is Kind.DIRECTORY:
            return self._mended_directory(node)
        if node.kind is Kind.FILE and node.chunk_size:
            node = as_far_as_stored(node)
            wanted = -(-node.size // node.chunk_size)
            node = node._replace(blocks=node.blocks[:wanted])
        return node if _is_shown(node) and node_fault(node, self._codec) is None else None

    def _mended_directory(self, node: Node) -> Node | None:
        try:
            own = self._reader.directory(node.path)
        except FormatError:
            own = None
        if own is not None and _is_shown(own):
            return node
        return node._replace(whole=True) if _is_shown(node) else None


def _is_shown(node: Node) -> bool:
    return node.access is not None and id_fault(node.access) is None
