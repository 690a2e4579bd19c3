"""flistfs abort."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.authoring.state.finding import find
from flistfs.authoring.state.settings import State
from flistfs.cli.options import json_option, mount_option
from flistfs.cli.output import print_json
from flistfs.daemons.control import ask
from flistfs.fuse import mounts


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
    directory = find(mountpoint)
    place = Path(directory.settings().mountpoint)
    if directory.is_open() and not yes:
        _confirm(place)
    if directory.settled_state() is State.MOUNTED:
        ask(directory.control, {"op": "abort"})
        directory.wait_unlocked()
    else:
        mounts.detach_if_dead(place)
        lock = directory.lock("flistfs abort")
        directory.discard()
        lock.release()
    if as_json:
        print_json({"mountpoint": str(place), "state_directory": str(directory.path), "aborted": True})
    else:
        click.echo(f"the session of {place} is gone")


def _confirm(place: Path) -> None:
    try:
        click.confirm(f"Throw away everything in the session of {place}?", abort=True, err=True)
    except click.Abort:
        click.echo("\nnothing was changed; --yes answers this question", err=True)
        raise
