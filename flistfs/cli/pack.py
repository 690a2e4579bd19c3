"""flistfs pack."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from flistfs.authoring.request import USUAL_FORMAT, AddRequest, SealOptions, SealRequest
from flistfs.cli import interrupts
from flistfs.cli.options import (
    absolute_output,
    any_path,
    check_content_option,
    exclude_from_option,
    exclude_option,
    exclude_patterns,
    force_option,
    json_option,
    keep_going_option,
    min_replicas_option,
    owner_option,
    parse_owner,
    public_url_option,
    router_option,
    source_date_epoch,
    store_option,
    timeout_option,
)
from flistfs.cli.output import complain_left_out, is_watched, print_json, progress_shown, seal_lines
from flistfs.cli.secrets import passwords
from flistfs.stores import default_store_url
from flistfs.stores.readers import router_for_readers
from flistfs.stores.url import parse_store_url, with_min_replicas
from flistfs.util.output_file import check_output


@click.command("pack", short_help="Make an flist of a directory or a tar archive, in one go.")
@click.argument("source", metavar="SOURCE")
@click.argument("out", type=any_path, metavar="OUT.flist")
@store_option
@force_option
@owner_option
@exclude_option
@exclude_from_option
@keep_going_option
@min_replicas_option
@router_option
@public_url_option
@timeout_option
@check_content_option
@json_option
def command(
    source: str,
    out: Path,
    store: str | None,
    force: bool,
    owner: str | None,
    exclude: tuple[str, ...],
    exclude_from: tuple[Path, ...],
    keep_going: bool,
    min_replicas: int | None,
    router: Path | None,
    public_url: str | None,
    timeout: float,
    check_content: bool,
    as_json: bool,
) -> None:
    """Make an flist of a directory, or of a tar archive (plain, gzip, bzip2, xz, zstd; `-`: standard input).

    No mount is needed, and no root: owners, modes, times, links and devices are taken as they are.

    \b
    Example:
      flistfs pack rootfs out.flist --store ardb://host:16379
      docker export CONTAINER | flistfs pack - out.flist
    """
    patterns = exclude_patterns(exclude, exclude_from)
    options = SealOptions(parse_owner(owner), source_date_epoch())
    route = router_for_readers(router, public_url)
    request = SealRequest(absolute_output(out), force, timeout, options, route, check_content=check_content)
    check_output(request.out, force=force)  # before the hours that reading may take
    reading = AddRequest((), "", patterns, keep_going, timeout, measure=is_watched())
    url = str(with_min_replicas(parse_store_url(store or default_store_url()), min_replicas))
    with interrupts.loading():  # --help need not wait for it
        from flistfs.authoring import offline  # noqa: PLC0415
        from flistfs.authoring.upload import encoder_process  # noqa: PLC0415
        from flistfs.format.opening import format_named  # noqa: PLC0415

    encoder_process.prepare(url, format_named(USUAL_FORMAT).codec)

    with progress_shown(as_json=as_json) as progress:
        added, summary = offline.pack(source, url, USUAL_FORMAT, passwords(), request, reading, progress)
    plain = asdict(added)
    if as_json:
        about_source = {key: plain[key] for key in ("left_out", "left_out_count")}
        print_json({**summary, **about_source, "notes": [*summary["notes"], *added.notes]})
    else:
        click.echo("\n".join(seal_lines(summary)))
    for note in added.notes:
        click.echo(f"flistfs: note: {note}", err=True)
    complain_left_out(plain)
