"""Access files by paths longer than the kernel accepts in one call.

A tree that was created step by step can have such paths.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

# limits.h: PATH_MAX, with the NUL byte at the end, and NAME_MAX.
_PATH_MAX = 4096
_NAME_MAX = 255

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def within_reach(directory: bytes) -> Iterator[bytes]:
    """Yield a path of a directory through which every name in it is within reach, while it is used.

    That is its own, if there is room for a name. For a longer one a descriptor of the directory is held (two
    while it is opened), and calls go through /proc: those for extended attributes take only paths.

    Raises:
        OSError: a directory on the way cannot be entered.
    """
    if len(directory) + 1 + _NAME_MAX < _PATH_MAX:
        yield directory
        return
    descriptor = _open(directory)
    try:
        yield b"/proc/self/fd/%d" % descriptor
    finally:
        os.close(descriptor)


@contextmanager
def file_within_reach(path: bytes) -> Iterator[bytes]:
    """Yield a path of an entry that system calls accept, while it is used.

    Raises:
        OSError: a directory on the way cannot be entered.
    """
    directory, _, name = path.rpartition(b"/")
    with within_reach(directory or b"/") as way:
        yield os.path.join(way, name)  # noqa: PTH118  bytes


def open_file(path: bytes, flags: int) -> int:
    """Open a file whose path may be of any length.

    Raises:
        OSError: it cannot be opened.
    """
    if len(path) < _PATH_MAX:
        return os.open(path, flags)
    with file_within_reach(path) as way:
        return os.open(way, flags)


def why_unreadable(error: OSError) -> str:
    """Return what is wrong with an entry that could not be read."""
    if error.errno == errno.ENOENT:
        return "it has vanished"
    return f"it cannot be read: {error.strerror or error}"


def _open(path: bytes) -> int:
    """Open a directory, with as many names in each step as the kernel accepts."""
    descriptor: int | None = None
    try:
        while len(path) >= _PATH_MAX:
            # The kernel rejects a name that is too long by itself.
            end = path.rfind(b"/", 1, _PATH_MAX)
            descriptor = _step(path[:end] if end > 0 else path, descriptor)
            path = path[end:].lstrip(b"/")
        return _step(path, descriptor)
    except BaseException:
        if descriptor is not None:
            os.close(descriptor)
        raise


def _step(path: bytes, descriptor: int | None) -> int:
    """Open a directory below another one, and close that one."""
    below = os.open(path, _DIRECTORY, dir_fd=descriptor)
    if descriptor is not None:
        os.close(descriptor)
    return below
