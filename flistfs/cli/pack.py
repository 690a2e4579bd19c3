"""flistfs pack."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.api.configuring import MetadataChange
from flistfs.api.format_names import FORMATS, FormatName
from flistfs.api.packing import pack
from flistfs.cli import documents
from flistfs.cli.answers import answer
from flistfs.cli.metadata_options import metadata_options
from flistfs.cli.options import (
    any_path,
    check_content_option,
    exclude_from_option,
    exclude_option,
    exclude_patterns,
    force_option,
    format_option,
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
from flistfs.cli.output import complain_left_out, is_watched, progress_shown, seal_lines
from flistfs.cli.secrets import password


@click.command("pack", short_help="Make an flist of a directory or a tar archive, in one go.")
@click.argument("source", metavar="SOURCE")
@click.argument("out", type=any_path, metavar="OUT.flist")
@store_option
@format_option
@force_option
@owner_option
@exclude_option
@exclude_from_option
@keep_going_option
@min_replicas_option
@router_option
@public_url_option
@metadata_options
@click.option(
    "--startup/--no-startup",
    default=None,
    help="Put a .startup.toml with the entrypoint and environment into the tree, for Zero-OS. "
    "Default: if an image says.",
)
@click.option(
    "--platform", metavar="OS/ARCH", help="Which one of an image for several. Default: this machine's."
)
@timeout_option
@check_content_option
@json_option
def command(
    source: str,
    out: Path,
    store: str | None,
    format_: FormatName | None,
    force: bool,
    owner: str | None,
    exclude: tuple[str, ...],
    exclude_from: tuple[Path, ...],
    keep_going: bool,
    min_replicas: int | None,
    router: Path | None,
    public_url: str | None,
    metadata: MetadataChange,
    startup: bool | None,
    platform: str | None,
    timeout: float,
    check_content: bool,
    as_json: bool,
) -> None:
    """Make an flist of a directory, or of a tar archive (plain, gzip, bzip2, xz, zstd; `-`: standard input).

    No mount is needed, and no root: owners, modes, times, links and devices are taken as they are.

    A container image becomes an flist of the tree that its layers make, with what starts it: what `docker
    save` writes, or an OCI layout, as a file or a directory. docker-archive:FILE[:NAME:TAG],
    oci-archive:FILE[:REF] and oci:DIR[:REF] say so; tar:FILE and dir:DIR take what is there as it is.

    \b
    Example:
      flistfs pack rootfs out.flist --store ardb://host:16379
      docker export CONTAINER | flistfs pack - out.flist
      docker save -o app.tar app && flistfs pack app.tar out.flist --format sqlite
    """
    with progress_shown(as_json=as_json) as progress:
        packed = pack(
            None if source == "-" else source,
            out,
            store=store,
            password=password(),
            format=format_ or FORMATS[0],
            min_replicas=min_replicas,
            force=force,
            owner=parse_owner(owner),
            epoch=source_date_epoch(),
            exclude=exclude_patterns(exclude, exclude_from),
            keep_going=keep_going,
            public_url=public_url,
            router=router,
            metadata=metadata,
            startup=startup,
            platform=platform,
            timeout=timeout,
            check_content=check_content,
            measure=is_watched(),
            progress=progress,
        )
    if as_json:
        answer(documents.packed(packed))
    else:
        click.echo("\n".join(seal_lines(packed.sealed)))
    if packed.image is not None and not as_json:
        called = f" {packed.image.name}" if packed.image.name else ""
        click.echo(
            f"flistfs: note: {packed.image.source} is the image{called} ({packed.image.digest})", err=True
        )
    for note in packed.added.notes:
        click.echo(f"flistfs: note: {note}", err=True)
    complain_left_out(packed.added)
