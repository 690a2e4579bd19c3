"""flistfs route."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.api.routing import route
from flistfs.cli import documents
from flistfs.cli.answers import answer
from flistfs.cli.options import (
    changed_option,
    flist_argument,
    force_changed_option,
    json_option,
    timeout_option,
)
from flistfs.cli.output import progress_shown, server_lines


@click.command("route", short_help="Say anew where the blocks of an flist are.")
@flist_argument
@click.option(
    "--router", type=click.Path(path_type=Path), metavar="FILE", help="A router.yaml of the servers."
)
@click.option("--public-url", metavar="URL", help="The one server.")
@changed_option
@force_changed_option
@click.option(
    "--no-check", is_flag=True, help="Take it without asking the servers whether they have all blocks."
)
@timeout_option
@json_option
def command(
    package: Path,
    router: Path | None,
    public_url: str | None,
    out: Path | None,
    force: bool,
    no_check: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Say anew where the blocks of a sealed flist are, when they were moved or have another address.

    The servers are asked for every block first, as readers do: without a password.

    \b
    Example:
      flistfs route out.flist --public-url zdb://blocks.example.org:9900
      flistfs route out.flist --router router.yaml -o new.flist
    """
    with progress_shown() as progress:
        routed = route(
            package,
            router=router,
            public_url=public_url,
            out=out,
            force=force,
            check=not no_check,
            timeout=timeout,
            progress=progress,
        )
    if as_json:
        answer(documents.routed(routed))
        return
    for line in server_lines(routed.out, routed.servers, routed.notes):
        click.echo(line)
