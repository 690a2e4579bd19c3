"""flistfs tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click

from flistfs.api.flists import Flist
from flistfs.cli import documents
from flistfs.cli.answers import answer_list
from flistfs.cli.nodes import arrow
from flistfs.cli.options import flist_argument, json_option
from flistfs.cli.output import plural
from flistfs.cli.reading import opened
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
    asked: list[Node] = []
    with opened(package, at=asked) as flist:
        start = flist.find(path)
        asked.append(start)
        if as_json:
            nodes = flist.walk(start, depth=depth) if start.kind is Kind.DIRECTORY else ()
            answer_list("entries", map(documents.entry, nodes))
            return
        click.echo(printable(start.path) or "/")
        counts: Counter[bool] = Counter()
        for node, line in _drawn(flist, start, depth):
            counts[node.kind is Kind.DIRECTORY] += 1
            click.echo(f"{line}{printable(node.name)}{arrow(node)}")
        click.echo(f"\n{plural(counts[True], 'directory', 'directories')}, {plural(counts[False], 'file')}")


def _drawn(flist: Flist, start: Node, depth: int | None) -> Iterator[tuple[Node, str]]:
    """Walk a tree, with the lines that lead to each entry."""
    levels = [("", _marked(flist.children(start)))] if start.whole and start.kind is Kind.DIRECTORY else []
    while levels:
        lines, children = levels[-1]
        node, is_last = next(children, (None, False))
        if node is None:
            levels.pop()
            continue
        yield node, lines + ("└── " if is_last else "├── ")
        if node.whole and node.kind is Kind.DIRECTORY and len(levels) != depth:
            levels.append((lines + ("    " if is_last else "│   "), _marked(flist.children(node))))


def _marked(nodes: Iterator[Node]) -> Iterator[tuple[Node, bool]]:
    """Pair each node with whether it is the last one."""
    before = next(nodes, None)
    for node in nodes:
        assert before is not None  # noqa: S101  the type checker's
        yield before, False
        before = node
    if before is not None:
        yield before, True
