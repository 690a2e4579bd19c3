"""The lock that gives one process exclusive use of a session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that locked a session last and did not release it: it holds it, or died.

    `command` is the command that runs without a mount; empty for a mount's daemon.
    """

    pid: int
    command: str = ""

    def __str__(self) -> str:
        """Return the process's description for messages."""
        return f"{self.command} (process {self.pid})" if self.command else f"process {self.pid}"


class Lock:
    """The lock of a session directory; its file names the process that holds it.

    The lock belongs to the open file description (flock), so a child process can inherit it without a gap.
    """

    def __init__(self, descriptor: int, command: str = "") -> None:
        """Hold the lock of an open and locked file and write this process into it (see `Holder`)."""
        self.descriptor = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n{command}".strip().encode(), 0)

    def release(self) -> None:
        """Release the lock and clear the holder's name."""
        os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)

    @contextmanager
    def released_on_error(self) -> Iterator[None]:
        """Release the lock if the block fails; on success the block has handed it on."""
        try:
            yield
        except BaseException:
            self.release()
            raise
