"""Mounts: of a session, whose content becomes an flist, and of a sealed flist."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flistfs.api.arguments import (
    AnyPath,
    StoreName,
    absolute_path,
    checked_replicas,
    chosen_store,
    flist_path,
    typed_path,
)
from flistfs.api.configuring import checked_metadata
from flistfs.api.format_names import FormatName
from flistfs.api.requests import base_request, checked_epoch, checked_format, router_text
from flistfs.authoring.request import Passwords
from flistfs.authoring.state.finding import directory_for, keep_failed_start
from flistfs.daemons import starting
from flistfs.daemons.starting import Mounted, MountedFlist, MountOptions, MountRequest, SealedRequest
from flistfs.errors import FlistfsError, MountError
from flistfs.format.metadata import NO_CHANGE, MetadataChange
from flistfs.fuse import mounts
from flistfs.util.progress import Progress, quiet

__all__ = [
    "Mounted",
    "MountedFlist",
    "is_mountpoint",
    "keep_failed_starts",
    "mount",
    "mount_sealed",
    "obstacle_to_low_latency",
    "unmount",
]


def mount(
    mountpoint: AnyPath,
    *,
    store: StoreName | None = None,
    password: str | None = None,
    format: FormatName | None = None,  # noqa: A002  as the option is called
    min_replicas: int | None = None,
    base: AnyPath | Iterable[AnyPath] = (),
    base_store: StoreName | None = None,
    base_password: str | None = None,
    fallback_store: StoreName | None = None,
    replace_links: bool = False,
    accept_faults: bool = False,
    state: AnyPath | None = None,
    seal_to: AnyPath | None = None,
    router: AnyPath | None = None,
    metadata: MetadataChange | None = None,
    startup: bool = False,
    public_url: str | None = None,
    epoch: int | None = None,
    allow_other: bool = False,
    rootfs: bool = False,
    options: Iterable[str] = (),
    xattrs: bool = False,
    offline: bool = False,
    spool_size: int | None = None,
    low_latency: bool = False,
    foreground: bool = False,
    progress: Progress | None = None,
) -> Mounted:
    """Mount an empty file system whose content becomes an flist, or resume the session that is open there.

    Returns when it answers; a daemon serves it, which outlives this program. `seal` makes the flist.

    Args:
        mountpoint: An empty directory, or the mount point of an open session.
        store: Where blocks go. A session that is resumed has its store.
        format: The format of the flist. A session that is resumed has its format. Default: that of `base`,
            else "rocksdb".
        password: The store's, if its URL has none.
        min_replicas: With a router: how many servers must take a block. Default: all that it belongs to.
        base: Sealed flists whose tree a new session starts with, later ones on top; no block is fetched.
        base_store: Where their blocks are, if not where they say, nor in `store`.
        base_password: The password of `base_store`.
        fallback_store: Where they are if nothing says so. Default: the user's directory of blocks.
        replace_links: Whether a directory of a base hides a link of one below it.
        accept_faults: Take what is there of flists that have faults.
        state: The session's directory until it is sealed. Default: below the user's state directory.
        seal_to: The flist to be made when the mount is unmounted; `wait` waits for that.
        router: A router.yaml to be put into that flist.
        metadata: What that flist says besides its tree, beside what its base says.
        startup: Put a .startup.toml into its tree, which says how it is started.
        public_url: Where its readers reach the store, if not at its URL.
        epoch: Its times later than this (seconds since 1970) become this, as with SOURCE_DATE_EPOCH.
        allow_other: Let other users in; the kernel checks permissions.
        rootfs: For building a root file system inside, as root: devices and set-id programs work, and every
            user may enter.
        options: Further mount options.
        xattrs: Keep extended attributes until the seal, for builds that need them.
        offline: Start even if the store does not answer.
        spool_size: Let at most so many bytes wait to be stored. Default: a tenth of what is free, at most
            16 GiB.
        low_latency: Keep the idle cores of the machine from sleeping while requests come in, as root.
        foreground: Replace this program by the daemon: it does not return.
        progress: Called with a `Report` while a base is read.

    Raises:
        MountError: it cannot be mounted there, or on this machine.
        SessionError: the session that is open there has another store, or `base` was named for it.
        StoreError: a store cannot be reached.
        FormatError: a base is damaged, or holds what a session cannot.
        OutputError: `seal_to` exists or cannot be written.
        UsageError: an argument is invalid.
    """
    place = mounts.resolve_mountpoint(typed_path(mountpoint))
    with starting.failed_start_kept(place):
        url, secret = chosen_store(store, password)
        request, base_secret = base_request(
            base,
            base_store,
            base_password,
            replace_links=replace_links,
            accept_faults=accept_faults,
            fallback_store=fallback_store,
        )
        return starting.mount(
            MountRequest(
                mountpoint=place,
                store=url,
                format=checked_format(format),
                min_replicas=checked_replicas(min_replicas),
                base=request,
                options=MountOptions(allow_other, rootfs, tuple(options)),
                state=None if state is None else typed_path(state),
                seal_to=None if seal_to is None else absolute_path(seal_to),
                router=router_text(router, public_url),
                metadata=checked_metadata(metadata or NO_CHANGE),
                startup=startup,
                epoch=checked_epoch(epoch),
                keep_xattrs=xattrs,
                offline=offline,
                spool_limit=spool_size,
                low_latency=low_latency,
                foreground=foreground,
            ),
            Passwords(secret, base_secret),
            progress or quiet,
        )


def is_mountpoint(place: AnyPath) -> bool:
    """Return whether something is mounted exactly there, dead or alive."""
    return mounts.mount_at(typed_path(place)) is not None


def mount_sealed(
    package: AnyPath,
    mountpoint: AnyPath,
    *,
    store: StoreName | None = None,
    password: str | None = None,
    fallback_store: StoreName | None = None,
    allow_other: bool = False,
    rootfs: bool = False,
    options: Iterable[str] = (),
    cache_size: int | None = None,
    offline: bool = False,
    low_latency: bool = False,
    foreground: bool = False,
) -> MountedFlist:
    """Mount a sealed flist, read-only; its blocks are fetched as they are read.

    Returns when it answers; a daemon serves it until it is unmounted, and outlives this program.

    Args:
        package: The flist, or the directory that one was unpacked into.
        mountpoint: An empty directory.
        store: Where its blocks are. Default: where it says that they are.
        password: The password of `store`, if its URL has none. Servers that only the flist names get none.
        fallback_store: Where they are if it does not say. Default: the user's directory of blocks.
        allow_other: Let other users in; the kernel checks permissions.
        rootfs: As root: devices and set-id programs work, and every user may enter.
        options: Further mount options.
        cache_size: Keep so many bytes of content. Default: 64 MiB.
        offline: Start even if the store does not answer.
        low_latency: Keep the idle cores of the machine from sleeping while requests come in, as root.
        foreground: Replace this program by the daemon: it does not return.

    Raises:
        MountError: it cannot be mounted there, or on this machine.
        StoreError: the store cannot be reached.
        FormatError: the flist is not there, or damaged.
        UsageError: an argument is invalid.
    """
    url, secret = chosen_store(store, password)
    fallback, _ = chosen_store(fallback_store, None)
    return starting.mount_sealed(
        SealedRequest(
            package=absolute_path(flist_path(package)),
            mountpoint=mounts.resolve_mountpoint(typed_path(mountpoint)),
            store=url,
            fallback_store=fallback,
            options=MountOptions(allow_other, rootfs, tuple(options)),
            cache_size=cache_size,
            offline=offline,
            low_latency=low_latency,
            foreground=foreground,
        ),
        Passwords(secret, None),
    )


def unmount(mountpoint: AnyPath) -> None:
    """Unmount a mount of flistfs. A session is kept, or sealed if it was mounted with `seal_to`: see `wait`.

    Raises:
        BusyError: it is in use.
        MountError: it cannot be unmounted, or flistfs has mounted nothing there.
    """
    place = mounts.resolve_mountpoint(typed_path(mountpoint))
    here = mounts.mount_at(place)
    if here is None or here.type != mounts.TYPE:
        raise MountError(f"{place} is not a mount of flistfs")
    mounts.unmount(place)


def keep_failed_starts(words: Iterable[str], reason: FlistfsError) -> None:
    """Keep why a command line was refused, at each of its words that is a session's mount point.

    For processes that wait for the end of that mount: which of the words is the mount point is unknown.
    """
    for place in (mounts.resolve_mountpoint(Path(word)) for word in words if word[:1] not in {"", "-"}):
        if directory_for(place).exists():
            keep_failed_start(place, reason)


def obstacle_to_low_latency() -> str | None:
    """Return why idle cores cannot be kept awake, if so; a mount works all the same."""
    from flistfs.fuse import cores  # noqa: PLC0415  few want it

    return cores.obstacle()
