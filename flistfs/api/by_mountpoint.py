"""Sessions by mount point, mounted or not, started by a command or a program: what the commands work on.

Without a mount point each function takes the only session that is open. A daemon that serves the session is
asked; without one the work is done here, by the same code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flistfs.api import process
from flistfs.api.arguments import AnyPath, StoreName, target_store, typed_path
from flistfs.api.format_names import FormatName
from flistfs.api.requests import add_request, base_request, checked_format, seal_request
from flistfs.api.status import Holdings, holdings_of
from flistfs.authoring.new_session import chosen_format, new_settings, session_directory
from flistfs.authoring.request import AddRequest, Passwords, SealRequest
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import find
from flistfs.authoring.state.settings import State
from flistfs.authoring.summaries import AddSummary, BaseSummary, SealSummary
from flistfs.daemons.control import ask
from flistfs.errors import SessionError
from flistfs.format.metadata import MetadataChange
from flistfs.fuse import mounts
from flistfs.stores.base import STORE_TIMEOUT
from flistfs.util.progress import Progress, quiet

__all__ = [
    "AddSummary",
    "BaseSummary",
    "Found",
    "SealSummary",
    "Started",
    "abort",
    "add",
    "find_session",
    "new",
    "seal",
    "sync",
]


@dataclass(frozen=True, slots=True)
class Started:
    """A session that was started without a mount; `base` sums up what it started from."""

    mountpoint: str
    store: str
    format: str
    state_directory: str
    base: BaseSummary | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A session: where it is, or would be, mounted, where its state lies, and whether it is open."""

    mountpoint: str
    state_directory: str
    is_open: bool


def find_session(mountpoint: AnyPath | None = None) -> Found:
    """Return which session is meant.

    Raises:
        SessionError: there is none, or there are several to choose from.
    """
    directory = _find(mountpoint)
    return Found(directory.settings().mountpoint, str(directory.path), directory.is_open())


def new(
    mountpoint: AnyPath = ".",
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
    offline: bool = False,
    progress: Progress | None = None,
) -> Started:
    """Start a session without a mount.

    Args:
        mountpoint: What it is called, and where it can be mounted later; it need not be there.
        store: Where blocks go.
        password: The store's, if its URL has none; it is not kept.
        format: The format of the flist. Default: that of `base`, else "rocksdb".
        min_replicas: With a router: how many servers must take a block. Default: all that it belongs to.
        base: Sealed flists whose tree it starts with, later ones on top; no block is fetched.
        base_store: Where their blocks are, if not where they say, nor in `store`.
        base_password: The password of `base_store`; it is not kept.
        fallback_store: Where they are if nothing says so. Default: the user's directory of blocks.
        replace_links: Whether a directory of a base hides a link of one below it.
        accept_faults: Take what is there of flists that have faults.
        state: The session's directory until it is sealed. Default: below the user's state directory.
        offline: Start even if the store does not answer.
        progress: Called with a `Report` while a base is read.

    Raises:
        SessionError: there is one already, or its directory cannot be written.
        StoreError: a store cannot be reached.
        FormatError: a base is damaged, or holds what a session cannot.
        ClashError: in one base is a link where another has a directory that it does not lead to.
        UsageError: an argument is invalid.
    """
    place = mounts.resolve_mountpoint(typed_path(mountpoint))
    url, secret = target_store(store, password, min_replicas)
    request, base_secret = base_request(
        base,
        base_store,
        base_password,
        replace_links=replace_links,
        accept_faults=accept_faults,
        fallback_store=fallback_store,
    )
    directory = session_directory(place, None if state is None else typed_path(state))
    with process.loading():
        from flistfs.authoring import offline as without_mount  # noqa: PLC0415  --help need not wait for it
    with process.logged_into(directory):
        started = without_mount.create(
            directory,
            Passwords(secret, base_secret),
            new_settings(place, url, chosen_format(checked_format(format), request)),
            progress or quiet,
            offline=offline,
            base=request,
        )
    return Started(str(place), url, directory.settings().format, str(directory.path), started)


