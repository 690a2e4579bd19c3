"""flistfs wait."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.api.by_mountpoint import seals_when_unmounted, wait_for_end
from flistfs.cli.emptiness import warn_if_empty
from flistfs.cli.options import json_option, mount_option
from flistfs.cli.output import print_json, seal_lines


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
    if not seals_when_unmounted(mountpoint):
        click.echo("this mount was not told to --seal-to; waiting until it is unmounted", err=True)
    ended = wait_for_end(mountpoint)
    result = ended.result
    plain = result.as_dict()
    if plain["summary"]:
        warn_if_empty(plain["summary"], Path(ended.mountpoint))
    if as_json:
        print_json(plain)
    ended.check()
    if not as_json and plain["summary"]:
        click.echo("\n".join(seal_lines(plain["summary"])))
