"""flistfs info."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from flistfs.cli.nodes import counts_by_kind
from flistfs.cli.options import flist_argument, json_option
from flistfs.cli.output import human_size, kinds, plural, print_json, progress_shown
from flistfs.format.router import Router, without_passwords
from flistfs.reading.flist import Flist
from flistfs.reading.survey import Survey, take_survey
from flistfs.tree.names import printable
from flistfs.tree.node import Kind


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
    with Flist.open(package) as flist, progress_shown() as progress:
        summary = _as_dict(flist, take_survey(flist, largest=largest, progress=progress))
    if as_json:
        print_json(summary)
    else:
        click.echo("\n".join(_lines(summary)))


def _as_dict(flist: Flist, survey: Survey) -> dict[str, Any]:
    router = flist.router()
    return {
        "format": flist.format.name,
        "kinds": {kind.value: survey.kinds[kind] for kind in Kind if survey.kinds[kind]},
        "size": survey.size,
        "blocks": survey.blocks,
        "unique_blocks": survey.unique_blocks,
        "unique_size": survey.unique_size,
        "owners": [
            {
                "user": os.fsdecode(owner.user),
                "group": os.fsdecode(owner.group),
                "uid": owner.uid,
                "gid": owner.gid,
                "entries": count,
            }
            for owner, count in sorted(
                survey.owners.items(), key=lambda item: (-item[1], item[0].user, item[0].group, str(item[0]))
            )
        ],
        "router": _router_as_dict(router) if router else None,
        "largest": [{"path": os.fsdecode(path), "size": size} for size, path in survey.largest],
    }


def _router_as_dict(router: Router) -> dict[str, Any]:
    router = without_passwords(router)
    return {
        "pools": {
            pool.name: [{"range": str(rule.range), "url": rule.url} for rule in pool.rules]
            for pool in router.pools
        },
        "lookup": list(router.lookup),
        "cache": list(router.cache),
    }


def _lines(summary: dict[str, Any]) -> Iterator[str]:
    counts = counts_by_kind({Kind(kind): count for kind, count in summary["kinds"].items()})
    yield f"format {summary['format']}: {kinds(counts)}; {human_size(summary['size'])} of content"
    yield (
        f"blocks: {summary['blocks']:,}, {summary['unique_blocks']:,} of them unique "
        f"({human_size(summary['unique_size'])} of content)"
    )
    for owner in summary["owners"]:
        numbers = "" if owner["uid"] is None else f" ({owner['uid']}:{owner['gid']})"
        names = printable(os.fsencode(f"{owner['user']}:{owner['group']}"))
        yield f"owner {names}{numbers}: {plural(owner['entries'], 'entry', 'entries')}"
    yield from _router_lines(summary["router"])
    for file in summary["largest"]:
        yield f"{human_size(file['size']):>10}  {printable(os.fsencode(file['path']))}"


def _router_lines(router: dict[str, Any] | None) -> Iterator[str]:
    if router is None:
        yield "no router: readers must be told where its blocks are"
        return
    yield f"router: asks {', '.join(router['lookup'])}"
    for name, rules in router["pools"].items():
        yield from (f"  {name} {rule['range']}: {rule['url']}" for rule in rules)
