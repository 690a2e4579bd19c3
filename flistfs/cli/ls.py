"""flistfs ls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from flistfs.api.flists import Flist
from flistfs.cli import documents
from flistfs.cli.answers import answer_list
from flistfs.cli.nodes import long_line
from flistfs.cli.options import flist_argument, json_option
from flistfs.cli.reading import opened
from flistfs.tree.names import printable
from flistfs.tree.node import Kind, Node


@click.command("ls", short_help="List what is in an flist.")
@flist_argument
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
    asked: list[Node] = []
    with opened(package, at=asked) as flist:
        start = flist.find(path)
        asked.append(start)
        nodes = _listed(flist, start, recursive=recursive, names_only=not (long or as_json))
        if as_json:
            answer_list("entries", map(documents.entry, nodes))
            return
        for node in nodes:
            name = printable(node.path if recursive else node.name)
            click.echo(long_line(node, name) if long else name)


def _listed(flist: Flist, start: Node, *, recursive: bool, names_only: bool) -> Iterator[Node]:
    """Walk the entries to list: those of a directory, or the one entry that was named."""
    if start.kind is not Kind.DIRECTORY:
        yield start
    elif recursive:
        yield from flist.walk(start)
    elif names_only:  # one record, and not those of its sub-directories
        yield from flist.names(start)
    else:
        yield from flist.children(start)
