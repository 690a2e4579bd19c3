"""flistfs tree."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from flistfs.cli.nodes import arrow, as_dict
from flistfs.cli.options import flist_argument, json_option
from flistfs.cli.output import plural, print_json_list
from flistfs.reading.flist import Flist
from flistfs.tree.names import printable
from flistfs.tree.node import Kind, Node


@click.command("tree", short_help="Show an flist as a tree.")
@flist_argument
@click.argument("path", default="")
@click.option("-L", "depth", type=click.IntRange(min=1), metavar="LEVELS", help="Go down so many levels.")
@json_option
def command(package: Path, path: str, depth: int | None, as_json: bool) -> None:
    """Show an flist, or a directory in it, as a tree. As JSON it is a flat list, parents first.

    \b
    Example:
      flistfs tree -L 2 out.flist
      flistfs tree out.flist etc
    """
    with Flist.open(package) as flist:
        start = flist.find(os.fsencode(path))
        if as_json:
            print_json_list(as_dict(node) for node in flist.walk(start, depth=depth))
            return
        click.echo(printable(start.path) or "/")
        counts: Counter[bool] = Counter()
        for node, line in _drawn(flist, start, depth):
            counts[node.kind is Kind.DIRECTORY] += 1
            click.echo(f"{line}{printable(node.name)}{arrow(node)}")
        click.echo(f"\n{plural(counts[True], 'directory', 'directories')}, {plural(counts[False], 'file')}")


def _drawn(flist: Flist, start: Node, depth: int | None) -> Iterator[tuple[Node, str]]:
    """Walk a tree, with the lines that lead to each entry."""
    levels = (
        [("", _marked(flist.children(start.path)))] if start.whole and start.kind is Kind.DIRECTORY else []
    )
    while levels:
        lines, children = levels[-1]
        node, is_last = next(children, (None, False))
        if node is None:
            levels.pop()
            continue
        yield node, lines + ("└── " if is_last else "├── ")
        if node.whole and node.kind is Kind.DIRECTORY and len(levels) != depth:
            levels.append((lines + ("    " if is_last else "│   "), _marked(flist.children(node.path))))


def _marked(nodes: Iterator[Node]) -> Iterator[tuple[Node, bool]]:
    """Say of each whether it is the last."""
    before = next(nodes, None)
    for node in nodes:
        assert before is not None  # noqa: S101  the type checker's
        yield before, False
        before = node
    if before is not None:
        yield before, True
