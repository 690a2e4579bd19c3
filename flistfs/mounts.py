"""The kernel's mounts: what is mounted where, who uses it, and how to end it.

psutil knows neither root directories nor which mount an open file belongs to, so /proc is read here. It is
never asked in a way that would make the kernel ask the file system itself: a daemon may call all of this.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from flistfs.errors import BusyError, MountError

TYPE = "fuse.flistfs"  # the type of our mounts in /proc/self/mountinfo

# Seconds to go on trying while nobody is seen to use the mount: the kernel lets go of files a little later
# than the system calls that closed them return.
_PATIENCE = 2.0

_UMOUNT_NOFOLLOW = 8  # linux/fs.h

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo: `device` is "major:minor"."""

    id: int
    device: str
    path: Path
    type: str


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who keeps a mount busy: a process and what it has there, or a mount inside (pid 0)."""

    pid: int
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid}: {self.what})" if self.pid else self.what


def _unescape(text: str) -> str:
    r"""Undo mountinfo's octal escapes of blanks and backslashes (`\040`)."""
    raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), os.fsencode(text))
    return os.fsdecode(raw)


def mounts() -> list[Mount]:
    """List the mounts that this process sees, in the order of mounting."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields = os.fsdecode(line).split(" ")
        kind = fields[fields.index("-", 6) + 1]
        found.append(Mount(int(fields[0]), fields[2], Path(_unescape(fields[4])), kind))
    return found


def mount_at(path: Path) -> Mount | None:
    """Return the uppermost mount at exactly this (absolute, resolved) path."""
    return next((mount for mount in reversed(mounts()) if mount.path == path), None)


def mount_around(path: Path) -> Mount | None:
    """Return the mount that the folder of an absolute, resolved path lies in."""
    around = [mount for mount in mounts() if path.is_relative_to(mount.path) and mount.path != path]
    return max(around, key=lambda mount: (len(mount.path.parts), mount.id), default=None)


def is_dead(path: Path) -> bool:
    """Say whether a mount's daemon is gone."""
    try:
        os.statvfs(path)  # what stat says may come from the kernel's cache
    except OSError as error:
        return error.errno in {errno.ENOTCONN, errno.ECONNABORTED}
    return False


def resolve_mountpoint(path: Path) -> Path:
    """Return the absolute path without links; the last part is never asked, as it may be a dead mount.

    Raises:
        MountError: a folder on the way does not exist.
    """
    path = Path(os.path.normpath(Path.cwd() / path))
    with suppress(OSError):  # no link; asking a dead mount for more would fail
        path = path.parent / path.readlink()
    try:
        return path.parent.resolve(strict=True) / path.name
    except OSError as error:
        raise MountError(f"{path} is not there: {error.strerror}") from None


def check_empty(path: Path, session: Path | None = None) -> None:
    """Refuse what is no empty directory: a mount would hide what lies there.

    Args:
        path: Where something is to be mounted; no dead mount.
        session: Where the session lies that was mounted there before, if there is one.

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
        f"{path} is not empty: what lies there was written while its session, in {session}, was not mounted. "
        f"Bring it in with: flistfs add {place}/. --mount {place}; then seal, or empty the directory and "
        f"mount again"
    )


# Who uses it


def users_of(path: Path) -> list[User]:
    """Name everybody who keeps the mount at `path` busy, as far as this process may see them.

    Those are mounts inside it, and processes with an open file, working directory, root or mapping in it.
    """
    all_mounts = mounts()
    here = mount_at(path)
    if here is None:
        return []
    ids = {mount.id for mount in all_mounts if mount.device == here.device}
    found = [
        User(0, "", f"{mount.type} mounted on {mount.path}")
        for mount in all_mounts
        if mount.path != path and mount.path.is_relative_to(path)
    ]
    for pid in _pids():
        found += _uses(pid, path, ids, here.device)
    return found


def _pids() -> Iterator[int]:
    for name in os.listdir("/proc"):  # noqa: PTH208  names, not paths: there are thousands
        if name.isdigit() and int(name) != os.getpid():
            yield int(name)


def _uses(pid: int, path: Path, ids: set[int], device: str) -> Iterator[User]:
    """Say what a process has in the mount, each kind once."""
    process = Path("/proc") / str(pid)
    try:
        name = (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return  # it has ended
    for link, what in (("cwd", "working directory"), ("root", "root directory")):
        if _points_into(process / link, path):
            yield User(pid, name, what)
    if number := _open_file(process, ids):
        yield User(pid, name, f"has {_target(process / 'fd' / number)} open")
    if mapped := _mapping(process, device):
        yield User(pid, name, f"has {mapped} mapped")


def _points_into(link: Path, path: Path) -> bool:
    return Path(_target(link)).is_relative_to(path)


def _target(link: Path) -> str:
    try:
        return os.readlink(link).removesuffix(" (deleted)")  # noqa: PTH115  a text, not always a path
    except OSError:
        return ""


def _open_file(process: Path, ids: set[int]) -> str | None:
    """Find a file descriptor in one of the mounts `ids`: fdinfo names the mount without asking it."""
    try:
        numbers = os.listdir(process / "fdinfo")  # noqa: PTH208
    except OSError:
        return None  # it has ended, or is not ours to see
    for number in numbers:
        try:
            info = (process / "fdinfo" / number).read_text()
        except OSError:
            continue
        match = re.search(r"^mnt_id:\s*(\d+)", info, re.MULTILINE)
        if match and int(match[1]) in ids:
            return number
    return None


def _mapping(process: Path, device: str) -> str | None:
    major, minor = (int(number) for number in device.split(":"))
    try:
        lines = (process / "maps").read_text(errors="replace").splitlines()
    except OSError:
        return None
    wanted = f"{major:02x}:{minor:02x}"
    for line in lines:
        fields = line.split(maxsplit=5)
        if fields[3] == wanted and len(fields) > 5:
            return fields[5]
    return None


# Unmounting


def unmount(path: Path) -> None:
    """Unmount our mount at `path`, never lazily; done if there is none any more.

    Raises:
        BusyError: it is in use; the message names by whom.
        MountError: it failed for another reason.
    """
    deadline = time.monotonic() + _PATIENCE
    # What lies under our mount, should somebody else have ended that, is not ours to end.
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
        return BusyError(f"{path} is in use by a process that only root can see; end it and try again")
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
    """Take away a mount whose daemon died. Lazily: whoever still has files in it has lost them already.

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
