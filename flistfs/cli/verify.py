"""flistfs verify."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path

import click

from flistfs.cli.options import flist_argument, from_store_option, json_option, usual_store
from flistfs.cli.output import plural, print_json, progress_shown, shown_store
from flistfs.cli.secrets import password
from flistfs.errors import FaultsError
from flistfs.reading.content import store_of
from flistfs.reading.flist import Flist, printable
from flistfs.reading.verify import Report, verify


@click.command("verify", short_help="Check an flist and its blocks.")
@flist_argument
@from_store_option
@click.option("--deep", is_flag=True, help="Fetch, decrypt and check every block.")
@click.option("--no-store", is_flag=True, help="Check the records only, and ask no store for blocks.")
@json_option
def command(package: Path, store: str | None, deep: bool, no_store: bool, as_json: bool) -> None:
    """Check an flist: that it has nothing that readers hang or die of, and that the store has every block.

    Each fault is printed with its path; if there is any, the exit code is 10.

    \b
    Example:
      flistfs verify out.flist
      flistfs verify out.flist --deep --store ardb://host:16379
    """
    if no_store and deep:
        raise click.UsageError("--deep fetches blocks, and --no-store asks for none: leave one out")
    with ExitStack() as opened:
        flist = opened.enter_context(Flist.open(package))
        blocks = (
            None
            if no_store
            else opened.enter_context(closing(store_of(flist, store, password(), usual_store())))
        )
        with progress_shown() as progress:
            report = verify(flist, blocks, deep=deep, progress=progress)
    _print(report, as_json=as_json, no_store=no_store)
    if blocks is not None and blocks.trouble:
        click.echo(f"note: others stood in for a server: {blocks.trouble}", err=True)
    if report.faults:
        asked = "" if blocks is None else f" (blocks were looked for in {shown_store(blocks.url)})"
        raise FaultsError(f"{package} has {plural(len(report.faults), 'fault')}{asked}")


def _print(report: Report, *, as_json: bool, no_store: bool) -> None:
    if as_json:
        faults = [{"path": os.fsdecode(fault.path), "fault": fault.what} for fault in report.faults]
        print_json(asdict(report) | {"faults": faults})
        return
    for fault in report.faults:
        click.echo(f"{printable(fault.path) or '/'}: {fault.what}")
    if not report.faults:
        looked_at = (
            plural(report.directories, "directory", "directories"),
            plural(report.files, "file"),
            "their records only" if no_store else plural(report.blocks, "block"),
        )
        click.echo(f"no faults in {looked_at[0]} and {looked_at[1]} ({looked_at[2]})")
