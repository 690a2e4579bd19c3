"""flistfs abort."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.api.by_mountpoint import abort, find_session
from flistfs.cli import documents
from flistfs.cli.answers import answer
from flistfs.cli.options import json_option, mount_option


@click.command("abort", short_help="Throw a session away.")
@mount_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def command(mountpoint: Path | None, yes: bool, as_json: bool) -> None:
    """Throw a session away: unmount it and forget what was written. What the store has stays there.

    \b
    Example:
      flistfs abort --yes
    """
    found = find_session(mountpoint)
    if found.is_open and not yes:
        _confirm(found.mountpoint)
    abort(mountpoint)
    if as_json:
        answer({**documents.session(found.mountpoint, found.state_directory), "aborted": True})
    else:
        click.echo(f"the session of {found.mountpoint} is gone")


def _confirm(place: str) -> None:
    try:
        click.confirm(f"Throw away everything in the session of {place}?", abort=True, err=True)
    except click.Abort:
        click.echo("\nnothing was changed; --yes answers this question", err=True)
        raise
