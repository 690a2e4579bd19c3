"""Starting the daemon of a session, or of a sealed flist, from the arguments to its answer."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import platformdirs

from flistfs.authoring.new_session import check_format, chosen_format, new_settings, session_directory
from flistfs.authoring.request import BaseRequest, Passwords
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import directory_for, keep_failed_start, sessions_root
from flistfs.authoring.state.lock import Lock
from flistfs.authoring.summaries import BaseSummary
from flistfs.daemons import launch
from flistfs.daemons.config import Config, ReaderConfig
from flistfs.errors import (
    FlistfsError,
    InterruptedByUserError,
    MountError,
    OutputError,
    SessionError,
    UsageError,
)
from flistfs.format.metadata import NO_CHANGE, MetadataChange
from flistfs.fuse import mounts
from flistfs.stores import default_store_url
from flistfs.stores.url import parse_store_url, with_min_replicas
from flistfs.util.output_file import refuse_existing
from flistfs.util.progress import Progress

# Seconds to wait for the daemon of a mount that has just ended.
_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How the kernel is to mount: as `-o` takes them in `further`, the usual ones by name.

    `rootfs` is for building a root file system as root: devices and set-id programs work, every user may
    enter.
    """

    allow_other: bool = False
    rootfs: bool = False
    further: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class MountRequest:
    """What a session is mounted with. URLs have no passwords.

    `store` and `format` are those that the user named, if any, and `state` is the directory. `seal_to` is
    the flist that is made once it is unmounted, with the four below it (see `SealRequest`). `spool_limit` is
    in bytes. In the `foreground` the daemon replaces this process.
    """

    mountpoint: Path
    store: str | None = None
    format: str | None = None
    min_replicas: int | None = None
    base: BaseRequest | None = None
    options: MountOptions = MountOptions()
    state: Path | None = None
    seal_to: Path | None = None
    router: str | None = None
    epoch: int | None = None
    metadata: MetadataChange = NO_CHANGE
    startup: bool = False
    keep_xattrs: bool = False
    offline: bool = False
    spool_limit: int | None = None
    low_latency: bool = False
    foreground: bool = False


@dataclass(frozen=True, slots=True)
class Mounted:
    """A mounted session: a new one, or one that was `resumed`. `base` sums up what it started from."""

    mountpoint: str
    store: str
    format: str
    state_directory: str
    resumed: bool
    base: BaseSummary | None = None


@dataclass(frozen=True, slots=True)
class SealedRequest:
    """What a sealed flist is mounted with; `cache_size` is in bytes.

    `store` is the URL that the user named, and `fallback_store` where blocks are by default.
    """

    package: Path
    mountpoint: Path
    store: str | None = None
    fallback_store: str | None = None
    options: MountOptions = MountOptions()
    cache_size: int | None = None
    offline: bool = False
    low_latency: bool = False
    foreground: bool = False


@dataclass(frozen=True, slots=True)
class MountedFlist:
    """A sealed flist that is mounted, and the log of its daemon."""

    mountpoint: str
    package: str
    log: str


@contextmanager
def failed_start_kept(mountpoint: Path) -> Iterator[None]:
    """Keep why a session could not be started, for processes that wait for the end of its mount."""
    try:
        yield
    except FlistfsError as error:
        keep_failed_start(mountpoint, error)
        raise
    except KeyboardInterrupt:
        keep_failed_start(mountpoint, InterruptedByUserError("it was interrupted"))
        raise