def add(
    *sources: AnyPath,
    mountpoint: AnyPath | None = None,
    password: str | None = None,
    base_password: str | None = None,
    to: AnyPath = "",
    exclude: str | Iterable[str] = (),
    keep_going: bool = False,
    replace_links: bool = False,
    timeout: float = STORE_TIMEOUT,
    check_content: bool = False,
    measure: bool | None = None,
    progress: Progress | None = None,
) -> AddSummary:
    """Put directories and files into a session, past its mount; see `Session.add`.

    Args:
        sources: What to add.
        mountpoint: Which session.
        password: The store's. A mounted session has it.
        base_password: That of the base's store. A mounted session has it.
        to: The directory of the tree that they go to; made if need be.
        exclude: Patterns as in a .gitignore of what is left out.
        keep_going: Leave out what cannot be read or has no place, and name it in the summary.
        replace_links: Whether a directory takes the place of a link, instead of going where that leads.
        timeout: Seconds to wait while the store takes nothing.
        check_content: Fetch every block that is there already, and put right ones over wrong ones.
        measure: Find out first how much there is, so that the progress has a total. Default: if there is one.
        progress: Called with a `Report` as the work goes on.

    Raises:
        FlistfsError: as `Session.add` does.
    """
    directory = _find(mountpoint)
    request = add_request(
        sources,
        to=to,
        exclude=exclude,
        keep_going=keep_going,
        replace_links=replace_links,
        timeout=timeout,
        check_content=check_content,
        measure=progress is not None if measure is None else measure,
    )
    state = directory.settled_state()
    if state is State.MOUNTED:
        return AddSummary.from_dict(
            ask(directory.control, {"op": "add", "request": request.as_dict()}, progress)
        )
    if state is State.SEALED:
        place = directory.settings().mountpoint
        raise SessionError(f"the session of {place} has ended; start one with: flistfs new {place}")
    return _add_here(directory, Passwords(password, base_password), request, progress or quiet)


def _add_here(
    directory: SessionDirectory, passwords: Passwords, request: AddRequest, progress: Progress
) -> AddSummary:
    with process.loading():
        from flistfs.authoring import offline  # noqa: PLC0415  a mounted session needs none of it
    spares = process.prepare_encoders(directory.settings().store, directory.settings().format)
    with process.logged_into(directory), offline.taken(directory, "flistfs add"):
        return offline.add(directory, passwords, request, progress, spares)


def seal(
    out: AnyPath,
    *,
    mountpoint: AnyPath | None = None,
    password: str | None = None,
    base_password: str | None = None,
    force: bool = False,
    owner: tuple[int, int] | None = None,
    epoch: int | None = None,
    exclude: str | Iterable[str] = (),
    public_url: str | None = None,
    router: AnyPath | None = None,
    metadata: MetadataChange | None = None,
    startup: bool = False,
    incomplete: bool = False,
    timeout: float = STORE_TIMEOUT,
    check_content: bool = False,
    progress: Progress | None = None,
) -> SealSummary:
    """Seal a session: store what is left, check the store, unmount, make the flist; see `Session.seal`.

    If it fails before the mount ends, the mount stays as it is; after that, the session stays.

    Args:
        out: The flist; it exists whole or not at all.
        mountpoint: Which session.
        password: The store's. A mounted session has it.
        base_password: That of the base's store. A mounted session has it.
        force: Replace the output if it exists.
        owner: (uid, gid) that everything is to belong to.
        epoch: Times later than this (seconds since 1970) become this, as with SOURCE_DATE_EPOCH.
        exclude: Patterns as in a .gitignore of what is left out.
        public_url: Where readers reach the store, if not at its URL.
        router: A router.yaml to be put into the flist.
        metadata: What the flist says besides its tree, beside what its base says.
        startup: Put a .startup.toml into the tree, which says how it is started.
        incomplete: Seal even if something was not added whole.
        timeout: Seconds to wait while the store takes nothing.
        check_content: Fetch every block that the tree needs, and put right ones over wrong ones.
        progress: Called with a `Report` as the work goes on.

    Raises:
        BusyError: the mount is in use.
        FlistfsError: as `Session.seal` does.
    """
    directory = _find(mountpoint)
    request = seal_request(
        out,
        force=force,
        timeout=timeout,
        owner=owner,
        epoch=epoch,
        exclude=exclude,
        router=router,
        public_url=public_url,
        incomplete=incomplete,
        check_content=check_content,
        metadata=metadata,
        startup=startup,
    )
    process.leave_directory()
    state = directory.settled_state()
    if state is State.MOUNTED:
        summary = ask(directory.control, {"op": "seal", "request": request.as_dict()}, progress)
        directory.wait_unlocked()  # so that the mount point can be used again at once
        return SealSummary.from_dict(summary)
    if state is State.SEALED:
        result = directory.result()
        said = f": {result.message}" if result else ""
        raise SessionError(f"the session of {directory.settings().mountpoint} has ended{said}")
    return _seal_here(directory, Passwords(password, base_password), request, progress or quiet)


