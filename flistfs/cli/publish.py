"""flistfs publish."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.api.publishing import publish
from flistfs.cli import documents
from flistfs.cli.answers import answer
from flistfs.cli.hub_client import acting_option, hub_option, token
from flistfs.cli.options import any_path, from_store_option, json_option, usual_store
from flistfs.cli.output import plural, progress_shown
from flistfs.cli.secrets import password


@click.command("publish", short_help="Bring an flist to a hub.")
@click.argument("source", type=any_path, metavar="OUT.flist|SOURCE")
@click.option("--name", metavar="NAME", help="What it is called there. Default: the name of the source.")
@hub_option
@acting_option
@from_store_option
@click.option(
    "--blocks", metavar="URL", help="Where the hub's blocks are written to. Default: what the hub tells."
)
@click.option("--as-archive", is_flag=True, help="Send an archive, of which the hub makes an flist.")
@json_option
def command(
    source: Path,
    name: str | None,
    url: str | None,
    acting_for: str | None,
    store: str | None,
    blocks: str | None,
    as_archive: bool,
    as_json: bool,
) -> None:
    """Bring a sealed flist to a hub, or a directory or an archive, of which the hub makes an flist.

    Of an flist the blocks that the hub lacks are sent before, where the hub lets that; else an archive is
    sent. The token comes from $FLISTFS_HUB_TOKEN, or what flistfs hub login kept.

    \b
    Example:
      flistfs publish out.flist --hub https://hub.example
      flistfs publish rootfs --name app:v1
    """
    with progress_shown() as progress:
        done = publish(
            source,
            name=name,
            url=url,
            token=token(),
            acting_for=acting_for,
            store=store,
            password=password(),
            fallback_store=usual_store(),
            blocks=blocks,
            as_archive=as_archive,
            progress=progress,
        )
    if as_json:
        answer(documents.published(done))
        return
    sent = f" after {plural(done.new_blocks, 'block')}" if done.new_blocks else ""
    click.echo(f"{done.url}: sent as an {done.way}{sent}; MD5 {done.md5}")
    for note in done.notes:
        click.echo(f"note: {note}")
