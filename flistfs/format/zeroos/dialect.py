"""In what the records of generations 1 and 2 differ, their schema being the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from flistfs.format.faults import Defect
from flistfs.format.zeroos.keys import GENERATION_1 as KEYS_1
from flistfs.format.zeroos.keys import GENERATION_2 as KEYS_2
from flistfs.format.zeroos.keys import Keys
from flistfs.format.zeroos.limits import MAX_FILE_SIZE


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a generation fills its records in.

    Attributes:
        keys: What they are called.
        block_bytes: How many bytes of a record a block takes.
        max_file_size: How many bytes a file may have, holes included.
        complete_entries: Whether the entry of a sub-directory has size, owner, mode and times too, as the
            directory's own record does. zflist crashes without, and rfs 1.x takes them from there.
        root_first: Whether the root's record comes before all others, and names itself as its parent: rfs 1.x
            takes the record's row for its inode, and lists no directory whose parent is not there.
        specials_last: Whether special files come last in a directory: rfs 1.x counts them in the numbers of
            inodes but does not list them, so that every file behind one reads as its neighbour.
        byte_ranges: Whether readers take the ranges of a router in whole bytes.
        consequences: What readers make of what is wrong, as far as that is known.
        read_past: What a program is known to have lost or mixed up in flists that are in use: reading goes on
            with what is there.
    """

    keys: Keys
    block_bytes: int
    max_file_size: int
    complete_entries: bool
    root_first: bool
    specials_last: bool
    byte_ranges: bool
    consequences: Mapping[Defect, str]
    read_past: frozenset[Defect]


# Tried with 0-fs of 2017 and of 2018, which make the same of all these.
_CONSEQUENCES_1: Final = {
    Defect.NO_BLOCK_SIZE: "reading it never ends",
    Defect.NO_BLOCKS: "reading it never ends",
    Defect.NO_HASH: "the whole flist cannot be mounted",
    Defect.INVALID_REFERENCE: "reading it never ends",
    Defect.NO_ATTRIBUTES: "the whole flist cannot be mounted",
    Defect.NO_DIRECTORY: "the whole flist cannot be mounted",
    Defect.LARGE_RECORD: "listing its parent crashes the mount",
    Defect.OTHER_NAME: "its parent cannot be listed",
    Defect.INVALID_NAME: "its parent cannot be listed",
    Defect.NO_ACCESS: "readers show mode 0400",
}

# Tried with 0-fs of 2023 and zflist 2.3; what is said of rfs 1.x is read from its source.
_CONSEQUENCES_2: Final = {
    Defect.NO_BLOCK_SIZE: "0-fs cannot read it",
    Defect.NO_BLOCKS: "0-fs cannot read it",
    Defect.TOO_FEW_BLOCKS: "0-fs reads what there is, and shows the full size",
    Defect.TOO_MANY_BLOCKS: "0-fs reads no more than its size",
    Defect.NO_HASH: "opening it crashes 0-fs",
    Defect.INVALID_REFERENCE: "0-fs cannot read it, and rfs 1.x never answers",
    Defect.NO_ATTRIBUTES: "listing its parent crashes 0-fs",
    Defect.NO_DIRECTORY: "listing its parent crashes 0-fs",
    Defect.LARGE_RECORD: "listing its parent crashes 0-fs",
    Defect.OTHER_NAME: "0-fs lists it by that name",
    Defect.INVALID_NAME: "0-fs cannot list its parent",
    Defect.NO_ACCESS: "0-fs shows mode 0400, and zflist crashes",
    Defect.LOST_RECORD: "listing its parent crashes 0-fs",
    Defect.DEVICE_AS_SOCKET: "readers show a socket, or nothing",
    Defect.TWO_ACCESSES: "0-fs shows those of the record, others those of the entry",
    Defect.SHARED_ACCESS: "readers show the mode that was stored first",
    Defect.BEHIND_SPECIAL: "rfs 1.x reads each of them as its neighbour",
}

GENERATION_1: Final = Dialect(
    keys=KEYS_1,
    block_bytes=144,  # a struct of two pointers, and two times 64 hex digits
    max_file_size=MAX_FILE_SIZE,
    complete_entries=False,
    root_first=False,
    specials_last=False,
    byte_ranges=False,
    consequences=MappingProxyType(_CONSEQUENCES_1),
    read_past=frozenset(),
)
"""Generation 1, as the writers of 2017 filled it in."""

GENERATION_2: Final = Dialect(
    keys=KEYS_2,
    block_bytes=48,  # a struct of two pointers, and two times 16 bytes
    # 64 bytes a chunk, with what a pointer into another segment of the message takes, fill a record.
    max_file_size=495 << 30,
    complete_entries=True,
    root_first=True,
    specials_last=True,
    byte_ranges=True,
    consequences=MappingProxyType(_CONSEQUENCES_2),
    read_past=frozenset(
        {  # all of them zflist's
            Defect.TOO_FEW_BLOCKS,
            Defect.LOST_RECORD,
            Defect.DEVICE_AS_SOCKET,
            Defect.TWO_ACCESSES,
            Defect.SHARED_ACCESS,
        }
    ),
)
"""Generation 2, so that 0-fs, rfs 1.x and zflist all read it."""
