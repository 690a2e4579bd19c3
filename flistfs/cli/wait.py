"""flistfs wait."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.api.waiting import seals_when_unmounted, wait_for_end
from flistfs.cli import documents
from flistfs.cli.answers import answer
from flistfs.cli.emptiness import warn_if_empty
from flistfs.cli.options import json_option, mount_option
from flistfs.cli.output import seal_lines


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
        click.echo("this mount has no --seal-to; waiting until it is unmounted", err=True)
    ended = wait_for_end(mountpoint)
    ended.check()
    summary = ended.result.summary
    warnings = warn_if_empty(summary, Path(ended.mountpoint)) if summary else []
    if as_json:
        answer(documents.waited(ended, warnings))
    elif summary:
        click.echo("\n".join(seal_lines(summary)))
