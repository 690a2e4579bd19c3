"""How entries of flists are shown."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from flistfs.tree.names import printable
from flistfs.tree.node import Access, Kind, Node

_SPECIALS = (Kind.CHAR, Kind.BLOCK, Kind.FIFO, Kind.SOCKET, Kind.UNKNOWN)


class Counts(NamedTuple):
    """How many entries of each kind there are, as summaries have it."""

    files: int
    directories: int
    links: int
    specials: int


def counts_by_kind(found: Mapping[Kind, int]) -> Counts:
    """Sum entries up by the kinds that summaries have."""
    return Counts(
        found.get(Kind.FILE, 0),
        found.get(Kind.DIRECTORY, 0),
        found.get(Kind.LINK, 0),
        sum(found.get(kind, 0) for kind in _SPECIALS),
    )


def owner(access: Access | None) -> tuple[str, str]:
    """Give the names of user and group."""
    if access is None:
        return "?", "?"
    return printable(access.user), printable(access.group)


def time_of(seconds: int) -> str:
    """Give a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def arrow(node: Node) -> str:
    """Say where a link leads; nothing for anything else."""
    return "" if node.target is None else f" -> {printable(node.target)}"


def device(node: Node) -> str | None:
    """Give the numbers of a device."""
    return node.device and f"{node.device[0]},{node.device[1]}"


def long_line(node: Node, name: str) -> str:
    """Show an entry as `ls -l` does."""
    user, group = owner(node.access)
    size = device(node) or str(node.size)
    mode = stat.filemode(node.mode)
    return f"{mode} {user:<8} {group:<8} {size:>10} {time_of(node.mtime)} {name}{arrow(node)}"
