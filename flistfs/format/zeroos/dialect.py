"""In what the records of generations 1 and 2 differ, their schema being the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
        without_directory: What 0-fs makes of an entry whose directory is missing, or that has no attributes.
    """

    keys: Keys
    block_bytes: int
    max_file_size: int
    complete_entries: bool
    root_first: bool
    specials_last: bool
    byte_ranges: bool
    without_directory: str


GENERATION_1: Final = Dialect(
    keys=KEYS_1,
    block_bytes=144,  # a struct of two pointers, and two times 64 hex digits
    max_file_size=MAX_FILE_SIZE,
    complete_entries=False,
    root_first=False,
    specials_last=False,
    byte_ranges=False,
    without_directory="the whole flist cannot be mounted",
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
    without_directory="listing its parent crashes the mount",
)
"""Generation 2, so that 0-fs, rfs 1.x and zflist all read it."""
