"""flistfs mount."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from flistfs.authoring.request import USUAL_FORMAT, BaseRequest
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import directory_for, keep_failed_start, sessions_root
from flistfs.authoring.state.lock import Lock
from flistfs.authoring.state.settings import Settings
from flistfs.cli.mount_sealed import mount_sealed
from flistfs.cli.options import (
    Size,
    any_path,
    base_request,
    base_store_option,
    bases_option,
    json_option,
    min_replicas_option,
    public_url_option,
    replace_links_option,
    router_option,
    source_date_epoch,
    store_option,
)
from flistfs.cli.output import base_lines, print_json, progress_shown
from flistfs.cli.secrets import password
from flistfs.daemons import launch
from flistfs.errors import (
    FlistfsError,
    InterruptedByUserError,
    MountError,
    OutputError,
    SessionError,
    UsageError,
)
from flistfs.fuse import mounts
from flistfs.stores import default_store_url
from flistfs.stores.readers import router_for_readers
from flistfs.stores.url import parse_store_url, shown_store, with_min_replicas
from flistfs.util.output_file import refuse_existing
from flistfs.util.progress import quiet

# Seconds to wait for the daemon of a mount that has just ended.
_PATIENCE = 20.0


class _Mount(click.Command):
    """The command, which keeps why it failed for whoever waits for the end of the mount."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        """Parse the command line; click calls this."""
        words = [*args]  # click takes them out of the list
        try:
            return super().make_context(info_name, args, parent, **extra)
        except (FlistfsError, click.UsageError) as error:
            reason = error if isinstance(error, FlistfsError) else UsageError(error.format_message())
            # Which of the words is the mount point, nobody knows; that of a session is one.
            for place in (
                mounts.resolve_mountpoint(Path(word)) for word in words if word[:1] not in {"", "-"}
            ):
                if directory_for(place).exists():
                    keep_failed_start(place, reason)
            raise

    def invoke(self, ctx: click.Context) -> object:
        """Run it; click calls this."""
        try:
            return super().invoke(ctx)
        except (FlistfsError, KeyboardInterrupt) as error:
            if ctx.params["package"] is None:
                interrupted = InterruptedByUserError("it was interrupted")
                reason = error if isinstance(error, FlistfsError) else interrupted
                keep_failed_start(mounts.resolve_mountpoint(ctx.params["mountpoint"]), reason)
            raise


@click.command("mount", cls=_Mount, short_help="Mount an empty file system to be filled.")
# It may be a dead mount, which cannot be read.
@click.argument("mountpoint", type=any_path)
@store_option
@bases_option
@base_store_option
@replace_links_option
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
    help="Where the session lies until it is sealed. Default: below ~/.local/state/flistfs.",
)
@click.option(
    "--seal-to",
    type=any_path,
    metavar="OUT.flist",
    help="Seal into this when the mount is unmounted; `flistfs wait` waits for that.",
)
@router_option
@public_url_option
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
    type=any_path,
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
    bases: tuple[Path, ...],
    base_store: str | None,
    replace_links: bool,
    foreground: bool,
    allow_other: bool,
    rootfs: bool,
    options: tuple[str, ...],
    state: Path | None,
    seal_to: Path | None,
    router: Path | None,
    public_url: str | None,
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
    left without sealing it goes on where it was; with --from a new one begins with what an flist holds.

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
    mountpoint = mounts.resolve_mountpoint(mountpoint)
    _check_fuse()
    if low_latency:
        _note_obstacle()
    mount_options = _mount_options(
        options, allow_other=allow_other, rootfs=rootfs, is_sealed=package is not None
    )
    if package is not None:
        of_sessions = (state, seal_to, spool_size, base_store, min_replicas, router, public_url)
        if xattr or bases or replace_links or any(option is not None for option in of_sessions):
            raise UsageError("--read-only mounts what is sealed; leave out what belongs to a session")
        _check_free(mountpoint)
        source = click.get_current_context().get_parameter_source("store")
        mount_sealed(
            package,
            mountpoint,
            store if source is ParameterSource.COMMANDLINE else None,
            mount_options,
            cache_size,
            offline=offline,
            foreground=foreground,
            low_latency=low_latency,
            as_json=as_json,
        )
        return
    if cache_size is not None:
        raise UsageError("--cache-size belongs to --read-only")
    epoch = source_date_epoch()
    route = router_for_readers(router, public_url)
    if route is not None and seal_to is None:
        raise UsageError(
            "--router and --public-url belong to a seal: add --seal-to, or give them to flistfs seal"
        )
    base = base_request(bases, base_store, replace_links=replace_links)
    kept = directory_for(mountpoint)
    _check_free(mountpoint, kept.path if kept.is_open() else None)
    out = _checked_output(seal_to, mountpoint)
    stores = {"the store": store or default_store_url(), "the store of the base": base_store}
    _check_outside(mountpoint, state or sessions_root(), stores)
    directory = directory_for(mountpoint, state)
    lock = _lock(directory)
    with lock.released_on_error():
        resumed = directory.is_open()
        choose_store = _kept_store if resumed else _new_session
        store = choose_store(directory, store, min_replicas, mountpoint, base)
        config = launch.Config(
            state=str(directory.path),
            lock=lock.descriptor,
            mountpoint=str(mountpoint),
            store=store,
            is_new=not resumed,
            options=mount_options,
            seal_to=str(out) if out else None,
            router=route,
            epoch=epoch,
            foreground=foreground,
            keep_xattrs=xattr,
            offline=offline,
            spool_limit=spool_size,
            bases=list(base.packages) if base else [],
            base_store=base.store if base else None,
            usual_store=base.usual if base else None,
            low_latency=low_latency,
            replace_links=replace_links,
        )
        if foreground:
            launch.become(config, password())
        with progress_shown() if base else nullcontext(quiet) as progress:
            started = launch.start(config, password(), progress).get("base")
    if as_json:
        answer = {"mountpoint": str(mountpoint), "store": store, "state": str(directory.path)}
        print_json({**answer, "resumed": resumed, **({"base": started} if started else {})})
    else:
        click.echo("\n".join(_mounted_lines(config, started)))


def _mounted_lines(config: launch.Config, started: dict[str, Any] | None) -> Iterator[str]:
    again = "" if config.is_new else " again: its session goes on"
    yield f"{config.mountpoint} is mounted{again}; blocks go to {shown_store(config.store)}"
    if started:
        yield from base_lines(started)
    if config.seal_to is None:
        yield "seal it with: flistfs seal OUT.flist"


def _check_fuse() -> None:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        raise MountError(
            "/dev/fuse may not be opened by you; an administrator can: chmod a+rw /dev/fuse"
        ) from None
    except OSError as error:
        raise MountError(
            f"/dev/fuse cannot be opened ({error.strerror}); load the fuse module, or start the container "
            f"with --device /dev/fuse --cap-add SYS_ADMIN; flistfs new and add make an flist without it"
        ) from None
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise MountError("fusermount3 is not there; install the package fuse3")


def _note_obstacle() -> None:
    """Say if idle cores cannot be kept awake: the mount works all the same."""
    from flistfs.fuse import cores  # noqa: PLC0415  few want it

    if (obstacle := cores.obstacle()) is not None:
        click.echo(f"flistfs: --low-latency has no effect: {obstacle}", err=True)


def _mount_options(
    options: tuple[str, ...], *, allow_other: bool, rootfs: bool, is_sealed: bool
) -> list[str]:
    """Work out what the kernel is told.

    Root's mounts have neither devices nor set-id programs unless they are asked for. Without allow_other only
    processes whose user and group ids are all the owner's may enter. A sealed flist may be a stranger's, and
    whoever mounts it for themselves may see all of it.
    """
    is_root = os.geteuid() == 0
    if rootfs and not is_root:
        raise UsageError("--rootfs needs root: only root's mounts can have devices and set-id programs")
    given = [option for text in options for option in text.split(",") if option]
    if any(not option.isascii() for option in given):
        raise UsageError("mount options are plain ASCII")
    wanted = {"dev", "suid"} if is_root and (rootfs or not is_sealed) else set()
    others_enter = allow_other or rootfs or "allow_other" in given
    if others_enter:
        wanted.add("allow_other")
    # In root's own mount there is nobody whose permission has to be checked; that saves a request a file.
    if others_enter or not (is_root or is_sealed):
        wanted.add("default_permissions")
    return [*sorted(wanted), *given]


def _check_free(mountpoint: Path, session: Path | None = None) -> None:
    """Refuse any place that can't be mounted on; `session` is where the one lies that was mounted there.

    A dead mount is left for the daemon, which takes it away when it mounts (`init_fuse`): as long as this may
    fail for another reason, nobody must take the mount point for a directory to write to.
    """
    here = mounts.mount_at(mountpoint)
    is_ours = here is not None and here.type == mounts.TYPE
    if here is not None and is_ours and not mounts.is_dead(mountpoint):
        raise MountError(f"{mountpoint} is mounted already: {_whose(mountpoint, here)}")
    around = mounts.mount_around(mountpoint)
    if around is not None and around.type == mounts.TYPE:
        raise MountError(f"{mountpoint} lies inside the flistfs mount {around.path}; choose another place")
    if not is_ours:
        mounts.check_empty(mountpoint, session)


def _whose(mountpoint: Path, here: mounts.Mount) -> str:
    """Say what one of our mounts is, and where there is more to learn of it."""
    options = here.options.split(",")
    if "ro" in options:
        return f"it shows a sealed flist; end it with: umount {shlex.quote(str(mountpoint))}"
    if f"user_id={os.geteuid()}" not in options:
        return "it is another user's"
    if directory_for(mountpoint).is_locked():
        return "flistfs status shows its session"
    return "its session is not among yours in this environment (see XDG_STATE_HOME)"


def _check_outside(mountpoint: Path, state: Path, stores: Mapping[str, str | None]) -> None:
    """Refuse to mount over what the session needs: it would wait for itself, or store what it stores."""
    places = {what: parse_store_url(url).path for what, url in stores.items() if url is not None}
    for what, place in [("the session", state), *places.items()]:
        if place is not None and place.resolve().is_relative_to(mountpoint):
            raise UsageError(f"{what} would lie in the mount itself, in {place}; choose another place for it")


def _checked_output(out: Path | None, mountpoint: Path) -> Path | None:
    if out is None:
        return None
    out = Path(os.path.abspath(out))  # noqa: PTH100  absolute() would keep `..`
    if out.is_relative_to(mountpoint):
        raise OutputError(f"{out} lies in the mount; choose another place for the flist")
    refuse_existing(out, force=False)
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent} is no directory")
    return out


def _lock(directory: SessionDirectory) -> Lock:
    """Take the session; a daemon whose mount has just ended may need a moment to let go of it."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return directory.lock()
        except SessionError:
            is_mounted = (
                mounts.mount_at(Path(directory.settings().mountpoint)) if directory.exists() else None
            )
            if is_mounted or not directory.is_locked() or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _kept_store(
    directory: SessionDirectory,
    wanted: str | None,
    min_replicas: int | None,
    mountpoint: Path,
    base: BaseRequest | None,
) -> str:
    """Return the store of a session that goes on."""
    settings = directory.settings()
    if settings.mountpoint != str(mountpoint):
        raise SessionError(
            f"{directory.path} holds the open session of {settings.mountpoint}; seal or abort it, or choose "
            f"another --state"
        )
    if base is not None:
        raise SessionError(
            f"the open session of {mountpoint} holds its tree already; leave --from out to go on with it, or "
            f"seal or abort it first"
        )
    kept = parse_store_url(settings.store)
    if wanted is not None:
        url = parse_store_url(wanted)
        if str(replace(url, min_replicas=None)) != str(replace(kept, min_replicas=None)):
            raise SessionError(
                f"the open session of {mountpoint} stores its blocks in {kept}, not in {url}; seal it first, "
                f"or leave --store out"
            )
        kept = with_min_replicas(kept, url.min_replicas)
    store = str(with_min_replicas(kept, min_replicas))
    if store != settings.store:
        directory.change_store(store)
    return store


def _new_session(
    directory: SessionDirectory,
    wanted: str | None,
    min_replicas: int | None,
    mountpoint: Path,
    base: BaseRequest | None,
) -> str:
    """Make a session, and return its store without a password."""
    store = str(with_min_replicas(parse_store_url(wanted or default_store_url()), min_replicas))
    settings = Settings(str(mountpoint), store, format=USUAL_FORMAT, created=time.time())
    directory.create(settings, unfinished=base is not None)
    return store
