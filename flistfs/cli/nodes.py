"""How entries of flists are shown, on a line and as plain data."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flistfs.tree.names import printable
from flistfs.tree.node import Access, Kind, Node

_SPECIALS = (Kind.CHAR, Kind.BLOCK, Kind.FIFO, Kind.SOCKET, Kind.UNKNOWN)


def counts_by_kind(found: Mapping[Kind, int]) -> dict[str, int]:
    """Sum entries up by the kinds that a summary has (`output.kinds`)."""
    return {
        "files": found.get(Kind.FILE, 0),
        "directories": found.get(Kind.DIRECTORY, 0),
        "links": found.get(Kind.LINK, 0),
        "specials": sum(found.get(kind, 0) for kind in _SPECIALS),
    }


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


def as_dict(node: Node) -> dict[str, Any]:
    """Give a node as plain data; bytes that are no UTF-8 become surrogates, as Python's os functions do."""
    access = node.access
    plain: dict[str, Any] = {
        "path": os.fsdecode(node.path),
        "kind": node.kind.value,
        "mode": node.mode,
        "user": os.fsdecode(access.user) if access else None,
        "group": os.fsdecode(access.group) if access else None,
        "uid": access.uid if access else None,
        "gid": access.gid if access else None,
        "size": node.size,
        "mtime": node.mtime,
    }
    if node.target is not None:
        plain["target"] = os.fsdecode(node.target)
    if node.kind not in {Kind.DIRECTORY, Kind.FILE, Kind.LINK}:
        plain["device"] = device(node)
    if node.kind is Kind.FILE:
        plain["blocks"] = len(node.blocks)
    return plain
