"""flistfs info."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flistfs.cli import documents
from flistfs.cli.answers import absolute, answer
from flistfs.cli.nodes import counts_by_kind
from flistfs.cli.options import flist_argument, json_option
from flistfs.cli.output import human_size, kinds, metadata_lines, plural, progress_shown
from flistfs.cli.reading import opened
from flistfs.tree.names import printable

if TYPE_CHECKING:
    from flistfs.api.flists import Flist, Router, Survey


@click.command("info", short_help="Sum up what is in an flist.")
@flist_argument
@click.option(
    "--largest",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    metavar="N",
    help="Name the N largest files.",
)
@json_option
def command(package: Path, largest: int, as_json: bool) -> None:
    """Sum up what is in an flist: entries by kind, bytes, blocks, owners, the router, the largest files.

    \b
    Example:
      flistfs info out.flist
    """
    with opened(package) as flist:
        with progress_shown() as progress:
            survey = flist.survey(largest=largest, progress=progress)
        if as_json:
            answer(documents.survey(absolute(package), flist, survey))
        else:
            click.echo("\n".join(_lines(flist, survey)))


def _lines(flist: Flist, survey: Survey) -> Iterator[str]:
    counts = counts_by_kind(survey.kinds)
    yield f"format {flist.format}: {kinds(counts)}; {human_size(survey.size)} of content"
    yield (
        f"blocks: {survey.blocks:,}, {survey.unique_blocks:,} of them unique "
        f"({human_size(survey.unique_size)} of content)"
    )
    for owner, count in documents.by_count(survey.owners):
        numbers = "" if owner.uid is None else f" ({owner.uid}:{owner.gid})"
        names = printable(owner.user + b":" + owner.group)
        yield f"owner {names}{numbers}: {plural(count, 'entry', 'entries')}"
    yield from (f"metadata {line}" for line in metadata_lines(flist))
    yield from _router_lines(flist.router)
    for size, path in survey.largest:
        yield f"{human_size(size):>10}  {printable(path)}"


def _router_lines(router: Router | None) -> Iterator[str]:
    if router is None:
        yield "no router: readers need to be configured with the store of its blocks"
        return
    yield f"router: asks {', '.join(router.lookup)}"
    for pool in router.pools:
        yield from (f"  {pool.name} {rule.range}: {rule.url}" for rule in pool.rules)
