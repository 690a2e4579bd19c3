"""flistfs ls."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from flistfs.cli.options import json_option
from flistfs.cli.output import print_json
from flistfs.format.records import Aci, File, Link, Special, SpecialKind, SubDirectory
from flistfs.reading.flist import Flist, Node

_SPECIAL_TYPES = {
    SpecialKind.SOCKET: stat.S_IFSOCK,
    SpecialKind.BLOCK: stat.S_IFBLK,
    SpecialKind.CHAR: stat.S_IFCHR,
    SpecialKind.FIFO: stat.S_IFIFO,
}


@click.command("ls", short_help="List what is in an flist.")
@click.argument("package", type=click.Path(path_type=Path), metavar="FLIST")
@click.argument("path", default="")
@click.option("-l", "long", is_flag=True, help="Show mode, owner, size and time (UTC).")
@click.option("-R", "recursive", is_flag=True, help="List sub-directories too.")
@json_option
def command(package: Path, path: str, long: bool, recursive: bool, as_json: bool) -> None:
    """List what is in an flist.

    \b
    Example:
      flistfs ls out.flist etc
      flistfs ls -lR out.flist
    """
    with Flist.open(package) as flist:
        nodes = _listed(flist, flist.find(os.fsencode(path)), recursive=recursive)
        if as_json:
            print_json([_as_dict(flist, node) for node in nodes])
            return
        for node in nodes:
            name = _name(node.path if recursive else node.entry.name)
            click.echo(_long_line(flist, node, name) if long else name)


def _listed(flist: Flist, start: Node, *, recursive: bool) -> Iterator[Node]:
    """Walk what is to be shown: a directory's entries, or the one entry that was named."""
    if start.directory is None and not isinstance(start.entry.attributes, SubDirectory):
        yield start
        return
    for child in flist.children(start.path):
        yield child
        if recursive and child.directory is not None:
            yield from _listed(flist, child, recursive=True)


def _name(raw: bytes) -> str:
    """Show a name on one line: what can't be printed is escaped."""
    text = raw.decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _mode(node: Node, aci: Aci | None) -> int:
    """Return the mode; its type comes from the entry, as that of an ACI may be another entry's."""
    permissions = stat.S_IMODE(aci.mode) if aci else 0o400  # what readers show without an ACI
    match node.entry.attributes:
        case SubDirectory():
            return stat.S_IFDIR | permissions
        case File():
            return stat.S_IFREG | permissions
        case Link():
            return stat.S_IFLNK | permissions
        case Special(kind=kind):
            return _SPECIAL_TYPES.get(kind, 0) | permissions
        case _:
            return permissions


def _owner(aci: Aci | None) -> tuple[str, str]:
    if aci is None:
        return "?", "?"
    return _name(aci.uname), _name(aci.gname)


def _long_line(flist: Flist, node: Node, name: str) -> str:
    aci = flist.aci(node)
    user, group = _owner(aci)
    time = datetime.fromtimestamp(node.modification_time, UTC).strftime("%Y-%m-%d %H:%M:%S")
    attributes = node.entry.attributes
    size = str(node.directory.size if node.directory else node.entry.size)
    if isinstance(attributes, Special) and attributes.data:
        size = attributes.data.decode(errors="replace")
    target = f" -> {_name(attributes.target)}" if isinstance(attributes, Link) else ""
    return f"{stat.filemode(_mode(node, aci))} {user:<8} {group:<8} {size:>10} {time} {name}{target}"


def _as_dict(flist: Flist, node: Node) -> dict[str, Any]:
    """Give a node as plain data; bytes that are no UTF-8 become surrogates, as Python's os functions do."""
    aci = flist.aci(node)
    attributes = node.entry.attributes
    plain: dict[str, Any] = {
        "path": os.fsdecode(node.path),
        "mode": _mode(node, aci),
        "user": os.fsdecode(aci.uname) if aci else None,
        "group": os.fsdecode(aci.gname) if aci else None,
        "uid": aci.uid if aci else None,
        "gid": aci.gid if aci else None,
        "size": node.directory.size if node.directory else node.entry.size,
        "mtime": node.modification_time,
    }
    if isinstance(attributes, Link):
        plain["target"] = os.fsdecode(attributes.target)
    if isinstance(attributes, Special):
        plain["device"] = os.fsdecode(attributes.data) or None
    if isinstance(attributes, File):
        plain["blocks"] = len(attributes.blocks)
    return plain