def _seal_here(
    directory: SessionDirectory, passwords: Passwords, request: SealRequest, progress: Progress
) -> SealSummary:
    with process.loading():
        from flistfs.authoring import offline  # noqa: PLC0415  a mounted session needs none of it
    spares = process.prepare_encoders(directory.settings().store, directory.settings().format)
    with process.logged_into(directory), offline.taken(directory, "flistfs seal"):
        summary = offline.seal(directory, passwords, request, progress, spares)
    # Not before: the mount point of a session that is kept must not look like a bare directory.
    mounts.detach_if_dead(Path(directory.settings().mountpoint))
    return summary


def sync(
    mountpoint: AnyPath | None = None, *, timeout: float = STORE_TIMEOUT, progress: Progress | None = None
) -> Holdings:
    """Wait until everything that was written into a mount is in the store; returns what it holds then.

    Args:
        mountpoint: Which session.
        timeout: Seconds to wait while the store takes nothing.
        progress: Called with a `Report` as the work goes on.

    Raises:
        SessionError: the session is not mounted: what was added is stored already, and what a mount left is
            stored by a seal, or by the next mount.
        BusyError: a command is at work in it.
        StoreError: the store takes nothing.
    """
    directory = _find(mountpoint)
    state, place = directory.settled_state(), directory.settings().mountpoint
    if state is State.SEALED:
        raise SessionError(f"the session of {place} has ended; start one with: flistfs mount {place}")
    if state is not State.MOUNTED:
        raise SessionError(
            f"{place} is not mounted; what add puts into a session is stored when it returns, and what a "
            f"mount left is stored by flistfs seal, or once it is mounted again"
        )
    return holdings_of(ask(directory.control, {"op": "sync", "timeout": float(timeout)}, progress))


def abort(mountpoint: AnyPath | None = None) -> Found:
    """Throw a session away: unmount it and forget what was written. What the store has stays there.

    Raises:
        BusyError: the mount is in use, or a command is at work in the session.
        SessionError: there is no such session.
    """
    directory = _find(mountpoint)
    found = Found(directory.settings().mountpoint, str(directory.path), is_open=False)
    if directory.settled_state() is State.MOUNTED:
        ask(directory.control, {"op": "abort"})
        directory.wait_unlocked()
        return found
    mounts.detach_if_dead(Path(found.mountpoint))
    lock = directory.lock("flistfs abort")
    try:
        directory.discard()
    finally:
        lock.release()
    return found


def _find(mountpoint: AnyPath | None) -> SessionDirectory:
    return find(None if mountpoint is None else typed_path(mountpoint))
