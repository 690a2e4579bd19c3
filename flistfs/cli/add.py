"""flistfs add."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.api.by_mountpoint import add
from flistfs.api.store_names import BASE_PASSWORD_VARIABLE
from flistfs.cli import documents
from flistfs.cli.answers import answer
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
    progress_shown,
)
from flistfs.cli.secrets import password


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
    with progress_shown(as_json=as_json) as progress:
        summary = add(
            *sources,
            mountpoint=mountpoint,
            password=password(),
            base_password=password(BASE_PASSWORD_VARIABLE),
            to=to,
            exclude=exclude_patterns(exclude, exclude_from),
            keep_going=keep_going,
            replace_links=replace_links,
            timeout=timeout,
            check_content=check_content,
            measure=is_watched(),
            progress=progress,
        )
    if as_json:
        answer(documents.added(summary))
    else:
        click.echo("\n".join(added_lines(summary)))
    complain_left_out(summary)
