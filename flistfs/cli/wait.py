"""flistfs wait."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import find_latest
from flistfs.authoring.state.settings import State
from flistfs.cli.emptiness import warn_if_empty
from flistfs.cli.options import json_option, mount_option
from flistfs.cli.output import print_json, seal_lines
from flistfs.daemons.control import ask, remote_error
from flistfs.errors import FlistfsError, SessionError


@click.command("wait", short_help="Wait for the seal of a mount with --seal-to.")
@mount_option
@json_option
def command(mountpoint: Path | None, as_json: bool) -> None:
    """Wait until a session's daemon has ended, and return the exit code of its seal.

    For mounts with --seal-to, which are sealed by a plain umount.

    \b
    Example:
      flistfs mount /mnt/build --seal-to out.flist
      make install DESTDIR=/mnt/build
      umount /mnt/build && flistfs wait --mount /mnt/build
    """
    directory = find_latest(mountpoint)
    if directory.state() is State.MOUNTED and not _seals_at_end(directory):
        click.echo("this mount was not told to --seal-to; waiting until it is unmounted", err=True)
    directory.wait_unlocked()
    result = directory.failed_start() or directory.result()
    if result is None or (
        result.exit_code == 0 and directory.is_open()
    ):  # what was sealed was the one before
        raise SessionError(_not_sealed(directory))
    if result.summary:
        warn_if_empty(result.summary, Path(directory.settings().mountpoint))
    if as_json:
        print_json(asdict(result))
    if result.exit_code:
        raise remote_error(result.message, result.exit_code)
    if not as_json and result.summary:
        for line in seal_lines(result.summary):
            click.echo(line)


def _not_sealed(directory: SessionDirectory) -> str:
    name = f"the session of {directory.settings().mountpoint}"
    if not directory.is_open():
        return f"{name} has ended without being sealed"
    return f"{name} is not mounted, and was left without being sealed; seal it with: flistfs seal OUT.flist"


def _seals_at_end(directory: SessionDirectory) -> bool:
    try:
        return bool(ask(directory.control, {"op": "status"})["seal_to"])
    except FlistfsError:
        return True  # it is ending now, and is about to say
