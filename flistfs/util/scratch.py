"""Temporary directories. Those left by killed processes are removed by the same user's next process."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

from flistfs.errors import OutputError
from flistfs.util.closing import Closing

_PREFIX: Final = "flistfs-scratch-"

# A file in a temporary directory that names a file elsewhere, to be removed with it.
_ELSEWHERE: Final = "elsewhere.json"


class Scratch(Closing):
    """A new directory in the system's temporary directory, private to this user.

    It is locked as long as its process lives, so that the next process can detect abandoned directories.
    (A process id would not do: they are reused.)
    """

    def __init__(self) -> None:
        """Create and lock the directory; raises OutputError if that fails."""
        try:
            _sweep(tempfile.gettempdir())
            self.path, lock = _made()
        except OSError as error:
            raise OutputError(f"cannot create a temporary directory: {error.strerror}; see TMPDIR") from error
        self._remove = weakref.finalize(self, _remove, self.path, lock)

    def close(self) -> None:
        """Remove the directory and its content."""
        self._remove()

    def note(self, file: Path, descriptor: int) -> None:
        """Register an open file elsewhere, to be removed if this process is killed, but not on `close`."""
        status = os.fstat(descriptor)
        note = {"path": os.fspath(file), "device": status.st_dev, "inode": status.st_ino}
        (self.path / _ELSEWHERE).write_text(json.dumps(note))


def _made() -> tuple[Path, int]:
    while True:
        path = tempfile.mkdtemp(prefix=_PREFIX)
        with suppress(FileNotFoundError):  # removed by another process before it was locked
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.fstat(lock).st_nlink:
                return Path(path), lock
            os.close(lock)


def _remove(path: Path, lock: int) -> None:
    shutil.rmtree(path, ignore_errors=True)
    os.close(lock)


@cache
def _sweep(directory: str) -> None:
    """Remove the temporary directories left by this user's killed processes; never fails."""
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX):
                with suppress(OSError), _abandoned(entry.path) as descriptor:
                    _remove_elsewhere(descriptor)
                    shutil.rmtree(entry.path, ignore_errors=True)


@contextmanager
def _abandoned(path: str) -> Iterator[int]:
    """Open a directory of this user that no process has locked.

    Raises:
        OSError: it is not such a directory; links are not followed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def _remove_elsewhere(directory: int) -> None:
    """Remove the file elsewhere that a temporary directory names, if it is still the same file."""
    with suppress(OSError, ValueError, KeyError):
        descriptor = os.open(_ELSEWHERE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        with os.fdopen(descriptor) as file:
            note = json.load(file)
        status = os.lstat(note["path"])
        if stat.S_ISREG(status.st_mode) and [status.st_dev, status.st_ino] == [note["device"], note["inode"]]:
            Path(note["path"]).unlink()
