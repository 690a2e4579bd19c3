"""Slots of one chunk each in one sparse file, for chunks that are not stored yet and for recent ones.

A slot's bytes are what was last written to them, by whichever chunk: a slot that is allocated anew may hold
another chunk's bytes, and what lies behind a chunk's end is undefined. Who needs zeros asks for them
(`zero`). So a file that is written from its start to its end costs one `pwrite` a write and nothing else.

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

# linux/falloc.h: make a hole, and leave the file's size as it is.
_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02

# Freed slots that keep their disk space, to be used again first: a small file's slot is written over
# without the file system having to free and find space (at most 32 MiB of disk).
_WARM_SLOTS = 64

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class Spool:
    """The spool of a session; `used` of its slots are taken."""

    def __init__(self, path: Path, used: Iterable[int] = ()) -> None:
        """Open the spool file, or make it; the slots in `used` are taken, all others are freed.

        Raises:
            JournalError: the file is gone, and with it what the slots held.
            OSError: the file cannot be opened.
        """
        used = set(used)
        if used and not path.exists():
            raise JournalError(
                f"the session is damaged: {path} is gone, with {len(used)} chunks that were not stored yet"
            )
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end = max(used, default=-1) + 1
        os.ftruncate(self._fd, self._end * CHUNK_SIZE)
        self._warm: list[int] = []
        self._cold = [slot for slot in range(self._end - 1, -1, -1) if slot not in used]
        for slot in self._cold:
            self._punch(slot, 0, CHUNK_SIZE)

    def fileno(self) -> int:
        """Return the file's descriptor, by which encoders read it: slot N begins at N * CHUNK_SIZE."""
        return self._fd

    def allocate(self) -> int:
        """Take a slot; its bytes are undefined."""
        if self._warm:
            return self._warm.pop()
        if self._cold:
            return self._cold.pop()
        self._end += 1
        return self._end - 1

    def free(self, slot: int) -> None:
        """Give a slot back, and its disk space soon."""
        self._warm.append(slot)
        if len(self._warm) > _WARM_SLOTS:
            self._cool(self._warm.pop(0))

    def give_back(self) -> None:
        """Give the disk space of all freed slots back now."""
        while self._warm:
            self._cool(self._warm.pop())

    def _cool(self, slot: int) -> None:
        """Give a free slot's disk space back; where that fails the slot is as free, and only costs more."""
        try:
            self._punch(slot, 0, CHUNK_SIZE)
        except OSError as error:
            log.warning("the disk space of a free slot cannot be given back: %s", error)
        self._cold.append(slot)

    def write(self, slot: int, offset: int, data: bytes | memoryview) -> None:
        """Write `data` into the slot at `offset` (bytes from its start).

        Raises:
            OSError: the disk is full (ENOSPC) or broken; part of it may be written.
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
        """Read `length` bytes of the slot from `offset` on; what was never written reads as zeros."""
        data = os.pread(self._fd, length, slot * CHUNK_SIZE + offset)
        return data if len(data) == length else data.ljust(length, b"\0")

    def zero(self, slot: int, start: int, end: int) -> None:
        """Let the slot's bytes from `start` up to `end` read as zeros, without using disk for it."""
        if start < end:
            self._punch(slot, start, end - start)

    def sync(self) -> None:
        """Make what was written survive a power cut (blocks)."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the file; it stays."""
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
