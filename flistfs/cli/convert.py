"""flistfs convert."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.api.configuring import MetadataChange
from flistfs.api.converting import convert
from flistfs.api.format_names import FORMATS, FormatName
from flistfs.api.store_names import FROM_PASSWORD_VARIABLE
from flistfs.cli import documents
from flistfs.cli.answers import answer
from flistfs.cli.metadata_options import metadata_options, startup_option
from flistfs.cli.options import (
    StorePlace,
    accept_faults_option,
    any_path,
    check_content_option,
    flist_argument,
    force_option,
    json_option,
    min_replicas_option,
    public_url_option,
    router_option,
    source_date_epoch,
    store_option,
    timeout_option,
    usual_store,
)
from flistfs.cli.output import accepted_lines, is_watched, progress_shown, seal_lines
from flistfs.cli.secrets import password


@click.command("convert", short_help="Make an flist of another format of a sealed one.")
@flist_argument
@click.argument("out", type=any_path, metavar="OUT.flist")
@click.option(
    "--format", "format_", type=click.Choice(FORMATS), required=True, help="The format of the new flist."
)
@store_option
@click.option(
    "--from",
    "source",
    type=StorePlace(),
    metavar="URL|FILE",
    help="Where the blocks of FLIST are. Default: where it says, else $FLISTFS_STORE, else a directory of "
    "yours. A password may come from $FLISTFS_FROM_PASSWORD.",
)
@accept_faults_option
@force_option
@min_replicas_option
@router_option
@public_url_option
@metadata_options
@startup_option
@timeout_option
@check_content_option
@json_option
def command(
    package: Path,
    out: Path,
    format_: FormatName,
    store: str | None,
    source: str | None,
    accept_faults: bool,
    force: bool,
    min_replicas: int | None,
    router: Path | None,
    public_url: str | None,
    metadata: MetadataChange,
    startup: bool,
    timeout: float,
    check_content: bool,
    as_json: bool,
) -> None:
    """Make an flist of another format of a sealed one.

    Blocks differ from format to format: each is fetched, checked, encoded anew and stored. What the store has
    already is not sent again, and after an interruption the same command goes on where it stopped.

    \b
    Example:
      flistfs convert old.flist new.flist --format sqlite --store zdb://host:9900
      flistfs convert old.flist new.flist --format sqlite --from ardb://old:16379 --store redis://host
    """
    with progress_shown(as_json=as_json) as progress:
        converted = convert(
            package,
            out,
            format=format_,
            store=store,
            password=password(),
            source=source,
            source_password=password(FROM_PASSWORD_VARIABLE),
            fallback_store=usual_store(),
            min_replicas=min_replicas,
            accept_faults=accept_faults,
            force=force,
            epoch=source_date_epoch(),
            public_url=public_url,
            router=router,
            metadata=metadata,
            startup=startup,
            timeout=timeout,
            check_content=check_content,
            measure=is_watched(),
            progress=progress,
        )
    if as_json:
        answer(documents.converted(converted))
        return
    click.echo("\n".join(seal_lines(converted.sealed)))
    for line in accepted_lines(converted.accepted_faults):
        click.echo(line)
    for key in converted.dropped:
        click.echo(f"note: the metadata {key!r} is left out: the format {format_} has no place for it")
