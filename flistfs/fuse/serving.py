"""What processes that serve a mount have in common: to mount, to say when, and what they do now."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyfuse3
import trio

from flistfs.errors import MountError
from flistfs.fuse import mounts
from flistfs.util.progress import Report

log = logging.getLogger(__name__)


class Ready:
    """Tells the command that started the daemon how that went, once; in the foreground the log does."""

    def __init__(self, foreground: bool) -> None:  # noqa: FBT001
        self._told = foreground

    def report(self, report: Report) -> None:
        """Tell how far it is on the way to that."""
        if not self._told:
            with suppress(BrokenPipeError):
                os.write(1, json.dumps({"progress": asdict(report)}).encode() + b"\n")

    def say(self, answer: dict[str, Any]) -> None:
        """Tell it, and let go of its pipes."""
        if self._told:
            return
        self._told = True
        with suppress(BrokenPipeError):
            os.write(1, json.dumps(answer).encode() + b"\n")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)


def init_fuse(
    operations: pyfuse3.Operations, mountpoint: Path, options: list[str], session: Path | None = None
) -> None:
    """Mount, in the place of a dead mount if there is one.

    Args:
        operations: What serves it.
        mountpoint: Where; an empty directory.
        options: Mount options as the kernel and libfuse know them.
        session: Where the session lies that was mounted there before, if there is one.

    Raises:
        MountError: it cannot be mounted; what libfuse prints of that is in the message.
    """
    mounts.detach_if_dead(mountpoint)
    mounts.check_empty(mountpoint, session)
    reader, writer = os.pipe()
    stderr = os.dup(2)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        pyfuse3.init(operations, str(mountpoint), {"fsname=flistfs", "subtype=flistfs", *options})
    except RuntimeError as error:
        os.dup2(stderr, 2)
        said = os.read(reader, 4096).decode(errors="replace").strip().rpartition("\n")[2]
        raise MountError(f"{mountpoint} cannot be mounted: {said or error}") from None
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(reader)


def may_access(mode: int, wanted: int) -> bool:
    """Return whether access(2) of an inode with this st_mode succeeds in a mount without default_permissions.

    Only who mounted it can enter, and may do there what root may anywhere (CAP_DAC_OVERRIDE in
    capabilities(7)): read, write and search everything, but execute only what has an x bit for somebody.
    That is how the kernel decides execve there, and it refuses writing to a read-only mount without asking.

    Args:
        mode: The inode's.
        wanted: os.R_OK, W_OK and X_OK, or 0 for the question whether it exists.
    """
    return not wanted & os.X_OK or stat.S_ISDIR(mode) or bool(mode & 0o111)


async def log_tasks_on_demand() -> None:
    """On SIGUSR1, write to the log where every task is; faulthandler has written where every thread is."""
    with trio.open_signal_receiver(signal.SIGUSR1) as signals:
        faulthandler.register(signal.SIGUSR1, all_threads=True, chain=True)
        async for _ in signals:
            root = trio.lowlevel.current_root_task()
            assert root is not None  # noqa: S101  the type checker's: we run in a task
            log.info("tasks:\n%s", "\n".join(_describe_task(root, depth=0)))


def _describe_task(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    """Name a task, its place in the code, and the tasks it has started."""
    place = " < ".join(
        f"{frame.f_code.co_name}:{line}" for frame, line in reversed(list(task.iter_await_frames()))
    )
    yield f"{'  ' * depth}{task.name}: {place or 'running'}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _describe_task(child, depth + 1)
