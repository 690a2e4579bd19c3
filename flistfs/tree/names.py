"""What may be a name in an flist, and how long a path: what every walk of a tree relies on.

A name that is none makes a path that is another's, or one that leads elsewhere. Longer paths than these no
program writes; the records of all directories on the way have theirs in full, so they cost a square of it.
"""

from __future__ import annotations

from flistfs.format.zeroos.limits import MAX_NAME, MAX_PATH

__all__ = ["MAX_NAME", "MAX_PATH", "name_fault", "place_fault"]


def name_fault(name: bytes) -> str | None:
    """Say why a name is none that a directory can list."""
    if not name:
        return "it has no name"
    if name in {b".", b".."} or b"/" in name or b"\0" in name:
        return "its name is none that a file can have: its parent cannot be listed"
    if len(name) > MAX_NAME:
        return f"its name has {len(name)} bytes, more than {MAX_NAME}"
    return None


def place_fault(path: bytes, name: bytes) -> str | None:
    """Say why there cannot be something at `path`, of which `name` is the last part."""
    if len(path) > MAX_PATH:
        return f"its path has {len(path)} bytes, more than {MAX_PATH}"
    return name_fault(name)
