"""Who has a session to itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that took a session last and did not end cleanly: it has it, or died.

    `command` is what it is, for a session without a mount; empty for a mount's daemon.
    """

    pid: int
    command: str = ""

    def __str__(self) -> str:
        """Return how a message names it."""
        return f"{self.command} (process {self.pid})" if self.command else f"process {self.pid}"


class Lock:
    """The lock of a session directory; its file names the process that holds it.

    It belongs to the open file, so that it can be handed to a child process without a gap.
    """

    def __init__(self, descriptor: int, command: str = "") -> None:
        """Hold the lock of an open and locked file, in the name of this process (see `Holder`)."""
        self.descriptor = descriptor
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n{command}".strip().encode(), 0)

    def release(self) -> None:
        """Let go after a clean end: nobody is named any more."""
        os.ftruncate(self.descriptor, 0)
        os.close(self.descriptor)

    @contextmanager
    def released_on_error(self) -> Iterator[None]:
        """Let go if a block fails whose success hands the lock to somebody else."""
        try:
            yield
        except BaseException:
            self.release()
            raise
