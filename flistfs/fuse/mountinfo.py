"""What is mounted where, as /proc tells it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

TYPE = "fuse.flistfs"  # the type of our mounts in /proc/self/mountinfo


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo, see proc_pid_mountinfo(5).

    `device` is "major:minor", `root` what of the file system is mounted. `group` is its peer group, if it is
    shared, and `master` the one that it is a slave of. `options` are the file system's.
    """

    id: int
    parent: int
    device: str
    root: Path
    path: Path
    type: str
    group: int | None
    master: int | None
    options: str


def unescape(text: str) -> str:
    r"""Undo the octal escapes that mountinfo has of blanks and backslashes (`\040`)."""
    raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), os.fsencode(text))
    return os.fsdecode(raw)


def mounts(process: str = "self") -> list[Mount]:
    """List the mounts that a process sees, in the order of mounting.

    Raises:
        OSError: it has ended, or is another user's.
    """
    lines = Path("/proc", process, "mountinfo").read_bytes().split(b"\n")  # names may have any other break
    return [_mount(os.fsdecode(line)) for line in lines if line]


def _mount(line: str) -> Mount:
    head, _, tail = line.partition(" - ")
    number, parent, device, root, path, _, *propagation = head.split(" ")
    groups = dict(re.findall(r"(shared|master):(\d+)", " ".join(propagation)))
    kind, _, options = tail.split(" ", 2)
    return Mount(
        int(number),
        int(parent),
        device,
        Path(unescape(root)),
        Path(unescape(path)),
        kind,
        int(groups["shared"]) if "shared" in groups else None,
        int(groups["master"]) if "master" in groups else None,
        options,
    )


def mount_at(path: Path) -> Mount | None:
    """Return the uppermost mount at exactly this (absolute, resolved) path."""
    return next((mount for mount in reversed(mounts()) if mount.path == path), None)


def mount_around(path: Path) -> Mount | None:
    """Return the mount that the directory of an absolute, resolved path lies in."""
    around = [mount for mount in mounts() if path.is_relative_to(mount.path) and mount.path != path]
    return max(around, key=lambda mount: (len(mount.path.parts), mount.id), default=None)
