"""flistfs stat."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from flistfs.cli.nodes import arrow, as_dict, owner, time_of
from flistfs.cli.options import flist_argument, json_option
from flistfs.cli.output import print_json
from flistfs.format.zeroos.records import File, Special
from flistfs.reading.flist import Flist, Node
from flistfs.stores.base import printable as printable_hash
from flistfs.tree.names import printable


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
    aci = flist.aci(node)
    user, group = owner(aci)
    mode = flist.mode(node)
    attributes = node.entry.attributes
    yield f"{printable(node.path) or '/'}{arrow(node)}"
    yield f"  kind: {node.kind}, {node.size:,} bytes"
    yield f"  mode: {stat.S_IMODE(mode):04o} ({stat.filemode(mode)})"
    yield f"  owner: {user}:{group}" + (f" ({aci.uid}:{aci.gid})" if aci and aci.uid >= 0 else "")
    yield f"  modified: {time_of(node.modification_time)} UTC, changed: {time_of(node.creation_time)} UTC"
    if isinstance(attributes, Special) and attributes.data:
        yield f"  device: {printable(attributes.data)}"
    if isinstance(attributes, File):
        yield f"  blocks: {len(attributes.blocks):,}"
        yield from (f"    {printable_hash(block.hash)}" for block in attributes.blocks)


def _all_of(flist: Flist, node: Node) -> dict[str, Any]:
    plain = as_dict(flist, node) | {"ctime": node.creation_time}
    attributes = node.entry.attributes
    if isinstance(attributes, File):
        plain["block_size"] = attributes.block_size
        plain["block_refs"] = [
            {"hash": printable_hash(block.hash), "key": printable_hash(block.key)}
            for block in attributes.blocks
        ]
    return plain