def mount(request: MountRequest, passwords: Passwords, progress: Progress) -> Mounted:
    """Mount a session, a new one or the one that is open there; returns when the file system answers.

    Raises:
        MountError: it cannot be mounted there, or on this machine.
        SessionError: the open session is another's, has another store, or a tree already.
        OutputError: the flist to be sealed cannot be made.
        StoreError: a store cannot be reached.
        FormatError: a base is damaged, or holds what a session cannot.
        UsageError: something is invalid.
    """
    mountpoint = request.mountpoint
    _check_fuse()
    options = _kernel_options(request.options, is_sealed=False)
    if request.router is not None and request.seal_to is None:
        raise UsageError(
            "`router` and `public_url` belong to a seal: add `seal_to`, or give them when sealing"
        )
    if (request.metadata or request.startup) and request.seal_to is None:
        raise UsageError("metadata belongs to a seal: add `seal_to`, or give it when sealing")
    kept = directory_for(mountpoint)
    _check_free(mountpoint, kept.path if kept.is_open() else None)
    out = _checked_output(request.seal_to, mountpoint)
    base = request.base
    stores = {
        "the store": request.store or default_store_url(),
        "the store of the base": base.store if base else None,
    }
    _check_outside(mountpoint, request.state or sessions_root(), stores)
    directory = session_directory(mountpoint, request.state)
    lock = _lock(directory)
    with lock.released_on_error():
        resumed = directory.is_open()
        store = _kept_store(directory, request) if resumed else _new_session(directory, request)
        config = Config(
            state=str(directory.path),
            lock=lock.descriptor,
            mountpoint=str(mountpoint),
            store=store,
            is_new=not resumed,
            options=options,
            seal_to=str(out) if out else None,
            router=request.router,
            epoch=request.epoch,
            metadata=request.metadata.as_dict(),
            startup=request.startup,
            foreground=request.foreground,
            keep_xattrs=request.keep_xattrs,
            offline=request.offline,
            spool_limit=request.spool_limit,
            bases=list(base.packages) if base else [],
            base_store=base.store if base else None,
            usual_store=base.usual if base else None,
            low_latency=request.low_latency,
            replace_links=base is not None and base.replace_links,
            accept_faults=base is not None and base.accept_faults,
        )
        if request.foreground:
            launch.exec_daemon(config, passwords)
        started = launch.start(config, passwords, progress).get("base")
    os.close(lock.descriptor)  # the daemon has the lock: it belongs to the open file, which it inherited
    return Mounted(
        str(mountpoint),
        store,
        directory.settings().format,
        str(directory.path),
        resumed,
        BaseSummary.from_dict(started) if started else None,
    )


def mount_sealed(request: SealedRequest, passwords: Passwords) -> MountedFlist:
    """Mount a sealed flist, read-only; returns when the file system answers.

    Raises:
        MountError: it cannot be mounted there, or on this machine.
        StoreError: the store cannot be reached.
        FormatError: the flist is not there, or damaged.
        OutputError: the log cannot be written.
        UsageError: something is invalid.
    """
    _check_fuse()
    options = _kernel_options(request.options, is_sealed=True)
    _check_free(request.mountpoint)
    config = ReaderConfig(
        package=str(request.package),
        mountpoint=str(request.mountpoint),
        log=str(_reader_log(request.mountpoint)),
        store=request.store,
        usual_store=request.fallback_store,
        options=["ro", *options],
        cache_size=request.cache_size,
        offline=request.offline,
        foreground=request.foreground,
        low_latency=request.low_latency,
    )
    if request.foreground:
        launch.exec_daemon(config, passwords)
    launch.start(config, passwords)
    return MountedFlist(config.mountpoint, config.package, config.log)


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
        raise MountError("fusermount3 was not found; install the package fuse3")


def _kernel_options(options: MountOptions, *, is_sealed: bool) -> list[str]:
    """Return what the kernel is told.

    Root's mounts have neither devices nor set-id programs unless they are asked for. Without allow_other only
    processes whose user and group ids are all the owner's may enter. A sealed flist may be a stranger's, and
    users who mount it for themselves may see all of it.
    """
    is_root = os.geteuid() == 0
    if options.rootfs and not is_root:
        raise UsageError("`rootfs` needs root: only root's mounts can have devices and set-id programs")
    given = [option for text in options.further for option in text.split(",") if option]
    if any(not option.isascii() for option in given):
        raise UsageError("mount options are plain ASCII")
    wanted = {"dev", "suid"} if is_root and (options.rootfs or not is_sealed) else set()
    others_enter = options.allow_other or options.rootfs or "allow_other" in given
    if others_enter:
        wanted.add("allow_other")
    # In root's own mount there is nobody whose permission has to be checked; that saves a request a file.
    if others_enter or not (is_root or is_sealed):
        wanted.add("default_permissions")
    return [*sorted(wanted), *given]


