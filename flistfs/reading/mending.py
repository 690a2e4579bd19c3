"""What is there of an flist that has faults: a tree without any.

Other programs wrote flists that lack the records of large directories, or the ends of large files. What is
there of them is right, and often all that anybody has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from flistfs.errors import FormatError
from flistfs.format.base import Codec, Fault, TreeReader
from flistfs.format.faults import node_fault
from flistfs.tree.names import place_fault
from flistfs.tree.node import Kind, Node
from flistfs.tree.owners import id_fault

if TYPE_CHECKING:
    from flistfs.format.router import Router


class MendedReader:
    """A `TreeReader` of what is there of another's tree.

    A directory whose record is lost or damaged is empty; a file ends with its last block; what has no place
    in a tree, or nothing by which it could be shown, is left out. `accepted_faults` counts the faults that
    were met on the way.
    """

    def __init__(self, reader: TreeReader, codec: Codec) -> None:
        """Mend what a reader reads; `close` closes it."""
        self.accepted_faults = 0
        self._reader = reader
        self._codec = codec
        self._met: set[bytes] = set()  # directories whose faults are known

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

    def files(self) -> Iterator[Node]:
        """Yield what is there of all files, by directory."""
        waiting = [b""]
        while waiting:
            listing = self.listing(waiting.pop()) or ()
            yield from (node for node in listing if node.kind is Kind.FILE)
            waiting += [node.path for node in reversed(listing) if node.kind is Kind.DIRECTORY]

    def close(self) -> None:
        """Close the reader."""
        self._reader.close()

    def _mended(self, node: Node) -> Node | None:
        """Return what is there of an entry; None if nothing is."""
        if node.kind is Kind.DIRECTORY:
            return self._mended_directory(node)
        if node.kind is Kind.FILE and node.chunk_size:
            node = node._replace(size=min(node.size, len(node.blocks) * node.chunk_size))
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

    def _meet(self, path: bytes) -> None:
        if path in self._met:
            return
        self._met.add(path)
        try:
            self.accepted_faults += len(set(self._reader.faults(path)))
        except FormatError:
            self.accepted_faults += 1


def _is_shown(node: Node) -> bool:
    return node.access is not None and id_fault(node.access) is None
