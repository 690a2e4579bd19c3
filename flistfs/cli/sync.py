"""flistfs sync."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import find
from flistfs.authoring.state.settings import State
from flistfs.cli.options import json_option, mount_option, timeout_option
from flistfs.cli.output import print_json, progress_shown
from flistfs.daemons.control import ask
from flistfs.errors import SessionError


def _require_mount(directory: SessionDirectory) -> None:
    """Refuse a session that has no daemon which could store what is left.

    Raises:
        SessionError: says what to do.
        BusyError: a command is at work in it.
    """
    state, place = directory.settled_state(), directory.settings().mountpoint
    if state is State.SEALED:
        raise SessionError(f"the session of {place} has ended; start one with: flistfs mount {place}")
    if state is not State.MOUNTED:
        raise SessionError(
            f"{place} is not mounted; what add puts into a session is stored when it returns, and what a "
            f"mount left is stored by flistfs seal, or once it is mounted again"
        )


@click.command("sync", short_help="Wait until everything is stored.")
@mount_option
@timeout_option
@json_option
def command(mountpoint: Path | None, timeout: float, as_json: bool) -> None:
    """Return when everything that was written before is in the store.

    \b
    Example:
      make install DESTDIR=/mnt/build && flistfs sync
    """
    directory = find(mountpoint)
    _require_mount(directory)
    with progress_shown() as progress:
        status = ask(directory.control, {"op": "sync", "timeout": timeout}, progress)
    if as_json:
        print_json(status)
