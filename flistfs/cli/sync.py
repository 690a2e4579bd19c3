"""flistfs sync."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from flistfs.api.by_mountpoint import sync
from flistfs.cli.answers import answer
from flistfs.cli.options import json_option, mount_option, timeout_option
from flistfs.cli.output import progress_shown


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
    with progress_shown() as progress:
        holdings = sync(mountpoint, timeout=timeout, progress=progress)
    if as_json:
        answer(asdict(holdings))
