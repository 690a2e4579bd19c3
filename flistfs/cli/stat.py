"""flistfs stat."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import click

from flistfs.api.flists import Flist
from flistfs.cli import documents
from flistfs.cli.answers import answer_list
from flistfs.cli.nodes import arrow, device, owner, time_of
from flistfs.cli.options import flist_argument, json_option
from flistfs.cli.reading import opened
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
    nodes: list[Node] = []
    with opened(package, at=nodes) as flist:
        nodes += [flist.find(path) for path in paths]
        if as_json:
            answer_list("entries", [documents.entry_with_blocks(flist, node) for node in nodes])
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
        yield from (f"    {flist.block_name(block.hash)}" for block in node.blocks)
