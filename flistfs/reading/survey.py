"""What there is in an flist, all counted."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from flistfs.format.zeroos.records import BLOCK_SIZE_UNIT, File
from flistfs.reading.flist import Flist, Node
from flistfs.tree.node import Kind
from flistfs.util.progress import Progress, Report, quiet


@dataclass(frozen=True, slots=True, order=True)
class Owner:
    """Who owns entries: names and numbers; -1 where the flist has no number."""

    user: bytes
    group: bytes
    uid: int
    gid: int


@dataclass(slots=True)
class Survey:
    """Counts of everything. `size` is what files hold; `unique_size` is what of it has a block of its own.

    The root counts as a directory. `largest` are the largest files (size, path), the largest first.
    """

    kinds: Counter[Kind] = field(default_factory=Counter)
    size: int = 0
    blocks: int = 0
    unique_blocks: int = 0
    unique_size: int = 0
    owners: Counter[Owner] = field(default_factory=Counter)
    largest: list[tuple[int, bytes]] = field(default_factory=list)


def take_survey(flist: Flist, *, largest: int = 10, progress: Progress = quiet) -> Survey:
    """Walk an flist and count. Memory grows with its unique blocks: some 100 bytes each, 200 MB for 1 TB.

    Raises:
        FormatError: it is damaged.
    """
    survey = Survey()
    seen: set[bytes] = set()
    files = _count(flist, survey, seen, progress)
    survey.largest = heapq.nlargest(largest, files)
    deque(files, maxlen=0)  # of which the largest 0 are found without a look
    survey.unique_blocks = len(seen)
    progress(Report("structure", 1, 1))
    return survey


def _count(flist: Flist, survey: Survey, seen: set[bytes], progress: Progress) -> Iterator[tuple[int, bytes]]:
    root = flist.find(b"")
    _count_node(flist, survey, root)
    for node in flist.walk(root):
        _count_node(flist, survey, node)
        if node.kind is Kind.DIRECTORY:
            done = survey.kinds[Kind.DIRECTORY]
            progress(Report("structure", done, max(done, flist.estimated_records)))
        if isinstance(node.entry.attributes, File):
            _count_blocks(survey, seen, node.entry.attributes, node.size)
            yield node.size, node.path


def _count_node(flist: Flist, survey: Survey, node: Node) -> None:
    survey.kinds[node.kind] += 1
    aci = flist.aci(node)
    if aci is not None:
        survey.owners[Owner(aci.uname, aci.gname, aci.uid, aci.gid)] += 1


def _count_blocks(survey: Survey, seen: set[bytes], file: File, size: int) -> None:
    survey.size += size
    survey.blocks += len(file.blocks)
    for index, block in enumerate(file.blocks):
        # Half the memory of the hex digits; what is no hex is at fault, and counts as it is.
        name = _packed(block.hash)
        if name not in seen:
            seen.add(name)
            chunk_size = file.block_size * BLOCK_SIZE_UNIT
            survey.unique_size += max(0, min(chunk_size, size - index * chunk_size))


def _packed(name: bytes) -> bytes:
    try:
        return bytes.fromhex(name.decode())
    except ValueError:
        return name
