"""Slots of one chunk each in one sparse file, for chunks that are not stored yet and for recent ones.

A slot keeps the bytes last written to it, by whichever chunk: a newly allocated slot may hold another
chunk's bytes, and bytes past a chunk's end are undefined. Callers that need zeros call `zero`. Writing a file
sequentially therefore costs one `pwrite` per write and nothing else.

Allocation belongs to one thread; encoders in other processes read the file too.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from flistfs.errors import JournalError
from flistfs.tree.chunks import CHUNK_SIZE

log = logging.getLogger(__name__)

# linux/falloc.h: punch a hole and keep the file's size.
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02

# Freed slots that keep their disk space and are reused first: a small file's slot is overwritten without the
# file system having to free and allocate space (at most 32 MiB of disk).
_WARM_SLOTS = 64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Spool:
    """The spool of a session; `used` of its slots are taken."""

    def __init__(self, path: Path, used: Iterable[int] = ()) -> None:
        """Open or create the spool file; the slots in `used` are taken, all others are freed.

        Raises:
            JournalError: the file is missing, and with it the content of the slots.
            OSError: the file cannot be opened.
        """
        used = set(used)
        if used and not path.exists():
            raise JournalError(
                f"the session is damaged: {path} is missing, with {len(used)} chunks that were not stored yet"
            )
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end = max(used, default=-1) + 1
        os.ftruncate(self._fd, self._end * CHUNK_SIZE)
        self._warm: list[int] = []
        self._cold = [slot for slot in range(self._end - 1, -1, -1) if slot not in used]
        for slot in self._cold:
            self._punch(slot, 0, CHUNK_SIZE)

    def fileno(self) -> int:
        """Return the file's descriptor, for encoders; slot N begins at N * CHUNK_SIZE."""
        return self._fd

    def allocate(self) -> int:
        """Allocate a slot; its bytes are undefined."""
        if self._warm:
            return self._warm.pop()
        if self._cold:
            return self._cold.pop()
        self._end += 1
        return self._end - 1

    def free(self, slot: int) -> None:
        """Free a slot; its disk space is released later."""
        self._warm.append(slot)
        if len(self._warm) > _WARM_SLOTS:
            self._cool(self._warm.pop(0))

    def give_back(self) -> None:
        """Release the disk space of all freed slots now."""
        while self._warm:
            self._cool(self._warm.pop())

    def _cool(self, slot: int) -> None:
        """Release a free slot's disk space; if that fails, the slot is still free and only uses disk."""
        try:
            self._punch(slot, 0, CHUNK_SIZE)
        except OSError as error:
            log.warning("the disk space of a free slot cannot be released: %s", error)
        self._cold.append(slot)

    def write(self, slot: int, offset: int, data: bytes | memoryview) -> None:
        """Write `data` into the slot at `offset` (bytes from its start).

        Raises:
            OSError: the disk is full (ENOSPC) or failing; part of the data may be written.
        """
        position = slot * CHUNK_SIZE + offset
        written = os.pwrite(self._fd, data, position)
        if written == len(data):
            return
        rest = memoryview(data)[written:]
        while rest:
            written = os.pwrite(self._fd, rest, position + len(data) - len(rest))
            rest = rest[written:]

    def read(self, slot: int, offset: int, length: int) -> bytes:
        """Read `length` bytes of the slot from `offset`; bytes never written read as zeros."""
        data = os.pread(self._fd, length, slot * CHUNK_SIZE + offset)
        return data if len(data) == length else data.ljust(length, b"\0")

    def zero(self, slot: int, start: int, end: int) -> None:
        """Make the slot's bytes from `start` to `end` read as zeros, without using disk space."""
        if start < end:
            self._punch(slot, start, end - start)

    def sync(self) -> None:
        """Make all writes survive a power cut (blocks)."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file without removing it."""
        os.close(self._fd)

    def _punch(self, slot: int, offset: int, length: int) -> None:
        mode = _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE
        position = slot * CHUNK_SIZE + offset
        if _libc.fallocate(self._fd, mode, position, length) == 0:
            return
        number = ctypes.get_errno()
        if number != errno.EOPNOTSUPP:
            raise OSError(number, os.strerror(number))
        self.write(slot, offset, bytes(length))  # a file system without holes
