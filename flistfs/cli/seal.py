"""flistfs seal."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from flistfs import mounts
from flistfs.authoring.folder import SessionFolder, State, find
from flistfs.authoring.request import Progress, SealOptions, SealRequest
from flistfs.cli.options import (
    json_option,
    mount_option,
    public_url_option,
    router_option,
    source_date_epoch,
    timeout_option,
)
from flistfs.cli.output import following, print_json, progress_bar, seal_lines
from flistfs.cli.secrets import password
from flistfs.control import ask
from flistfs.errors import SessionError, UsageError
from flistfs.stores import router_for_readers


@click.command("seal", short_help="Seal a session into an flist.")
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.flist")
@mount_option
@click.option("--force", is_flag=True, help="Replace OUT.flist if it exists.")
@click.option("--owner", metavar="UID:GID", help="Let everything belong to this user and group.")
@router_option
@public_url_option
@timeout_option
@json_option
def command(
    out: Path,
    mountpoint: Path | None,
    force: bool,
    owner: str | None,
    router: Path | None,
    public_url: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Seal a session into OUT.flist: store what is left, check the store, unmount, package.

    If the mount is in use, the output can't be written or the store lost a block, it says so and the mount
    stays as it is. SOURCE_DATE_EPOCH makes times reproducible.

    \b
    Example:
      flistfs seal out.flist
      flistfs seal out.flist --mount /mnt/build --owner 0:0
      flistfs seal out.flist --public-url ardb://blocks.example.org:16379
    """
    folder = find(mountpoint)
    route = router_for_readers(router, public_url)
    # Absolute, with its folder's links resolved, so that an output inside the mount is seen as such.
    out = Path(os.path.realpath(out.parent)) / out.name
    os.chdir("/")  # a command that was called inside the mount must not keep it busy itself
    options = SealOptions(_parse_owner(owner), source_date_epoch())
    request = SealRequest(out, force, timeout, options, route)
    with progress_bar() as progress:
        summary = _seal(folder, request, progress)
    if as_json:
        print_json(summary)
        return
    for line in seal_lines(summary):
        click.echo(line)


def _seal(folder: SessionFolder, request: SealRequest, progress: Progress) -> dict[str, Any]:
    state = folder.state()
    if state is State.MOUNTED:
        summary = ask(
            folder.control,
            {"op": "seal", "request": request.as_dict()},
            following(progress),
        )
        folder.wait_unlocked()  # so that the mount point can be used again at once
        return summary
    mountpoint = Path(folder.settings().mountpoint)
    if state is State.SEALED:
        result = folder.result()
        said = f": {result.message}" if result else ""
        raise SessionError(f"the session of {mountpoint} has ended{said}")
    mounts.detach_if_dead(mountpoint)
    from flistfs import offline  # noqa: PLC0415  a seal of a mounted session needs none of it

    return offline.seal(folder, password(), request, progress)


def _parse_owner(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,10}):(\d{1,10})", text, re.ASCII)
    if match is None:
        raise UsageError(f"--owner takes UID:GID, two numbers such as 0:0, not {text!r}")
    owner = int(match[1]), int(match[2])
    if max(owner) >= 2**32 - 1:
        raise UsageError("--owner takes numbers below 4294967295")
    return owner
