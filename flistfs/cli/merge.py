"""flistfs merge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from flistfs.api.merging import Clash, Merged, PathsClashError, Prefer, merge
from flistfs.cli import documents
from flistfs.cli.answers import absolute, answer
from flistfs.cli.messages import spoken
from flistfs.cli.nodes import counts_by_kind
from flistfs.cli.options import accept_faults_option, any_path, flist_place, json_option, replace_links_option
from flistfs.cli.output import accepted_lines, hidden_lines, human_size, kinds, plural, progress_shown
from flistfs.tree.names import printable


@click.command("merge", short_help="Merge flists into one.")
@click.argument("packages", nargs=-1, required=True, type=flist_place, metavar="FLIST...")
@click.option(
    "-o",
    "--output",
    "out",
    required=True,
    type=any_path,
    metavar="OUT.flist",
    help="The result.",
)
@click.option(
    "--prefer",
    type=click.Choice([each.value for each in Prefer]),
    help="Which wins a path that several have: the first or the last that was named, or the newer one.",
)
@replace_links_option
@accept_faults_option
@click.option("--force", is_flag=True, help="Replace OUT.flist if it exists.")
@json_option
def command(
    packages: tuple[Path, ...],
    out: Path,
    prefer: str | None,
    replace_links: bool,
    accept_faults: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Merge flists into one, without fetching a block.

    Directories unite, also through a link to a directory in an flist before them. Any other path that two of
    them have is listed, and refused (exit code 12) unless --prefer says which to take; so is a file where
    another has a directory. A link that would hide a directory needs --replace-links as well.

    \b
    Example:
      flistfs merge -o out.flist base.flist app.flist
      flistfs merge -o out.flist base.flist patch.flist --prefer last
    """
    try:
        with progress_shown() as progress:
            merged = merge(
                out,
                packages,
                prefer=Prefer(prefer).value if prefer else None,
                replace_links=replace_links,
                accept_faults=accept_faults,
                force=force,
                progress=progress,
            )
    except PathsClashError as error:
        if not as_json:  # there the error lists them
            _print_clashes(error.clashes)
        raise
    if as_json:
        answer(documents.merged(absolute(out), merged))
    else:
        _print(out, merged)


def _print_clashes(clashes: Sequence[Clash]) -> None:
    for clash in clashes:
        found = ", ".join(f"{name} ({kind})" for name, kind in clash.found)
        why = f": {spoken(clash.reason)}" if clash.reason else ""
        click.echo(f"{printable(clash.path)}: {found}{why}")


def _print(out: Path, merged: Merged) -> None:
    click.echo(f"{out}: {kinds(counts_by_kind(merged.kinds))}; {human_size(merged.size)} of content")
    if merged.clashes:
        click.echo(f"preferred one of several at {plural(merged.clashes, 'path')}")
    for line in hidden_lines({name: len(paths) for name, paths in merged.hidden.items()}):
        click.echo(line)
    for line in accepted_lines(merged.accepted_faults):
        click.echo(line)
    for note in merged.notes:
        click.echo(f"note: {spoken(note)}")
