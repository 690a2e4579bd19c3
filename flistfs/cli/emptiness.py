"""What is said of an flist without any entry: nearly always the files went somewhere else."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from flistfs.fuse import mounts


def warn_if_empty(summary: dict[str, Any], mountpoint: Path) -> None:
    """Warn on standard error, and under "warnings" in a seal's summary, if nothing was sealed.

    Args:
        summary: The seal's.
        mountpoint: Where the session was mounted, if it was: files in the bare directory are named.
    """
    summary["warnings"] = []
    if summary["files"] or summary["links"] or summary["specials"] or summary["directories"] > 1:
        return
    warning = f"{summary['out']} is empty: there was nothing to seal"
    if _has_files(mountpoint, Path(summary["out"])):
        warning += (
            f". {mountpoint}, which is not mounted, has files in it: flistfs pack "
            f"{shlex.quote(str(mountpoint))} OUT.flist makes an flist of them"
        )
    summary["warnings"].append(warning)
    click.echo(f"flistfs: warning: {warning}", err=True)


def _has_files(directory: Path, out: Path) -> bool:
    if mounts.mount_at(directory) is not None:
        return False
    try:
        return any(path != out for path in directory.iterdir())
    except OSError:  # a session without a mount need not have a directory
        return False
