"""Standard input, output and error as commands need them: there, and with errors that say what is wrong."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from flistfs.errors import OutputError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# What a descriptor that is closed is opened for: the wrong way, so that its use fails as it should. Nobody is
# there to read what goes to standard error.
_CLOSED = {0: os.O_WRONLY, 1: os.O_RDONLY, 2: os.O_WRONLY}


class OutputClosedError(Exception):
    """Standard output is a pipe that was closed at its other end."""


def prepare() -> None:
    """Prepare the standard streams of this process.

    A descriptor that is closed is taken, or the next file that is opened would be it. Names that the locale
    has no letters for are escaped on the way out. A full disk behind standard output raises OutputError, and
    a closed pipe OutputClosedError, wherever something is printed; what cannot be said on standard error ends
    nothing.
    """
    for descriptor, flags in _CLOSED.items():
        if not _is_open(descriptor):
            os.set_inheritable(os.open(os.devnull, flags), True)
    if sys.stdin is None:
        sys.stdin = io.StringIO()
    sys.stdout = _text(_Output(1, "w", closefd=False), sys.stdout)
    sys.stderr = _text(_Complaints(2, "w", closefd=False), sys.stderr)


def on_one_line(text: str) -> str:
    """Return a text that may hold names of strangers in a form that is safe on a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _text(raw: io.FileIO, before: TextIO | None) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=None if before is None else before.encoding,
        errors="backslashreplace",
        line_buffering=raw.isatty(),
    )


class _Output(io.FileIO):
    """Standard output. A loss is reported once: what is written at exit must not report it again."""

    _is_lost = False

    def write(self, data: ReadableBuffer, /) -> int:
        if not self._is_lost:
            try:
                return super().write(data)
            except OSError as error:
                self._is_lost = True
                if error.errno == errno.EPIPE:
                    raise OutputClosedError from None
                reason = "it is closed" if error.errno == errno.EBADF else error.strerror
                raise OutputError(f"standard output cannot be written: {reason}") from None
        return memoryview(data).nbytes


class _Complaints(io.FileIO):
    """Standard error, which loses what it cannot write."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes
