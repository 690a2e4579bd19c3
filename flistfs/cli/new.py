"""flistfs new."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import click

from flistfs.authoring.request import USUAL_FORMAT
from flistfs.authoring.state.finding import directory_for
from flistfs.authoring.state.settings import Settings
from flistfs.cli import interrupts
from flistfs.cli.options import (
    any_path,
    base_request,
    base_store_option,
    bases_option,
    json_option,
    min_replicas_option,
    replace_links_option,
    store_option,
)
from flistfs.cli.output import base_lines, print_json, progress_shown
from flistfs.cli.secrets import passwords
from flistfs.fuse import mounts
from flistfs.stores import default_store_url
from flistfs.stores.url import parse_store_url, shown_store, with_min_replicas
from flistfs.util.logs import log_to


@click.command("new", short_help="Start a session without a mount.")
@click.argument("mountpoint", type=any_path, default=".")
@store_option
@min_replicas_option
@bases_option
@base_store_option
@replace_links_option
@click.option(
    "--state",
    type=any_path,
    metavar="DIR",
    help="Where the session lies until it is sealed. Default: below ~/.local/state/flistfs.",
)
@click.option("--offline", is_flag=True, help="Start even if the store does not answer.")
@json_option
def command(
    mountpoint: Path,
    store: str | None,
    min_replicas: int | None,
    bases: tuple[Path, ...],
    base_store: str | None,
    replace_links: bool,
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
    mountpoint = mounts.resolve_mountpoint(mountpoint)
    directory = directory_for(mountpoint, state)
    url = str(with_min_replicas(parse_store_url(store or default_store_url()), min_replicas))
    with interrupts.loading():  # --help need not wait for it
        from flistfs.authoring import offline as without_mount  # noqa: PLC0415

    log_to(directory.log)
    settings = Settings(str(mountpoint), url, format=USUAL_FORMAT, created=time.time())
    base = base_request(bases, base_store, replace_links=replace_links)
    with progress_shown(as_json=as_json) as progress:
        started = without_mount.create(directory, passwords(), settings, progress, offline=offline, base=base)
    if as_json:
        answer = {"mountpoint": str(mountpoint), "store": url, "state": str(directory.path)}
        print_json({**answer, "base": asdict(started)} if started else answer)
    else:
        click.echo(f"a session for {mountpoint}; blocks go to {shown_store(url)}")
        if started:
            click.echo("\n".join(base_lines(asdict(started))))
        click.echo("fill it with: flistfs add SOURCE…   and seal it with: flistfs seal OUT.flist")
