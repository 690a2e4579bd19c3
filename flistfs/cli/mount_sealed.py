"""flistfs mount --read-only: what is said of a sealed flist that is mounted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from flistfs.api.mounting import MountedFlist
from flistfs.cli.answers import answer


def print_mounted_flist(mounted: MountedFlist, package: Path, *, as_json: bool) -> None:
    """Print that a flist, as the user named it, is mounted."""
    if as_json:
        answer(asdict(mounted))
    else:
        place = mounted.mountpoint
        click.echo(f"{place} shows {package}, read-only; end it with: umount {place}")
