"""How entries of flists are shown, on a line and as plain data."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flistfs.format.zeroos.records import Aci, File, Link, Special
from flistfs.reading.flist import Flist, Node
from flistfs.tree.names import printable
from flistfs.tree.node import Kind

_SPECIALS = (Kind.CHAR, Kind.BLOCK, Kind.FIFO, Kind.SOCKET, Kind.UNKNOWN)


def counts_by_kind(found: Mapping[Kind, int]) -> dict[str, int]:
    """Sum entries up by the kinds that a summary has (`output.kinds`)."""
    return {
        "files": found.get(Kind.FILE, 0),
        "directories": found.get(Kind.DIRECTORY, 0),
        "links": found.get(Kind.LINK, 0),
        "specials": sum(found.get(kind, 0) for kind in _SPECIALS),
    }


def owner(aci: Aci | None) -> tuple[str, str]:
    """Give the names of user and group."""
    if aci is None:
        return "?", "?"
    return printable(aci.uname), printable(aci.gname)


def time_of(seconds: int) -> str:
    """Give a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def arrow(node: Node) -> str:
    """Say where a link leads; nothing for anything else."""
    attributes = node.entry.attributes
    return f" -> {printable(attributes.target)}" if isinstance(attributes, Link) else ""


def long_line(flist: Flist, node: Node, name: str) -> str:
    """Show an entry as `ls -l` does."""
    user, group = owner(flist.aci(node))
    attributes = node.entry.attributes
    size = str(node.size)
    if isinstance(attributes, Special) and attributes.data:
        size = printable(attributes.data)
    mode = stat.filemode(flist.mode(node))
    return f"{mode} {user:<8} {group:<8} {size:>10} {time_of(node.modification_time)} {name}{arrow(node)}"


def as_dict(flist: Flist, node: Node) -> dict[str, Any]:
    """Give a node as plain data; bytes that are no UTF-8 become surrogates, as Python's os functions do."""
    aci = flist.aci(node)
    attributes = node.entry.attributes
    plain: dict[str, Any] = {
        "path": os.fsdecode(node.path),
        "kind": node.kind.value,
        "mode": flist.mode(node),
        "user": os.fsdecode(aci.uname) if aci else None,
        "group": os.fsdecode(aci.gname) if aci else None,
        "uid": aci.uid if aci else None,
        "gid": aci.gid if aci else None,
        "size": node.size,
        "mtime": node.modification_time,
    }
    if isinstance(attributes, Link):
        plain["target"] = os.fsdecode(attributes.target)
    if isinstance(attributes, Special):
        plain["device"] = os.fsdecode(attributes.data) or None
    if isinstance(attributes, File):
        plain["blocks"] = len(attributes.blocks)
    return plain
