"""flistfs mount."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
from click.core import ParameterSource

from flistfs.api.configuring import MetadataChange
from flistfs.api.format_names import FormatName
from flistfs.api.mounting import Mounted, keep_failed_starts, mount, mount_sealed, obstacle_to_low_latency
from flistfs.api.store_names import BASE_PASSWORD_VARIABLE, shown_store
from flistfs.cli import documents
from flistfs.cli.answers import answer
from flistfs.cli.metadata_options import metadata_options, startup_option
from flistfs.cli.mount_sealed import print_mounted_flist
from flistfs.cli.options import (
    Size,
    accept_faults_option,
    any_path,
    base_store_option,
    bases_option,
    flist_place,
    format_option,
    json_option,
    min_replicas_option,
    public_url_option,
    replace_links_option,
    router_option,
    source_date_epoch,
    store_option,
    usual_store,
)
from flistfs.cli.output import base_lines, progress_shown
from flistfs.cli.secrets import password
from flistfs.errors import FlistfsError, UsageError


class _Mount(click.Command):
    """The command, which keeps why it was refused for processes that wait for the end of the mount."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        """Parse the command line and the environment; click calls this."""
        words = [*args]  # click takes them out of the list
        try:
            context = super().make_context(info_name, args, parent, **extra)
            source_date_epoch()
        except (FlistfsError, click.UsageError) as error:
            reason = error if isinstance(error, FlistfsError) else UsageError(error.format_message())
            keep_failed_starts(words, reason)
            raise
        return context


@click.command("mount", cls=_Mount, short_help="Mount an empty file system to be filled.")
# It may be a dead mount, which cannot be read.
@click.argument("mountpoint", type=any_path)
@store_option
@format_option
@bases_option
@base_store_option
@replace_links_option
@accept_faults_option
@click.option("--foreground", is_flag=True, help="Stay in the foreground and log to standard error.")
@click.option("--allow-other", is_flag=True, help="Let other users in; the kernel checks permissions.")
@click.option(
    "--rootfs",
    is_flag=True,
    help="For building a root file system inside, as root: devices and set-id programs work, and every user "
    "may enter (dev, suid, allow_other, default_permissions).",
)
@click.option("-o", "options", metavar="OPTION,…", multiple=True, help="Further mount options.")
@click.option(
    "--state",
    type=any_path,
    metavar="DIR",
    help="The session's directory until it is sealed. Default: below ~/.local/state/flistfs.",
)
@click.option(
    "--seal-to",
    type=any_path,
    metavar="OUT.flist",
    help="Seal into this when the mount is unmounted; `flistfs wait` waits for that.",
)
@router_option
@public_url_option
@metadata_options
@startup_option
@min_replicas_option
@click.option(
    "--xattr", is_flag=True, help="Keep extended attributes until the seal, for builds that need them."
)
@click.option("--offline", is_flag=True, help="Start even if the store does not answer; blocks wait for it.")
@click.option(
    "--spool-size",
    type=Size(),
    metavar="SIZE",
    help="Let at most this much wait to be stored, such as 4G. Default: a tenth of what is free on the disk, "
    "at most 16G.",
)
@click.option(
    "--read-only",
    "package",
    type=flist_place,
    metavar="FLIST",
    help="Mount this sealed flist instead, read-only, its blocks fetched from the store as they are read.",
)
@click.option(
    "--cache-size",
    type=Size(),
    metavar="SIZE",
    help="With --read-only: keep this much content. Default: 64M.",
)
@click.option(
    "--low-latency",
    is_flag=True,
    help="Keep the idle cores of the whole machine from sleeping while requests come in, as root "
    "(/dev/cpu_dma_latency): small files take a fifth less time, and the machine more power.",
)
@json_option
def command(
    mountpoint: Path,
    store: str | None,
    format_: FormatName | None,
    bases: tuple[Path, ...],
    base_store: str | None,
    replace_links: bool,
    accept_faults: bool,
    foreground: bool,
    allow_other: bool,
    rootfs: bool,
    options: tuple[str, ...],
    state: Path | None,
    seal_to: Path | None,
    router: Path | None,
    public_url: str | None,
    metadata: MetadataChange,
    startup: bool,
    min_replicas: int | None,
    xattr: bool,
    offline: bool,
    spool_size: int | None,
    package: Path | None,
    cache_size: int | None,
    low_latency: bool,
    as_json: bool,
) -> None:
    """Mount an empty file system whose content becomes an flist, or with --read-only a sealed flist.

    What is copied into it is stored while the copy runs; `flistfs seal` makes the flist. A session that was
    left without sealing it is resumed; with --from a new one starts with the tree of an flist.

    Without --allow-other or --rootfs only you can enter: processes whose user and group are all yours. Not
    even root can enter the mount of another user, nor can a program that root runs as another group, such
    as apt's _apt.

    \b
    Examples:
      flistfs mount /mnt/build --store ardb://host:16379
      cp -a rootfs/. /mnt/build/
      flistfs seal out.flist
    \b
      flistfs mount /mnt/root --rootfs
      debootstrap stable /mnt/root
      flistfs seal debian.flist
    \b
      flistfs mount /mnt/build --from debian.flist
    \b
      flistfs mount --read-only out.flist /mnt/look
    """
    if low_latency and (obstacle := obstacle_to_low_latency()) is not None:
        click.echo(f"flistfs: --low-latency has no effect: {obstacle}", err=True)
    if package is not None:
        of_sessions = (state, seal_to, spool_size, base_store, min_replicas, router, public_url)
        if (
            xattr
            or bases
            or replace_links
            or accept_faults
            or metadata
            or startup
            or any(option is not None for option in of_sessions)
        ):
            raise UsageError("--read-only mounts what is sealed; leave out what belongs to a session")
        shown = mount_sealed(
            package,
            mountpoint,
            store=_named_store(store),
            password=password(),
            fallback_store=usual_store(),
            allow_other=allow_other,
            rootfs=rootfs,
            options=options,
            cache_size=cache_size,
            offline=offline,
            low_latency=low_latency,
            foreground=foreground,
        )
        print_mounted_flist(shown, package, as_json=as_json)
        return
    if cache_size is not None:
        raise UsageError("--cache-size belongs to --read-only")
    with progress_shown() as progress:
        mounted = mount(
            mountpoint,
            store=store,
            password=password(),
            format=format_,
            min_replicas=min_replicas,
            base=bases,
            base_store=base_store,
            base_password=password(BASE_PASSWORD_VARIABLE),
            fallback_store=usual_store(),
            replace_links=replace_links,
            accept_faults=accept_faults,
            state=state,
            seal_to=seal_to,
            router=router,
            metadata=metadata,
            startup=startup,
            public_url=public_url,
            epoch=source_date_epoch(),
            allow_other=allow_other,
            rootfs=rootfs,
            options=options,
            xattrs=xattr,
            offline=offline,
            spool_size=spool_size,
            low_latency=low_latency,
            foreground=foreground,
            progress=progress,
        )
    if as_json:
        answer(documents.mounted(mounted))
    else:
        click.echo("\n".join(_lines(mounted, seals=seal_to is not None)))


def _named_store(store: str | None) -> str | None:
    """Return the store of the command line; that of the environment is only for flists that name none."""
    source = click.get_current_context().get_parameter_source("store")
    return store if source is ParameterSource.COMMANDLINE else None


def _lines(mounted: Mounted, *, seals: bool) -> Iterator[str]:
    again = " again: its session is resumed" if mounted.resumed else ""
    yield f"{mounted.mountpoint} is mounted{again}; blocks go to {shown_store(mounted.store)}"
    if mounted.base:
        yield from base_lines(mounted.base)
    if not seals:
        yield "seal it with: flistfs seal OUT.flist"
