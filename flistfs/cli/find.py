"""flistfs find."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.cli import documents
from flistfs.cli.answers import answer_list
from flistfs.cli.options import Size, flist_argument, json_option
from flistfs.cli.reading import opened
from flistfs.tree.names import printable
from flistfs.tree.node import Kind, Node

# As find(1) has them.
_LETTERS = {
    "f": Kind.FILE,
    "d": Kind.DIRECTORY,
    "l": Kind.LINK,
    "c": Kind.CHAR,
    "b": Kind.BLOCK,
    "p": Kind.FIFO,
    "s": Kind.SOCKET,
}


@click.command("find", short_help="Find entries by name, kind and size.")
@flist_argument
@click.argument("path", default="")
@click.option("--name", metavar="PATTERN", help="Those whose name matches a shell pattern such as '*.so*'.")
@click.option(
    "--type",
    "kinds",
    type=click.Choice(list(_LETTERS)),
    multiple=True,
    help="Files, directories, links, character or block devices, pipes or sockets; may be given again.",
)
@click.option("--min-size", type=Size(), metavar="SIZE", help="Files of at least SIZE, such as 10M.")
@click.option("--max-size", type=Size(), metavar="SIZE", help="Files of at most SIZE.")
@click.option("-0", "--print0", "zero", is_flag=True, help="End names with NUL, unescaped, for xargs -0.")
@json_option
def command(
    package: Path,
    path: str,
    name: str | None,
    kinds: tuple[str, ...],
    min_size: int | None,
    max_size: int | None,
    zero: bool,
    as_json: bool,
) -> None:
    """Find entries of an flist, below PATH or anywhere, by name, kind and size.

    \b
    Example:
      flistfs find out.flist --name '*.pyc'
      flistfs find out.flist usr --type f --min-size 10M
    """
    wanted = [_LETTERS[kind] for kind in kinds] or None
    asked: list[Node] = []
    with opened(package, at=asked) as flist:
        asked.append(flist.find(path))
        nodes = flist.search(asked[0], name=name, kinds=wanted, min_size=min_size, max_size=max_size)
        if as_json:
            answer_list("entries", map(documents.entry, nodes))
            return
        for node in nodes:
            if zero:
                click.echo(node.path + b"\0", nl=False)
            else:
                click.echo(printable(node.path))
