"""flistfs merge."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from flistfs.cli.messages import spoken
from flistfs.cli.nodes import counts_by_kind
from flistfs.cli.options import any_path, json_option, replace_links_option
from flistfs.cli.output import (
    hidden_lines,
    human_size,
    kinds,
    plural,
    print_json,
    print_json_error,
    progress_shown,
)
from flistfs.reading.flist import Flist
from flistfs.reading.merge import Merged, PathsClashError, Source, merge
from flistfs.reading.union import Clash
from flistfs.tree.names import printable
from flistfs.tree.node import Kind
from flistfs.tree.rules import Prefer


@click.command("merge", short_help="Merge flists into one.")
@click.argument("packages", nargs=-1, required=True, type=any_path, metavar="FLIST...")
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
@click.option("--force", is_flag=True, help="Replace OUT.flist if it exists.")
@json_option
def command(
    packages: tuple[Path, ...],
    out: Path,
    prefer: str | None,
    replace_links: bool,
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
        with ExitStack() as opened, progress_shown() as progress:
            sources = [Source(str(path), opened.enter_context(Flist.open(path))) for path in packages]
            wanted = Prefer(prefer) if prefer else None
            merged = merge(
                sources, out, prefer=wanted, replace_links=replace_links, force=force, progress=progress
            )
    except PathsClashError as error:
        if as_json:
            clashes = [_clash_as_dict(each) for each in error.clashes]
            print_json_error(error.code, error.exit_code, str(error), error.paths, clashes=clashes)
        else:
            _print_clashes(error.clashes)
        raise
    if as_json:
        print_json(_as_dict(out, merged))
    else:
        _print(out, merged)


def _clash_as_dict(clash: Clash) -> dict[str, Any]:
    return {
        "path": os.fsdecode(clash.path),
        "found": [list(found) for found in clash.found],
        "why": spoken(clash.reason) or None,
    }


def _print_clashes(clashes: Sequence[Clash]) -> None:
    for clash in clashes:
        found = ", ".join(f"{name} ({kind})" for name, kind in clash.found)
        why = f": {spoken(clash.reason)}" if clash.reason else ""
        click.echo(f"{printable(clash.path)}: {found}{why}")


def _as_dict(out: Path, merged: Merged) -> dict[str, Any]:
    return {
        "out": str(out),
        "kinds": {kind.value: merged.kinds[kind] for kind in Kind if merged.kinds[kind]},
        "size": merged.size,
        "clashes": merged.clashes,
        "hidden": {name: list(map(os.fsdecode, paths)) for name, paths in merged.hidden.items()},
        "package_size": merged.package_size,
        "notes": [spoken(note) for note in merged.notes],
    }


def _print(out: Path, merged: Merged) -> None:
    click.echo(f"{out}: {kinds(counts_by_kind(merged.kinds))}; {human_size(merged.size)} of content")
    if merged.clashes:
        click.echo(f"preferred one of several at {plural(merged.clashes, 'path')}")
    for line in hidden_lines({name: len(paths) for name, paths in merged.hidden.items()}):
        click.echo(line)
    for note in merged.notes:
        click.echo(f"note: {spoken(note)}")
