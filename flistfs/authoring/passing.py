"""The directories of sessions that live as long as one command, or until the same command comes again."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from flistfs.authoring.new_session import new_settings
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import packing_root
from flistfs.authoring.state.lock import Lock
from flistfs.errors import BlockCorruptError, FormatError, SessionError, UsageError

_KEPT: Final = "kept-"
"""How the names of those begin that wait for the same command."""

_KEPT_FOR: Final = 7 * 24 * 3600.0  # seconds since they were used last


@contextmanager
def packing_directory(store: str, format_: str) -> Iterator[SessionDirectory]:
    """Make a session's directory for as long as it is used.

    Raises:
        SessionError: it cannot be made.
    """
    with _root() as root:
        directory = SessionDirectory(Path(tempfile.mkdtemp(dir=root)))
        lock = directory.lock("flistfs pack")
    try:
        directory.create(new_settings(None, store, format_))
        yield directory
    finally:
        _remove(directory, lock)


@contextmanager
def kept_directory(name: str, store: str, format_: str) -> Iterator[tuple[SessionDirectory, bool]]:
    """Make a session's directory, or find the one of that name that was interrupted.

    It is kept if the block fails in a way that may go better the next time.

    Args:
        name: What it is found by: letters and digits. Who has the same name has the same arguments.
        store: The URL of its store, without a password.
        format_: The name of its format.

    Yields:
        The directory, and whether there was one.

    Raises:
        SessionError: it cannot be made, or another process is at work there.
    """
    with _root() as root:
        path = root / f"{_KEPT}{name}"
        path.mkdir(mode=0o700, exist_ok=True)
        directory = SessionDirectory(path)
        lock = directory.lock("flistfs convert")
        os.utime(path)
    try:
        is_resumed = directory.is_open()
        if not is_resumed:
            directory.create(new_settings(None, store, format_))
        yield directory, is_resumed
    except BaseException as error:
        is_final = isinstance(error, UsageError | FormatError) and not isinstance(error, BlockCorruptError)
        if is_final or not directory.is_open():
            _remove(directory, lock)
        else:
            lock.release()
        raise
    _remove(directory, lock)


def name_of(package: Path, how: Sequence[object]) -> str:
    """Return what stands for an flist, as long as it is not changed, and for how it is converted.

    Where the result goes makes no difference.
    """
    place = os.path.abspath(package)  # noqa: PTH100  absolute() would keep `..`
    files = sorted(package.iterdir()) if package.is_dir() else [package]
    stats = [(each.stat().st_ino, each.stat().st_size, each.stat().st_mtime_ns) for each in files]
    return hashlib.blake2b(
        repr([place, stats, *how]).encode(errors="surrogateescape"), digest_size=16
    ).hexdigest()


def _remove(directory: SessionDirectory, lock: Lock) -> None:
    shutil.rmtree(directory.path, ignore_errors=True)
    lock.release()


@contextmanager
def _root() -> Iterator[Path]:
    """Have the directory that they are in, alone: a new one must not be taken for one left behind.

    What a crash left behind is removed.

    Raises:
        SessionError: it cannot be written.
    """
    root = packing_root()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for left in root.iterdir():
                if not SessionDirectory(left).is_locked() and not _is_waiting(left):
                    shutil.rmtree(left, ignore_errors=True)
            yield root
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SessionError(f"{root} cannot be written: {error.strerror}") from error


def _is_waiting(path: Path) -> bool:
    return path.name.startswith(_KEPT) and path.stat().st_mtime > time.time() - _KEPT_FOR
