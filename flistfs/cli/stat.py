"""flistfs stat."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from flistfs.cli.nodes import arrow, as_dict, device, owner, time_of
from flistfs.cli.options import flist_argument, json_option
from flistfs.cli.output import print_json
from flistfs.reading.flist import Flist
from flistfs.tree.names import printable
from flistfs.tree.node import Kind, Node


@click.command("stat", short_help="Show all that an flist says of a path.")
@flist_argument
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@json_option
def command(package: Path, paths: tuple[str, ...], as_json: bool) -> None:
    """Show all that an flist says of paths: kind, mode, owner, times, blocks. Links are not followed.

    \b
    Example:
      flistfs stat out.flist etc/passwd
    """
    with Flist.open(package) as flist:
        nodes = [flist.find(os.fsencode(path)) for path in paths]
        if as_json:
            print_json([_all_of(flist, node) for node in nodes])
            return
        for node in nodes:
            click.echo("\n".join(_lines(flist, node)))


def _lines(flist: Flist, node: Node) -> Iterator[str]:
    user, group = owner(node.access)
    mode, uid = node.mode, node.uid
    yield f"{printable(node.path) or '/'}{arrow(node)}"
    yield f"  kind: {node.kind}, {node.size:,} bytes"
    yield f"  mode: {stat.S_IMODE(mode):04o} ({stat.filemode(mode)})"
    yield f"  owner: {user}:{group}" + ("" if uid is None else f" ({uid}:{node.gid})")
    yield f"  modified: {time_of(node.mtime)} UTC, changed: {time_of(node.ctime)} UTC"
    if node.device:
        yield f"  device: {device(node)}"
    if node.kind is Kind.FILE:
        yield f"  blocks: {len(node.blocks):,}"
        yield from (f"    {flist.codec.show(block.hash)}" for block in node.blocks)


def _all_of(flist: Flist, node: Node) -> dict[str, Any]:
    plain = as_dict(node) | {"ctime": node.ctime}
    if node.kind is Kind.FILE:
        plain["chunk_size"] = node.chunk_size
        plain["block_refs"] = [
            {"hash": flist.codec.show(block.hash), "key": flist.codec.show(block.key)}
            for block in node.blocks
        ]
    return plain
