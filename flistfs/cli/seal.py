"""flistfs seal."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.api.by_mountpoint import find_session, seal
from flistfs.api.configuring import MetadataChange
from flistfs.api.store_names import BASE_PASSWORD_VARIABLE
from flistfs.cli import documents
from flistfs.cli.answers import answer
from flistfs.cli.emptiness import warn_if_empty
from flistfs.cli.metadata_options import metadata_options, startup_option
from flistfs.cli.options import (
    any_path,
    check_content_option,
    exclude_from_option,
    exclude_option,
    exclude_patterns,
    force_option,
    json_option,
    mount_option,
    owner_option,
    parse_owner,
    public_url_option,
    router_option,
    source_date_epoch,
    timeout_option,
)
from flistfs.cli.output import progress_shown, seal_lines
from flistfs.cli.secrets import password


@click.command("seal", short_help="Seal a session into an flist.")
@click.argument("out", type=any_path, metavar="OUT.flist")
@mount_option
@force_option
@owner_option
@exclude_option
@exclude_from_option
@router_option
@public_url_option
@metadata_options
@startup_option
@click.option("--incomplete", is_flag=True, help="Seal even if something was not added whole.")
@timeout_option
@check_content_option
@json_option
def command(
    out: Path,
    mountpoint: Path | None,
    force: bool,
    owner: str | None,
    exclude: tuple[str, ...],
    exclude_from: tuple[Path, ...],
    router: Path | None,
    public_url: str | None,
    metadata: MetadataChange,
    startup: bool,
    incomplete: bool,
    timeout: float,
    check_content: bool,
    as_json: bool,
) -> None:
    """Seal a session into OUT.flist: store what is left, check the store, unmount, package.

    If the mount is in use, something was not added whole, the output can't be written or the store lost a
    block, it says so and the mount stays as it is. SOURCE_DATE_EPOCH makes times reproducible.

    \b
    Example:
      flistfs seal out.flist
      flistfs seal out.flist --mount /mnt/build --owner 0:0
      flistfs seal out.flist --public-url ardb://blocks.example.org:16379
    """
    place = find_session(mountpoint).mountpoint
    with progress_shown() as progress:
        sealed = seal(
            out,
            mountpoint=mountpoint,
            password=password(),
            base_password=password(BASE_PASSWORD_VARIABLE),
            force=force,
            owner=parse_owner(owner),
            epoch=source_date_epoch(),
            exclude=exclude_patterns(exclude, exclude_from),
            public_url=public_url,
            router=router,
            metadata=metadata,
            startup=startup,
            incomplete=incomplete,
            timeout=timeout,
            check_content=check_content,
            progress=progress,
        )
    warnings = warn_if_empty(sealed, Path(place))
    if as_json:
        answer(documents.sealed(sealed, warnings))
    else:
        click.echo("\n".join(seal_lines(sealed)))
