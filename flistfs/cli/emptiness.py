"""What is said of an flist without any entry: nearly always the files went somewhere else."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from flistfs.api.by_mountpoint import SealSummary
from flistfs.api.mounting import is_mountpoint


def warn_if_empty(summary: SealSummary, mountpoint: Path) -> list[str]:
    """Warn on standard error if nothing was sealed, and return the warnings.

    Args:
        summary: The seal's.
        mountpoint: Where the session was mounted, if it was: files in the bare directory are named.
    """
    if summary.files or summary.links or summary.specials or summary.directories > 1:
        return []
    warning = f"{summary.out} is empty: there was nothing to seal"
    if _has_files(mountpoint, Path(summary.out)):
        warning += (
            f". {mountpoint}, which is not mounted, has files in it: flistfs pack "
            f"{shlex.quote(str(mountpoint))} OUT.flist makes an flist of them"
        )
    click.echo(f"flistfs: warning: {warning}", err=True)
    return [warning]


def _has_files(directory: Path, out: Path) -> bool:
    if is_mountpoint(directory):
        return False
    try:
        return any(path != out for path in directory.iterdir())
    except OSError:  # a session without a mount need not have a directory
        return False
