"""Verify an flist: its records, and that the store has every block, optionally with the right content.

Two walks: the first looks for faults of the records and counts blocks, the second queries the store. So the
length of the second is known beforehand, and the store is never queried for an invalid hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, TypeAlias

from flistfs.errors import BlockCorruptError, FormatError, StoreError, StoreUnavailableError
from flistfs.format.base import Block, Codec, Fault
from flistfs.format.faults import node_fault
from flistfs.reading.content import Piece, ahead, pieces
from flistfs.reading.flist import Flist
from flistfs.reading.repair import Supply, Wanted
from flistfs.stores import Store
from flistfs.tree.chunks import BlockRef
from flistfs.tree.node import Kind
from flistfs.util.progress import Progress, Report, quiet

# Block references per batch.
_BATCH: Final = 4096

ROUTER: Final = b"router.yaml"
"""Replaces the path of a fault in the package's router."""

_UNKNOWN: Final = -1

# The outcome for a block: the bytes of its chunk (_UNKNOWN if it was not fetched), or its fault.
_Outcome: TypeAlias = int | str


@dataclass(slots=True)
class Verified:
    """What was checked, and the faults found.

    Directories whose records cannot be read count as well; blocks that the store was asked for count once.
    Repaired blocks do not count as faults.
    """

    directories: int = 0
    files: int = 0
    blocks: int = 0
    faults: list[Fault] = field(default_factory=list)
    repaired: int = 0


def verify(
    flist: Flist,
    store: Store | None,
    *,
    deep: bool = False,
    supply: Supply | None = None,
    progress: Progress = quiet,
) -> Verified:
    """Find all faults of an flist.

    Without a store only its records are checked; with one, also that it has every block; `deep` fetches,
    decrypts and checks each copy of each block once. With a supply, it is deep, and valid blocks from there
    replace those that are corrupt or missing in the store. Memory grows with the number of distinct blocks:
    some 200 bytes each, 400 MB for 1 TB.

    Raises:
        StoreError: the store cannot be reached.
    """
    report = Verified(faults=list(_package_faults(flist)))
    total = 0
    for path, listing in flist.directories():
        report.directories += 1
        estimated = max(report.directories, flist.estimated_directories)
        progress(Report("structure", report.directories, estimated))
        report.faults += flist.faults(path)
        if isinstance(listing, FormatError):
            continue
        counts = [len(node.blocks) for node in listing if node.kind is Kind.FILE]
        report.files += len(counts)
        total += sum(counts)
    progress(Report("structure", 1, 1))
    if store is not None:
        blocks = _Blocks(store, deep=deep or supply is not None, entire=supply is not None)
        broken = list(_broken(flist, blocks, supply, total, progress))
        if supply is not None:
            left = {wanted.ref: wanted for wanted in broken if blocks.is_broken(wanted.ref)}
            blocks.repair_from(supply.search(left.values()))
        for wanted in broken:
            if (fault := blocks.fault(wanted.piece)) is not None:
                report.faults.append(Fault(wanted.path, fault))
        report.blocks = blocks.count
        report.repaired = blocks.repaired
        if blocks.repaired:
            store.sync()
    return report


def _package_faults(flist: Flist) -> Iterator[Fault]:
    """Yield what makes readers reject the package, because of its packing or its router."""
    yield from (Fault(b"", what) for what in flist.package_faults)
    try:
        flist.router()
    except FormatError as error:
        yield Fault(ROUTER, str(error))


def _broken(
    flist: Flist, blocks: _Blocks, supply: Supply | None, total: int, progress: Progress
) -> Iterator[Wanted]:
    """Yield the chunks that have faults and cannot be repaired immediately."""
    references = _references(flist)
    done = 0
    while batch := list(islice(references, _BATCH)):
        progress(Report("verify", done, total))
        blocks.check([reference.ref for reference in batch])
        for reference in batch:
            if supply is not None and blocks.is_broken(reference.ref):
                found = supply.at_once(reference)
                blocks.repair_from([] if found is None else [found])
            if blocks.fault(reference.piece) is not None:
                yield reference
        done += len(batch)
    progress(Report("verify", total, total))


def _references(flist: Flist) -> Iterator[Wanted]:
    """Yield the chunks of all files whose records have no faults."""
    for _, listing in flist.directories():
        if isinstance(listing, FormatError):
            continue
        for node in listing:
            if node.kind is Kind.FILE and node_fault(node, flist.codec) is None:
                yield from (Wanted(node.path, piece) for piece in pieces(node, flist.codec))


class _Blocks:
    """The outcomes of blocks; each is queried once."""

    def __init__(self, store: Store, *, deep: bool, entire: bool) -> None:
        """Query a store; if `entire`, a block that any of its servers lacks is missing."""
        self.repaired = 0
        self._store = store
        self._entire = entire
        self._deep = deep
        self._outcomes: dict[bytes, _Outcome] = {}

    @property
    def count(self) -> int:
        return len(self._outcomes)

    def check(self, refs: Sequence[BlockRef]) -> None:
        """Check the blocks that have no outcome yet."""
        new = list({self._name(ref): ref for ref in refs if self._name(ref) not in self._outcomes}.values())
        outcomes = ahead(self._fetched, new) if self._deep else self._asked(new)
        for ref, outcome in zip(new, outcomes, strict=True):
            self._outcomes[self._name(ref)] = outcome
        if self._entire and new:
            absent = self._store.missing([ref.hash for ref in new])
            self._outcomes.update(
                (self._name(ref), _missing(ref, self._store.codec)) for ref in new if ref.hash in absent
            )

    def is_broken(self, ref: BlockRef) -> bool:
        """Return whether a block is missing or corrupt."""
        return isinstance(self._outcomes[self._name(ref)], str)

    def repair_from(self, blocks: Iterable[Block]) -> None:
        """Store valid blocks, and check that they have arrived."""
        for block in blocks:
            self._store.put([block])
            outcome = self._outcomes[self._name(block.ref)] = self._fetched(block.ref)
            self.repaired += not isinstance(outcome, str)

    def fault(self, piece: Piece) -> str | None:
        """Return what is wrong with the block of a chunk, as far as it has been checked."""
        outcome = self._outcomes[self._name(piece.ref)]
        if isinstance(outcome, str):
            return outcome
        if outcome not in {_UNKNOWN, piece.length}:
            shown = self._store.codec.show(piece.ref.hash)
            return f"block {shown} has {outcome} bytes instead of {piece.length}"
        return None

    def _name(self, ref: BlockRef) -> bytes:
        # The key matters only if the block is decoded with it.
        codec = self._store.codec
        return codec.compact(ref.hash) + (codec.compact(ref.key) if self._deep else b"")

    def _asked(self, refs: Sequence[BlockRef]) -> Iterator[_Outcome]:
        missing = self._store.missing([ref.hash for ref in refs])
        return (_missing(ref, self._store.codec) if ref.hash in missing else _UNKNOWN for ref in refs)

    def _fetched(self, ref: BlockRef) -> _Outcome:
        try:
            lengths = [len(self._store.codec.decode(stored, ref)) for stored in self._store.copies(ref.hash)]
        except BlockCorruptError as error:
            return str(error)
        except StoreUnavailableError:
            raise
        except StoreError as error:
            self._store.missing(
                [self._store.codec.no_block]
            )  # raises where it is the store that cannot be asked
            return f"block {self._store.codec.show(ref.hash)} cannot be read: {error}"
        return lengths[0] if lengths else _missing(ref, self._store.codec)


def _missing(ref: BlockRef, codec: Codec) -> str:
    return f"block {codec.show(ref.hash)} is not in the store"
