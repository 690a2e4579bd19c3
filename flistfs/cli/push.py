"""flistfs push."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import click

from flistfs.cli.options import (
    StorePlace,
    check_content_option,
    flist_argument,
    json_option,
    min_replicas_option,
    usual_store,
)
from flistfs.cli.output import human_size, plural, print_json, progress_shown, replaced_lines
from flistfs.cli.secrets import password
from flistfs.reading.content import store_of
from flistfs.reading.flist import Flist
from flistfs.reading.push import push
from flistfs.stores import open_store
from flistfs.stores.url import FROM_PASSWORD_VARIABLE, parse_store_url, shown_store, with_min_replicas


@click.command("push", short_help="Bring the blocks of an flist to another store.")
@flist_argument
@click.option(
    "--to", type=StorePlace(), required=True, metavar="URL|FILE", help="The store to bring them to."
)
@click.option(
    "--from",
    "source",
    type=StorePlace(),
    metavar="URL|FILE",
    help="The store to take them from. Default: where the flist says that they are, else $FLISTFS_STORE, "
    "else a directory of yours.",
)
@min_replicas_option
@check_content_option
@json_option
def command(
    package: Path,
    to: str,
    source: str | None,
    min_replicas: int | None,
    check_content: bool,
    as_json: bool,
) -> None:
    """Bring the blocks of an flist to another store: those that it lacks, each checked on the way.

    After an interruption the same command goes on where it was. The password of the store to bring them to
    may come from $FLISTFS_STORE_PASSWORD, that of the other from $FLISTFS_FROM_PASSWORD.

    \b
    Example:
      flistfs push out.flist --to ardb://host:16379
      flistfs push out.flist --from redis://old:6379 --to router.yaml
    """
    if min_replicas is not None:
        to = str(with_min_replicas(parse_store_url(to), min_replicas))
    with (
        Flist.open(package) as flist,
        closing(
            store_of(
                flist,
                source,
                password(FROM_PASSWORD_VARIABLE),
                usual_store(),
                password_variable=FROM_PASSWORD_VARIABLE,
            )
        ) as origin,
        closing(open_store(to, flist.codec, password())) as target,
    ):
        target.check()
        with progress_shown() as progress:
            summary = push(flist, origin, target, progress, check_content=check_content)
    if as_json:
        print_json(asdict(summary))
        return
    click.echo(
        f"{shown_store(target.url)}: {plural(summary.sent, 'block')} sent "
        f"({human_size(summary.sent_bytes)}), {summary.blocks - summary.sent:,} there before"
    )
    for line in replaced_lines(summary.replaced):
        click.echo(line)
