"""Find session directories by mount point, by a chosen directory, or all of them."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import platformdirs

from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.summaries import Result
from flistfs.errors import FlistfsError, SessionError
from flistfs.fuse import mounts
from flistfs.util.durable import remove_files


def sessions_root() -> Path:
    """Return the directory that has an entry for each of the user's sessions."""
    return platformdirs.user_state_path("flistfs") / "sessions"


def packing_root() -> Path:
    """Return the directory for sessions that live only as long as one command."""
    return platformdirs.user_state_path("flistfs") / "packing"


def directory_for(mountpoint: Path, state: Path | None = None) -> SessionDirectory:
    """Return the session directory of a mount point (absolute, resolved), whether it exists or not.

    Args:
        mountpoint: The mount point of the session.
        state: Directory chosen by the user; a link to it is created so that the session can be found later.

    Raises:
        SessionError: the mount point has an open session elsewhere, or `state` cannot be a directory.
    """
    digest = hashlib.blake2b(os.fsencode(mountpoint), digest_size=4).hexdigest()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", mountpoint.name).strip("-") or "root"
    entry = sessions_root() / f"{slug[:40]}-{digest}"
    if state is None:
        return SessionDirectory(entry.resolve() if entry.is_symlink() else entry)
    state = state.absolute()
    _check_choice(state)
    if entry.is_symlink() or entry.exists():
        if entry.resolve() == state.resolve():
            return SessionDirectory(state)
        if SessionDirectory(entry).is_open():
            raise SessionError(
                f"{mountpoint} has an open session in {entry.resolve()}; seal or abort it first"
            )
        remove_files(entry)
    try:  # before linking: a dangling link would block every later session here
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SessionError(f"{state} cannot hold a session: {error.strerror}") from None
    entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    entry.symlink_to(state)
    return SessionDirectory(state)


def _check_choice(state: Path) -> None:
    """Reject a state directory that holds other files: creating a session would remove them.

    Raises:
        SessionError: the directory holds other files, or cannot be read.
    """
    try:
        names = {path.name for path in state.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise SessionError(f"{state} cannot hold a session: {error.strerror}") from None
    if names - {"lock"} and "schema" not in names:
        raise SessionError(f"{state} is not empty and does not contain a session; choose an empty directory")


def keep_failed_start(mountpoint: Path, error: FlistfsError) -> None:
    """Record why no session could be started at a mount point, for processes that wait for its end.

    An existing session and the result of an earlier one are left unchanged.
    """
    with suppress(OSError, SessionError):  # a full disk, for example, must not hide the actual reason
        directory = directory_for(mountpoint)
        # A lock that names no process, or this one, is still held for the session that failed to start.
        holder = directory.holder() if directory.is_locked() else None
        if not directory.is_open() and (holder is None or holder.pid == os.getpid()):
            directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            message = f"{mountpoint} was not mounted: {error}"
            directory.write_failed_start(Result(error.exit_code, message, time.time(), code=error.code))


def all_directories() -> Iterator[SessionDirectory]:
    """Yield the user's sessions, by mount point."""
    return (directory for directory in _all_places() if directory.exists() or directory.is_being_made())


def _all_places() -> Iterator[SessionDirectory]:
    """Yield the session directories of the user, whether each holds a session or not."""
    root = sessions_root()
    if root.is_dir():
        yield from (SessionDirectory(entry.resolve()) for entry in sorted(root.iterdir()))


def find(mountpoint: Path | None) -> SessionDirectory:
    """Return the session of a mount point, or the only open one.

    Raises:
        SessionError: there is none, or there are several.
    """
    if mountpoint is not None:
        directory = directory_for(mounts.resolve_mountpoint(mountpoint))
        if not directory.exists():
            raise SessionError(f"there is no session for {mountpoint}; flistfs status lists all sessions")
        return directory
    found = [directory for directory in all_directories() if directory.is_open()]
    if not found:
        raise SessionError("there is no open session; start one with: flistfs mount MOUNTPOINT")
    if len(found) > 1:
        names = ", ".join(directory.settings().mountpoint for directory in found)
        raise SessionError(f"there are several sessions; choose one with `mountpoint`: {names}")
    return found[0]


def find_latest(mountpoint: Path | None) -> SessionDirectory:
    """Return the session of a mount point, sealed or not; without one the only open, else the newest result.

    One that could not be started counts as well.

    Raises:
        SessionError: there is none, or there are several open ones.
    """
    if mountpoint is not None:
        directory = directory_for(mounts.resolve_mountpoint(mountpoint))
        return directory if directory.failed_start() else find(mountpoint)
    if not any(directory.is_open() for directory in all_directories()):
        ended = [(directory.failed_start() or directory.result(), directory) for directory in _all_places()]
        finished = [(result.time, directory) for result, directory in ended if result]
        if finished:
            return max(finished, key=lambda item: item[0])[1]
    return find(mountpoint)
