"""flistfs ls."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import click

from flistfs.cli.nodes import as_dict, long_line
from flistfs.cli.options import flist_argument, json_option
from flistfs.cli.output import print_json_list
from flistfs.reading.flist import Flist
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
    with Flist.open(package) as flist:
        start = flist.find(os.fsencode(path))
        nodes = _listed(flist, start, recursive=recursive, names_only=not (long or as_json))
        if as_json:
            print_json_list(as_dict(node) for node in nodes)
            return
        for node in nodes:
            name = printable(node.path if recursive else node.name)
            click.echo(long_line(node, name) if long else name)


def _listed(flist: Flist, start: Node, *, recursive: bool, names_only: bool) -> Iterator[Node]:
    """Walk what is to be shown: a directory's entries, or the one entry that was named."""
    if start.kind is not Kind.DIRECTORY:
        yield start
    elif recursive:
        yield from flist.walk(start)
    elif names_only:  # one record, and not those of its sub-directories
        yield from flist.entries(start.path)
    else:
        yield from flist.children(start.path)
