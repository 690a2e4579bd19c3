"""Limits of directories and files within which every reader can read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from flistfs.errors import OutputError
from flistfs.format.zeroos.records import Entry, File, Link, Special, SubDirectory

READERS_LIMIT: Final = 64 << 20
"""Bytes of a directory's record from which every 0-fs crashes when its parent is listed: its decoder's limit.

Tested: a record of 65,536,360 bytes was read, one of 68,157,800 was not.
"""

MAX_RECORD: Final = 62 << 20
"""The maximum bytes of a directory's record here: less than the size that was tested."""

MAX_FILE_SIZE: Final = 198 << 30
"""The maximum bytes of a file, holes included: at 160 bytes per chunk a record is full but for 128 KiB."""

# What a record holds, in bytes: an entry's own struct, and the structs of what it is. A pointer into another
# segment of the message takes 8 more: 16 a block in a large one.
_ENTRY, _FILE, _DIRECTORY, _LINK, _SPECIAL, _LIST = 48, 16, 8, 8, 16, 8


def entries_size(entries: Iterable[Entry], block_bytes: int) -> int:
    """Return how many bytes entries take in a directory's record at least; up to a third comes on top.

    `block_bytes` is what a block takes.
    """
    return sum(_entry_size(entry, block_bytes) for entry in entries)


def _entry_size(entry: Entry, block_bytes: int) -> int:
    size = _ENTRY + _text(entry.name) + _text(entry.aclkey)
    match entry.attributes:
        case File(blocks):
            return size + _FILE + (_LIST + block_bytes * len(blocks) if blocks else 0)
        case SubDirectory(key):
            return size + _DIRECTORY + _text(key)
        case Link(target):
            return size + _LINK + _text(target)
        case Special(_, data):
            return size + _SPECIAL + -(-len(data) // 8) * 8
    return size


def _text(value: bytes) -> int:
    """Return the size of a text, which ends with a NUL and is padded to whole words."""
    return (len(value) // 8 + 1) * 8 if value else 0


def check_record(name: str, size: int, max_file_size: int) -> None:
    """Refuse a directory, shown as `name`, whose record would have `size` bytes, if those are too many.

    A single file of `max_file_size` bytes fills a record.

    Raises:
        OutputError: it is; the message says what to do.
    """
    if size > MAX_RECORD:
        raise OutputError(
            f"the directory {name} of the tree is too large for an flist: readers crash on records of more "
            f"than {MAX_RECORD >> 20} MiB, which {max_file_size >> 30} GiB of content need, or some 200,000 "
            f"small files; spread it over several directories, or leave something out"
        )
