"""flistfs new."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.api.by_mountpoint import new
from flistfs.api.format_names import FormatName
from flistfs.api.store_names import BASE_PASSWORD_VARIABLE, shown_store
from flistfs.cli import documents
from flistfs.cli.answers import answer
from flistfs.cli.options import (
    accept_faults_option,
    any_path,
    base_store_option,
    bases_option,
    format_option,
    json_option,
    min_replicas_option,
    replace_links_option,
    store_option,
    usual_store,
)
from flistfs.cli.output import base_lines, progress_shown
from flistfs.cli.secrets import password


@click.command("new", short_help="Start a session without a mount.")
@click.argument("mountpoint", type=any_path, default=".")
@store_option
@format_option
@min_replicas_option
@bases_option
@base_store_option
@replace_links_option
@accept_faults_option
@click.option(
    "--state",
    type=any_path,
    metavar="DIR",
    help="The session's directory until it is sealed. Default: below ~/.local/state/flistfs.",
)
@click.option("--offline", is_flag=True, help="Start even if the store does not answer.")
@json_option
def command(
    mountpoint: Path,
    store: str | None,
    format_: FormatName | None,
    min_replicas: int | None,
    bases: tuple[Path, ...],
    base_store: str | None,
    replace_links: bool,
    accept_faults: bool,
    state: Path | None,
    offline: bool,
    as_json: bool,
) -> None:
    """Start a session without a mount, for machines and containers without /dev/fuse: `add` fills it.

    MOUNTPOINT is what the session is called, and where `flistfs mount` can mount it later; it need not be
    there. Without one the session is called after the current directory.

    \b
    Example:
      flistfs new --store ardb://host:16379
      flistfs add rootfs/.
      flistfs seal out.flist
    \b
      flistfs new --from base.flist
    """
    with progress_shown(as_json=as_json) as progress:
        started = new(
            mountpoint,
            store=store,
            password=password(),
            format=format_,
            min_replicas=min_replicas,
            base=bases,
            base_store=base_store,
            base_password=password(BASE_PASSWORD_VARIABLE),
            fallback_store=usual_store(),
            replace_links=replace_links,
            accept_faults=accept_faults,
            state=state,
            offline=offline,
            progress=progress,
        )
    if as_json:
        answer(documents.started(started))
        return
    click.echo(f"a session for {started.mountpoint}; blocks go to {shown_store(started.store)}")
    if started.base:
        click.echo("\n".join(base_lines(started.base)))
    click.echo("fill it with: flistfs add SOURCE…   and seal it with: flistfs seal OUT.flist")