def _check_free(mountpoint: Path, session: Path | None = None) -> None:
    """Refuse any place that can't be mounted on; `session` is where the one lies that was mounted there.

    A dead mount is left for the daemon, which takes it away when it mounts (`init_fuse`): as long as this may
    fail for another reason, no program may take the mount point for a directory to write to.
    """
    here = mounts.mount_at(mountpoint)
    is_ours = here is not None and here.type == mounts.TYPE
    if here is not None and is_ours and not mounts.is_dead(mountpoint):
        raise MountError(f"{mountpoint} is mounted already: {_whose(mountpoint, here)}")
    around = mounts.mount_around(mountpoint)
    if around is not None and around.type == mounts.TYPE:
        raise MountError(f"{mountpoint} is inside the flistfs mount {around.path}; choose another place")
    if not is_ours:
        mounts.check_empty(mountpoint, session)


def _whose(mountpoint: Path, here: mounts.Mount) -> str:
    """Return what one of our mounts is, and where to find out more about it."""
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
            raise UsageError(
                f"{what} would be inside the mount itself, in {place}; choose another place for it"
            )


def _checked_output(out: Path | None, mountpoint: Path) -> Path | None:
    if out is None:
        return None
    if out.is_relative_to(mountpoint):
        raise OutputError(f"{out} is inside the mount; choose another place for the flist")
    refuse_existing(out, force=False)
    if not out.parent.is_dir():
        raise OutputError(f"{out.parent} is not a directory")
    return out


def _lock(directory: SessionDirectory) -> Lock:
    """Lock the session; a daemon whose mount has just ended may need a moment to release it."""
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


def _kept_store(directory: SessionDirectory, request: MountRequest) -> str:
    """Return the store of a session that is resumed."""
    settings, mountpoint = directory.settings(), request.mountpoint
    if settings.mountpoint != str(mountpoint):
        raise SessionError(
            f"{directory.path} holds the open session of {settings.mountpoint}; seal or abort it, or choose "
            f"another `state`"
        )
    if request.base is not None:
        raise SessionError(
            f"{mountpoint} already has an open session; omit `base` to resume it, or seal or abort it first"
        )
    check_format(directory, request.format)
    kept = parse_store_url(settings.store)
    if request.store is not None:
        url = parse_store_url(request.store)
        if str(replace(url, min_replicas=None)) != str(replace(kept, min_replicas=None)):
            raise SessionError(
                f"the open session of {mountpoint} stores its blocks in {kept}, not in {url}; seal it first, "
                f"or omit `store`"
            )
        kept = with_min_replicas(kept, url.min_replicas)
    store = str(with_min_replicas(kept, request.min_replicas))
    if store != settings.store:
        directory.change_store(store)
    return store


def _new_session(directory: SessionDirectory, request: MountRequest) -> str:
    """Make a session, and return its store without a password."""
    url = parse_store_url(request.store or default_store_url())
    store = str(with_min_replicas(url, request.min_replicas))
    format_ = chosen_format(request.format, request.base)
    directory.create(new_settings(request.mountpoint, store, format_), unfinished=request.base is not None)
    return store


def _reader_log(mountpoint: Path) -> Path:
    """Return an empty file for the log of a sealed flist's daemon."""
    digest = hashlib.blake2b(os.fsencode(mountpoint), digest_size=4).hexdigest()
    directory = platformdirs.user_state_path("flistfs") / "readers"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        log = directory / f"{digest}.log"
        log.write_bytes(b"")
    except OSError as error:
        raise OutputError(f"{directory} cannot be written: {error.strerror}") from error
    return log
