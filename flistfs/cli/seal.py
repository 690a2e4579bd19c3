"""flistfs seal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from flistfs.authoring.request import SealOptions, SealRequest
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import find
from flistfs.authoring.state.settings import State
from flistfs.cli import interrupts
from flistfs.cli.emptiness import warn_if_empty
from flistfs.cli.options import (
    absolute_output,
    any_path,
    check_content_option,
    exclude_from_option,
    exclude_option,
    exclude_patterns,
    force_option,
    json_option,
    mount_option,
    owner_option,
    parse_owner,
    public_url_option,
    router_option,
    source_date_epoch,
    timeout_option,
)
from flistfs.cli.output import print_json, progress_shown, seal_lines
from flistfs.cli.secrets import passwords
from flistfs.daemons.control import ask
from flistfs.errors import SessionError
from flistfs.fuse import mounts
from flistfs.stores.readers import router_for_readers
from flistfs.util.logs import log_to
from flistfs.util.progress import Progress


@click.command("seal", short_help="Seal a session into an flist.")
@click.argument("out", type=any_path, metavar="OUT.flist")
@mount_option
@force_option
@owner_option
@exclude_option
@exclude_from_option
@router_option
@public_url_option
@click.option("--incomplete", is_flag=True, help="Seal even if something was not added whole.")
@timeout_option
@check_content_option
@json_option
def command(
    out: Path,
    mountpoint: Path | None,
    force: bool,
    owner: str | None,
    exclude: tuple[str, ...],
    exclude_from: tuple[Path, ...],
    router: Path | None,
    public_url: str | None,
    incomplete: bool,
    timeout: float,
    check_content: bool,
    as_json: bool,
) -> None:
    """Seal a session into OUT.flist: store what is left, check the store, unmount, package.

    If the mount is in use, something was not added whole, the output can't be written or the store lost a
    block, it says so and the mount stays as it is. SOURCE_DATE_EPOCH makes times reproducible.

    \b
    Example:
      flistfs seal out.flist
      flistfs seal out.flist --mount /mnt/build --owner 0:0
      flistfs seal out.flist --public-url ardb://blocks.example.org:16379
    """
    directory = find(mountpoint)
    mountpoint = Path(directory.settings().mountpoint)
    patterns = exclude_patterns(exclude, exclude_from)
    options = SealOptions(parse_owner(owner), source_date_epoch(), patterns)
    route = router_for_readers(router, public_url)
    request = SealRequest(absolute_output(out), force, timeout, options, route, incomplete, check_content)
    os.chdir("/")  # a command that was called inside the mount must not keep it busy itself
    with progress_shown() as progress:
        summary = _seal(directory, request, progress)
    warn_if_empty(summary, mountpoint)
    if as_json:
        print_json(summary)
        return
    for line in seal_lines(summary):
        click.echo(line)


def _seal(directory: SessionDirectory, request: SealRequest, progress: Progress) -> dict[str, Any]:
    state = directory.settled_state()
    if state is State.MOUNTED:
        summary = ask(
            directory.control,
            {"op": "seal", "request": request.as_dict()},
            progress,
        )
        directory.wait_unlocked()  # so that the mount point can be used again at once
        return summary
    mountpoint = Path(directory.settings().mountpoint)
    if state is State.SEALED:
        result = directory.result()
        said = f": {result.message}" if result else ""
        raise SessionError(f"the session of {mountpoint} has ended{said}")
    with interrupts.loading():  # a seal of a mounted session needs none of it
        from flistfs.authoring import offline  # noqa: PLC0415
        from flistfs.authoring.upload import encoder_process  # noqa: PLC0415

    encoder_process.prepare(directory.settings().store, directory.format().codec)
    log_to(directory.log)
    with offline.taken(directory, "flistfs seal"):
        summary = offline.seal(directory, passwords(), request, progress)
    # Not before: the mount point of a session that is kept must not look like a bare directory.
    mounts.detach_if_dead(mountpoint)
    return summary
