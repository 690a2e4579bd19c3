"""Valid names and paths, which every walk of a tree relies on.

An invalid name makes a path that belongs to another entry, or leads elsewhere. No program writes longer paths
than these; each directory's record holds its full path, so the cost grows with the square of the length.
"""

from __future__ import annotations

from typing import Final

MAX_TARGET: Final = 4095


MAX_NAME: Final = 255
"""Bytes in a name, as in Linux."""


MAX_PATH: Final = 64 << 10
"""Bytes in a path: sixteen times the limit of one system call (PATH_MAX); walks can go step by step."""


__all__ = ["MAX_NAME", "MAX_PATH", "name_fault", "place_fault"]


def name_fault(name: bytes) -> str | None:
    """Return why a name is invalid in a directory; None if it is valid."""
    if not name:
        return "it has no name"
    if name in {b".", b".."} or b"/" in name or b"\0" in name:
        return "its name is not a valid file name"
    if len(name) > MAX_NAME:
        return f"its name has {len(name)} bytes, more than {MAX_NAME}"
    return None


def place_fault(path: bytes, name: bytes) -> str | None:
    """Return why no entry can be at `path`, whose last part is `name`; None if one can."""
    if len(path) > MAX_PATH:
        return f"its path has {len(path)} bytes, more than {MAX_PATH}"
    return name_fault(name)


def join(path: bytes, name: bytes) -> bytes:
    """Return the path of a name in a directory; the root is the empty path."""
    return path + b"/" + name if path else name


def printable(raw: bytes) -> str:
    """Return a name on one line, with unprintable characters escaped."""
    text = raw.decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
