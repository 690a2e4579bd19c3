"""A file that is read once, from its start, in a thread that need not wait for ever: a pipe may be silent."""

from __future__ import annotations

import errno
import io
import os
import select
import stat


class InputFile(io.RawIOBase):
    """A file, a pipe, or standard input. One thread reads; `stop`, from any, ends a read that waits."""

    def __init__(self, path: str) -> None:
        """Open a path, or `-` for standard input. Raises OSError."""
        # A named pipe that nobody writes to is opened at once, and waited for when it is read.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        self._descriptor = os.dup(0) if path == "-" else os.open(path, flags)
        self._stopped = os.eventfd(0, os.EFD_CLOEXEC)
        self._ready = select.poll()
        self._ready.register(self._descriptor, select.POLLIN)
        self._ready.register(self._stopped, select.POLLIN)

    def stop(self) -> None:
        """Let every read end with an error from now on."""
        if not self.closed:
            os.eventfd_write(self._stopped, 1)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def seekable(self) -> bool:
        """Return whether it has a position."""
        return stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position."""
        return os.lseek(self._descriptor, offset, whence)

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read what is there, or wait until something is.

        Raises:
            InterruptedError: it was stopped.
            OSError: it cannot be read.
        """
        while True:
            if self._stopped in dict(self._ready.poll()):
                raise InterruptedError("reading was stopped")
            try:
                return os.readv(self._descriptor, [buffer])
            except BlockingIOError:
                continue  # somebody else has read it
            except OSError as error:
                if (
                    error.errno == errno.EBADF
                ):  # what takes the place of a closed descriptor is not for reading
                    raise OSError("it is closed") from None
                raise

    def close(self) -> None:
        """Close it."""
        if not self.closed:
            os.close(self._descriptor)
            os.close(self._stopped)
        super().close()
