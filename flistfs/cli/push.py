"""flistfs push."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from flistfs.api.flists import read_past
from flistfs.api.pushing import PushSummary, push
from flistfs.api.store_names import FROM_PASSWORD_VARIABLE, shown_store
from flistfs.cli import documents
from flistfs.cli.answers import answer
from flistfs.cli.options import (
    StorePlace,
    check_content_option,
    flist_argument,
    json_option,
    min_replicas_option,
    usual_store,
)
from flistfs.cli.output import human_size, plural, progress_shown, replaced_lines, server_lines
from flistfs.cli.secrets import password


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
@click.option("--update", is_flag=True, help="Let the flist say from then on that its blocks are there.")
@min_replicas_option
@check_content_option
@json_option
def command(
    package: Path,
    to: str,
    source: str | None,
    update: bool,
    min_replicas: int | None,
    check_content: bool,
    as_json: bool,
) -> None:
    """Bring the blocks of an flist to another store: those that it lacks, each checked on the way.

    After an interruption the same command continues where it stopped. The target's password may come from
    $FLISTFS_STORE_PASSWORD, that of the other store from $FLISTFS_FROM_PASSWORD.

    \b
    Example:
      flistfs push out.flist --to ardb://host:16379
      flistfs push out.flist --to zdb://host:9900 --update
      flistfs push out.flist --from redis://old:6379 --to router.yaml
    """
    with progress_shown() as progress:
        summary = push(
            package,
            to,
            password=password(),
            min_replicas=min_replicas,
            source=source,
            source_password=password(FROM_PASSWORD_VARIABLE),
            fallback_store=usual_store(),
            check_content=check_content,
            update=update,
            progress=progress,
        )
    if as_json:
        answer(documents.pushed(summary))
    else:
        click.echo("\n".join(_lines(package, summary)))
    if summary.faults:
        raise read_past(str(package), summary.faults, summary.fault_count)


def _lines(package: Path, summary: PushSummary) -> Iterator[str]:
    yield (
        f"{shown_store(summary.store)}: {plural(summary.sent, 'block')} sent "
        f"({human_size(summary.sent_bytes)}), {summary.blocks - summary.sent:,} there before"
    )
    yield from replaced_lines(summary.replaced)
    if summary.servers:
        yield from server_lines(str(package), summary.servers, summary.notes)
