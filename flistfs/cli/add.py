"""flistfs add."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from flistfs.authoring.importing.opening import absolute_source, normal_target
from flistfs.authoring.request import AddRequest
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import find
from flistfs.authoring.state.settings import State
from flistfs.cli import interrupts
from flistfs.cli.options import (
    check_content_option,
    exclude_from_option,
    exclude_option,
    exclude_patterns,
    json_option,
    keep_going_option,
    mount_option,
    replace_links_option,
    timeout_option,
)
from flistfs.cli.output import (
    added_lines,
    complain_left_out,
    is_watched,
    print_json,
    progress_shown,
)
from flistfs.cli.secrets import passwords
from flistfs.daemons.control import ask
from flistfs.errors import NoPlaceError, SessionError
from flistfs.util.logs import log_to
from flistfs.util.progress import Progress


@click.command("add", short_help="Put directories and files into a session, past the mount.")
@click.argument("sources", metavar="SOURCE…", nargs=-1, required=True)
@click.option("--to", metavar="PATH", default="", help="The directory of the tree that they go to.")
@exclude_option
@exclude_from_option
@keep_going_option
@replace_links_option
@mount_option
@timeout_option
@check_content_option
@json_option
def command(
    sources: tuple[str, ...],
    to: str,
    exclude: tuple[str, ...],
    exclude_from: tuple[Path, ...],
    keep_going: bool,
    replace_links: bool,
    mountpoint: Path | None,
    timeout: float,
    check_content: bool,
    as_json: bool,
) -> None:
    """Put directories and files of this machine into a session, mounted or not, quicker than `cp -a` would.

    SOURCE becomes PATH/SOURCE; with `/.` at its end, what is in it goes to PATH. Owners, modes, times, links
    and devices are kept, for whoever calls it. It returns when everything is in the tree and stored.

    Directories unite, also through links to directories; anything else is replaced. A file in the place of a
    directory, or the other way round, is named before anything changes (exit code 11).

    \b
    Example:
      flistfs add rootfs/.
      flistfs add /opt/tool --to opt --exclude '*.pyc'
    """
    directory = find(mountpoint)
    request = AddRequest(
        sources=tuple(absolute_source(source) for source in sources),
        to=normal_target(to),
        exclude=exclude_patterns(exclude, exclude_from),
        keep_going=keep_going,
        timeout=timeout,
        measure=is_watched(),
        replace_links=replace_links,
        typed=sources,
        check_content=check_content,
    )
    try:
        with progress_shown(as_json=as_json) as progress:
            summary = _add(directory, request, progress)
    except NoPlaceError as error:
        if as_json:
            print_json(error.as_dict())
        raise
    if as_json:
        print_json(summary)
    else:
        click.echo("\n".join(added_lines(summary)))
    complain_left_out(summary)


def _add(directory: SessionDirectory, request: AddRequest, progress: Progress) -> dict[str, Any]:
    state = directory.settled_state()
    if state is State.MOUNTED:
        return ask(directory.control, {"op": "add", "request": request.as_dict()}, progress)
    mountpoint = Path(directory.settings().mountpoint)
    if state is State.SEALED:
        raise SessionError(f"the session of {mountpoint} has ended; start one with: flistfs new {mountpoint}")
    with interrupts.loading():  # a mounted session needs none of it
        from flistfs.authoring import offline  # noqa: PLC0415
        from flistfs.authoring.upload import encoder_process  # noqa: PLC0415

    encoder_process.prepare(directory.settings().store, directory.format().codec)
    log_to(directory.log)
    with offline.taken(directory, "flistfs add"):
        return asdict(offline.add(directory, passwords(), request, progress))
