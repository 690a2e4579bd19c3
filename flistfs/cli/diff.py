"""flistfs diff."""

from __future__ import annotations

import stat
from pathlib import Path

import click

from flistfs.api.comparing import Change, Difference, diff
from flistfs.cli import documents
from flistfs.cli.answers import answer_list
from flistfs.cli.nodes import owner, time_of
from flistfs.cli.options import flist_place, json_option
from flistfs.tree.names import printable
from flistfs.tree.node import Access, Node

_SIGNS = {Change.ADDED: "+", Change.REMOVED: "-", Change.CONTENT: "c", Change.METADATA: "m"}


@click.command("diff", short_help="Compare two flists.")
@click.argument("before", type=flist_place, metavar="A")
@click.argument("after", type=flist_place, metavar="B")
@json_option
def command(before: Path, after: Path, as_json: bool) -> None:
    """Show how flist B differs from flist A, without fetching a block.

    A line begins with + for what was added, - for what was removed, c where the content is another, m where
    only mode, owner or modification time are. Change times are not compared.

    \b
    Example:
      flistfs diff old.flist new.flist
    """
    differences = diff(before, after)
    if as_json:
        answer_list("differences", map(documents.difference, differences))
        return
    for each in differences:
        click.echo(_line(each))


def _line(difference: Difference) -> str:
    line = f"{_SIGNS[difference.change]} {printable(difference.path) or '/'}"
    before, after = difference.before, difference.after
    if before is None or after is None:
        return line
    said = [_said(field, before, after) for field in difference.fields]
    return f"{line} ({', '.join(said)})"


def _said(field: str, before: Node, after: Node) -> str:
    match field:
        case "mode":
            return f"mode {stat.S_IMODE(before.mode):04o} to {stat.S_IMODE(after.mode):04o}"
        case "owner":
            return f"owner {_owners(before.access, after.access)}"
        case "mtime":
            return f"time {time_of(before.mtime)} to {time_of(after.mtime)}"
        case _:
            return field


def _owners(before: Access | None, after: Access | None) -> str:
    """Return both owners by name, and by number too where the names are equal."""
    names = owner(before), owner(after)
    if names[0] != names[1] or before is None or after is None:
        return " to ".join(map(":".join, names))
    return f"{':'.join(names[0])} from {_numbers(before)} to {_numbers(after)}"


def _numbers(access: Access) -> str:
    """Return the numbers of user and group, as far as the flist has them."""
    if access.uid is None and access.gid is None:
        return "none"
    return ":".join("none" if number is None else str(number) for number in (access.uid, access.gid))
