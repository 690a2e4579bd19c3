"""A file that is read once, in a thread whose reads can be interrupted: a pipe may be silent."""

from __future__ import annotations

import errno
import io
import os
import select
import stat


class InputFile(io.RawIOBase):
    """A file, a pipe, or standard input. One thread reads; `stop`, from any thread, ends a blocked read."""

    def __init__(self, path: str, start: bytes = b"") -> None:
        """Open a path, or `-` for standard input; `start` comes first. Raises OSError."""
        self._start = start
        # A named pipe without a writer is opened at once; reading waits for the writer.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        self._descriptor = os.dup(0) if path == "-" else os.open(path, flags)
        self._stopped = os.eventfd(0, os.EFD_CLOEXEC)
        self._ready = select.poll()
        self._ready.register(self._descriptor, select.POLLIN)
        self._ready.register(self._stopped, select.POLLIN)

    @property
    def has_start(self) -> bool:
        """Whether something comes before what is in the file."""
        return bool(self._start)

    def stop(self) -> None:
        """Make every read fail from now on."""
        if not self.closed:
            os.eventfd_write(self._stopped, 1)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return whether it is seekable."""
        return stat.S_ISREG(os.fstat(self._descriptor).st_mode)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Change the position."""
        return os.lseek(self._descriptor, offset, whence)

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Read what is available, or wait until something is.

        Raises:
            InterruptedError: it was stopped.
            OSError: it cannot be read.
        """
        if self._start:
            size = min(len(buffer), len(self._start))
            buffer[:size] = self._start[:size]
            self._start = self._start[size:]
            return size
        while True:
            if self._stopped in dict(self._ready.poll()):
                raise InterruptedError("reading was stopped")
            try:
                return os.readv(self._descriptor, [buffer])
            except BlockingIOError:
                continue  # another process has read it
            except OSError as error:
                if error.errno == errno.EBADF:  # the descriptor may have been reused for another file
                    raise OSError("it is closed") from None
                raise

    def close(self) -> None:
        """Close it."""
        if not self.closed:
            os.close(self._descriptor)
            os.close(self._stopped)
        super().close()
