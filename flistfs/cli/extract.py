"""flistfs extract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from flistfs.api.extracting import Extracted, extract
from flistfs.api.flists import read_past
from flistfs.cli import documents
from flistfs.cli.answers import absolute, answer
from flistfs.cli.options import any_path, flist_argument, from_store_option, json_option, usual_store
from flistfs.cli.output import human_size, kinds, plural, progress_shown
from flistfs.cli.secrets import password
from flistfs.errors import OutputError
from flistfs.tree.names import printable


@click.command("extract", short_help="Make the files of an flist.")
@flist_argument
@click.argument("target", type=any_path, metavar="DIR")
@click.option(
    "--only",
    "patterns",
    metavar="PATTERN",
    multiple=True,
    help="Extract only what matches, as in .gitignore: a name anywhere, or with a slash a path from the "
    "root; and all below it. May be given again; !PATTERN takes out again.",
)
@click.option("--no-devices", is_flag=True, help="Leave devices out, which only root may make.")
@from_store_option
@json_option
def command(
    package: Path, target: Path, patterns: tuple[str, ...], no_devices: bool, store: str | None, as_json: bool
) -> None:
    """Make the files of an flist in DIR, a new or empty directory, with owners, modes and times.

    Who is not root owns everything; set-id bits of what should belong to others are left out then. What
    cannot be finished is left as far as it got.

    \b
    Example:
      flistfs extract out.flist rootfs
      flistfs extract out.flist conf --only '/etc/*.conf' --only '/usr/lib/**/*.so'
    """
    with progress_shown() as progress:
        found = extract(
            package,
            target,
            store=store,
            password=password(),
            fallback_store=usual_store(),
            only=patterns,
            devices=not no_devices,
            progress=progress,
        )
    if as_json:
        answer(documents.extracted(absolute(target), found))
    else:
        click.echo("\n".join(_lines(target, found)))
    if found.devices:
        raise OutputError(
            f"{plural(len(found.devices), 'device')} could not be made, as only root may (the first is "
            f"{printable(found.devices[0])}); all else is in {target}. --no-devices leaves devices out"
        )
    if found.faults:
        raise read_past(str(package), found.faults, found.fault_count)


def _lines(target: Path, found: Extracted) -> Iterator[str]:
    yield f"{target}: {kinds(found)}; {human_size(found.size)} of content"
    if found.foreign:
        yield (
            f"note: {plural(found.foreign, 'entry belongs', 'entries belong')} to others in the flist, "
            "and to you here"
        )
    if found.set_id:
        yield f"note: {plural(found.set_id, 'file')} of those lost set-id bits"
