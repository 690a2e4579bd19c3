"""Who uses a mount.

psutil knows neither root directories nor mounts in other namespaces, so /proc is read here. It is never asked
in a way that would make the kernel ask the file system itself: a daemon may call all of this.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flistfs.fuse.mountinfo import Mount, mount_at, mounts, unescape

# For statx(2): of a file system that may hang, or may be served by this process, only the kernel is asked.
_AT_FDCWD = -100
_AT_NO_AUTOMOUNT = 0x800
_AT_STATX_DONT_SYNC = 0x4000
_STATX_SIZE = 256
_STATX_DEVICE = 136  # where stx_dev_major lies in it, with stx_dev_minor behind

# The layers of an overlay among its options, several with colons between them.
_LAYERS = re.compile(r"(?:lowerdir\+?|datadir\+?|upperdir|workdir)=([^,]*)")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who keeps a mount busy: a process and what it has there, or the kernel (pid 0)."""

    pid: int
    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid}: {self.what})" if self.pid else self.what


def users_of(path: Path) -> list[User]:
    """Name everybody who keeps the mount at `path` busy, as far as this process may see them.

    Those are processes with an open file, a working or root directory, a mapping or a socket in it, and what
    the kernel has there: mounts inside, loop devices, overlays; and mounts of the same file system elsewhere,
    which would keep it alive when this one is gone. Processes are seen in other mount namespaces too.
    """
    here = mount_at(path)
    if here is None:
        return []
    found = [*_mounts_inside(path), *_loop_devices(path), *_other_mounts(here)]
    sockets = _sockets(path)
    for pid in _pids():
        found += _uses(pid, here.device, sockets)
    return found


def _mounts_inside(path: Path) -> Iterator[User]:
    for mount in mounts():
        if mount.path != path and mount.path.is_relative_to(path):
            yield User(0, "", f"{mount.type} mounted on {mount.path}")
        layers = ":".join(_LAYERS.findall(mount.options)).split(":") if mount.type == "overlay" else []
        if any(Path(unescape(layer)).is_relative_to(path) for layer in layers):
            yield User(0, "", f"overlay mounted on {mount.path} with a layer in it")


def _loop_devices(path: Path) -> Iterator[User]:
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        file = _text(backing).rstrip("\n").removesuffix(" (deleted)")
        if Path(file).is_relative_to(path):
            yield User(0, "", f"/dev/{backing.parts[3]} has {file} open")


def _sockets(path: Path) -> set[str]:
    """Return the sockets that are bound to a name in the mount, as a link to an open one has them."""
    found = set()
    for line in _text(Path("/proc/net/unix")).splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) > 7 and Path(fields[7]).is_relative_to(path):
            found.add(f"socket:[{fields[6]}]")
    return found


def _text(path: Path) -> str:
    """Read a small file of the kernel's; what has gone meanwhile, or is not ours to see, is empty."""
    try:
        return os.fsdecode(path.read_bytes())
    except OSError:
        return ""


def _pids() -> Iterator[int]:
    for name in os.listdir("/proc"):  # noqa: PTH208  names, not paths: there are thousands
        if name.isdigit() and int(name) != os.getpid():
            yield int(name)


# Mounts elsewhere


def _other_mounts(here: Mount) -> Iterator[User]:
    """Name the mounts of the same file system that an umount of this one leaves in place.

    Those in other mount namespaces are none of them: most are there by chance, and nobody looks at them.
    """
    seen = mounts()
    parent, place = _parent(here, seen), _place(here, seen)
    for mount in seen:
        if mount.device != here.device or mount.path.is_relative_to(here.path):
            continue
        if not (_learns(_parent(mount, seen), parent) and _place(mount, seen) == place):
            yield User(0, "", f"mounted on {mount.path} too")


def _learns(parent: Mount | None, of: Mount | None) -> bool:
    """Return whether a mount hears of an umount in another one, see mount_namespaces(7)."""
    return parent is not None and of is not None and of.group in {parent.group, parent.master} - {None}


def _parent(mount: Mount, seen: list[Mount]) -> Mount | None:
    return next((other for other in seen if other.id == mount.parent), None)


def _place(mount: Mount, seen: list[Mount]) -> Path | None:
    """Return where in its parent's file system a mount lies."""
    parent = _parent(mount, seen)
    if parent is None or not mount.path.is_relative_to(parent.path):
        return None
    return parent.root / mount.path.relative_to(parent.path)


# Processes


def _uses(pid: int, device: str, sockets: set[str]) -> Iterator[User]:
    """Return what a process has in the mount, each kind once."""
    process = Path("/proc") / str(pid)
    if not (name := _name(pid)):
        return  # it has ended
    for link, what in (("cwd", "working directory"), ("root", "root directory")):
        if _device(process / link) == device:
            yield User(pid, name, what)
    if opened := _open_file(process, device, sockets):
        yield User(pid, name, f"has {opened} open")
    if mapped := _mapping(process, device):
        yield User(pid, name, f"has {mapped} mapped")


def _name(pid: int) -> str:
    return _text(Path(f"/proc/{pid}/comm")).strip()


def _device(link: Path) -> str | None:
    """Return the device of what a link in /proc leads to, without asking its file system anything."""
    found = ctypes.create_string_buffer(_STATX_SIZE)
    flags = _AT_STATX_DONT_SYNC | _AT_NO_AUTOMOUNT
    if _libc.statx(_AT_FDCWD, os.fsencode(link), flags, 0, found) != 0:
        return None
    major, minor = struct.unpack_from("=II", found, _STATX_DEVICE)
    return f"{major}:{minor}"


def _target(link: Path) -> str:
    try:
        return os.readlink(link).removesuffix(" (deleted)")  # noqa: PTH115  a text, not always a path
    except OSError:
        return ""


def _open_file(process: Path, device: str, sockets: set[str]) -> str | None:
    """Find an open file of a device, or one of the sockets."""
    try:
        numbers = os.listdir(process / "fd")  # noqa: PTH208
    except OSError:
        return None  # it has ended, or is not ours to see
    for number in numbers:
        link = process / "fd" / number
        if _device(link) == device:
            return _target(link)
        if sockets and _target(link) in sockets:
            return "a socket bound in it"
    return None


def _mapping(process: Path, device: str) -> str | None:
    major, minor = (int(number) for number in device.split(":"))
    wanted = f"{major:02x}:{minor:02x}"
    for line in _text(process / "maps").splitlines():
        fields = line.split(maxsplit=5)
        if fields[3] == wanted and len(fields) > 5:
            return fields[5]
    return None
