"""flistfs sync."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.authoring.folder import State, find
from flistfs.cli.options import json_option, mount_option, timeout_option
from flistfs.cli.output import following, print_json, progress_shown
from flistfs.control import ask
from flistfs.errors import SessionError


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
    folder = find(mountpoint)
    if folder.settled_state() is not State.MOUNTED:
        raise SessionError(f"{folder.settings().mountpoint} is not mounted; mount it to go on, or seal it")
    with progress_shown() as progress:
        status = ask(folder.control, {"op": "sync", "timeout": timeout}, following(progress))
    if as_json:
        print_json(status)
