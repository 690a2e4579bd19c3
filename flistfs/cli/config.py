"""flistfs config."""

from __future__ import annotations

import os
from pathlib import Path

import click

from flistfs.api.configuring import MetadataChange, configure
from flistfs.api.flists import open  # noqa: A004  flistfs.open, like gzip.open
from flistfs.cli import documents
from flistfs.cli.answers import absolute, answer
from flistfs.cli.metadata_options import metadata_options
from flistfs.cli.options import changed_option, flist_argument, force_changed_option, json_option
from flistfs.cli.output import metadata_lines
from flistfs.errors import UsageError


@click.command("config", short_help="Show or change what an flist says of how it is used.")
@flist_argument
@metadata_options
@changed_option
@force_changed_option
@json_option
def command(package: Path, metadata: MetadataChange, out: Path | None, force: bool, as_json: bool) -> None:
    """Show the metadata of an flist, or change it: how it is started, and what is said about it.

    Its tree and its blocks stay as they are. Only the format sqlite has a place for metadata.

    \b
    Example:
      flistfs config out.flist
      flistfs config out.flist --entrypoint "/bin/httpd -f" --env PATH=/bin --port tcp/80:8080
      flistfs config out.flist --unset environ --readme README.md -o new.flist
    """
    if metadata:
        configure(package, metadata, out=out, force=force)
    elif out is not None:
        raise UsageError("-o is for a changed flist, and nothing is to be changed")
    result = package if out is None else out
    with open(result) as flist:
        if as_json:
            answer({"package": absolute(result), "metadata": documents.metadata(flist)})
            return
        for line in metadata_lines(flist):
            click.echo(line)
        if not flist.metadata:
            click.echo(f"{os.fspath(result)} has no metadata", err=True)
