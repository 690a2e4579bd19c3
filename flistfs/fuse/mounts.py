"""The kernel's mounts: where one can be made, and how to end it."""

from __future__ import annotations

import ctypes
import errno
import os
import shlex
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from flistfs.errors import BusyError, MountError
from flistfs.fuse.mount_users import User, users_of
from flistfs.fuse.mountinfo import TYPE, Mount, mount_around, mount_at, mounts

__all__ = ["TYPE", "Mount", "mount_around", "mount_at", "mounts"]  # of `mountinfo`, for who asks about mounts

# Seconds to go on trying while nobody is seen to use the mount: the kernel lets go of files a little later
# than the system calls that closed them return.
_PATIENCE = 2.0

_UMOUNT_NOFOLLOW = 8  # linux/fs.h

_libc = ctypes.CDLL(None, use_errno=True)


def is_dead(path: Path) -> bool:
    """Return whether a mount's daemon is gone."""
    try:
        os.statvfs(path)  # what stat says may come from the kernel's cache
    except OSError as error:
        return error.errno in {errno.ENOTCONN, errno.ECONNABORTED}
    return False


def resolve_mountpoint(path: Path) -> Path:
    """Return the absolute path without links; the last part is never asked, as it may be a dead mount.

    Raises:
        MountError: a directory on the way does not exist.
    """
    path = Path(os.path.normpath(Path.cwd() / path))
    with suppress(OSError):  # no link; asking a dead mount for more would fail
        path = path.parent / path.readlink()
    try:
        return path.parent.resolve(strict=True) / path.name
    except OSError as error:
        raise MountError(f"{path} cannot be mounted on: {error.strerror}") from None


def check_empty(path: Path, session: Path | None = None) -> None:
    """Refuse anything but an empty directory: a mount would hide what lies there.

    Args:
        path: Where something is to be mounted; no dead mount.
        session: The state directory of the session that was mounted there before, if there is one.

    Raises:
        MountError: it cannot be mounted on; the message says what to do.
    """
    try:
        is_empty = not any(path.iterdir())
    except FileNotFoundError:
        raise MountError(f"{path} is not there; make it first: mkdir {path}") from None
    except OSError as error:
        raise MountError(f"{path} cannot be mounted on: {error.strerror}") from None
    if is_empty:
        return
    if session is None:
        raise MountError(f"{path} is not empty; choose an empty directory")
    place = shlex.quote(str(path))
    raise MountError(
        f"{path} is not empty: its files were written while its session, in {session}, was not mounted. "
        f"Bring it in with: flistfs add {place}/. --mount {place}; then seal, or empty the directory and "
        f"mount again"
    )


# Unmounting


def unmount(path: Path) -> None:
    """Unmount our mount at `path`, never lazily; done if there is none any more.

    Raises:
        BusyError: it is in use; the message names by whom.
        MountError: it failed for another reason.
    """
    deadline = time.monotonic() + _PATIENCE
    # If another program has ended our mount, the mount beneath it is not ours to end.
    while (here := mount_at(path)) is not None and here.type == TYPE:
        failure = _try_unmount(path)
        if failure is None:
            return
        users = users_of(path)
        if users or time.monotonic() > deadline:
            raise (
                _busy(path, users)
                if failure == errno.EBUSY
                else MountError(f"{path} cannot be unmounted: {os.strerror(failure)}")
            )
        time.sleep(0.05)


def check_unused(path: Path) -> None:
    """Refuse if anybody uses the mount.

    Raises:
        BusyError: the message names by whom.
    """
    if users := users_of(path):
        raise _busy(path, users)


def _busy(path: Path, users: list[User]) -> BusyError:
    if not users:
        if os.geteuid() == 0:
            return BusyError(
                f"{path} is in use by something that /proc does not show, such as a program that uses it for "
                f"a moment again and again; wait for that, or end it, and try again"
            )
        place = shlex.quote(f"{path}*")
        return BusyError(
            f"{path} is in use by a process that only root can see: sudo find /proc -maxdepth 3 -lname "
            f"{place} shows it; end it and try again"
        )
    names = "; ".join(dict.fromkeys(str(user) for user in users))
    return BusyError(f"{path} is in use: {names}. End that (or unmount it) and try again")


def _try_unmount(path: Path) -> int | None:
    """Try once; return the errno of a failure."""
    if os.geteuid() == 0:
        if _libc.umount2(os.fsencode(path), _UMOUNT_NOFOLLOW) == 0:
            return None
        return ctypes.get_errno()
    done = subprocess.run(
        ["fusermount3", "-u", "--", str(path)], capture_output=True, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode == 0:
        return None
    return errno.EBUSY if b"busy" in done.stderr.lower() else errno.EPERM


def detach_if_dead(path: Path) -> None:
    """Take a mount of ours away whose daemon died; leave anything else alone.

    Raises:
        MountError: it could not be taken away.
    """
    here = mount_at(path)
    if here is not None and here.type == TYPE and is_dead(path):
        detach_dead(path)


def detach_dead(path: Path) -> None:
    """Take away a mount whose daemon died. Lazily: programs with open files in it have lost them already.

    Raises:
        MountError: it could not be taken away.
    """
    done = subprocess.run(
        ["fusermount3", "-u", "-z", "--", str(path)],
        capture_output=True,
        check=False,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise MountError(f"the dead mount {path} cannot be taken away: {done.stderr.strip()}")
