"""Serving a mount of any content, until it is unmounted."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyfuse3
import trio

from flistfs.errors import FlistfsError, MountError
from flistfs.fuse import loop, mounts

log = logging.getLogger(__name__)

# Seconds from an unmount by `unmount` or a signal to the end of serving. Other mount namespaces that have the
# mount may keep it for as long as they like.
_LAST_REQUESTS = 5.0

# Seconds after which a read of the FUSE device is tried again, in which there is nothing to be read.
_BLOCKED_READ = 1.0


class MountServer:
    """Mounts a file system, and serves it until it is unmounted or a signal ends it. A process has one."""

    def __init__(self, mountpoint: Path, *, max_requests: int, low_latency: bool) -> None:
        """Prepare pyfuse3's event loop (see `loop`), and mount nothing yet.

        Args:
            mountpoint: Where to mount; an empty directory.
            max_requests: Requests that are served at the same time.
            low_latency: Whether idle cores stay awake while requests come in (see `cores`).
        """
        self.answering = trio.Event()
        """To be set by the operations when the kernel has initialised the mount."""
        self.unmounted = trio.Event()
        self.is_stopping = False
        """Whether a signal has asked for the end."""
        self._mountpoint = mountpoint
        self._max_requests = max_requests
        self._cores = loop.install(low_latency=low_latency)
        self._serving = trio.CancelScope()

    @contextmanager
    def mounted(
        self, operations: pyfuse3.Operations, options: list[str], session: Path | None = None
    ) -> Iterator[AsyncIterator[int]]:
        """Mount, in the place of a dead mount if there is one; yield the signals that `serve` needs.

        `serve` is to be called in this context, and what uses pyfuse3 must have ended when it is left.

        Args:
            operations: What serves it.
            options: Mount options as the kernel and libfuse know them.
            session: The state directory of the session that was mounted there before, if there is one.

        Raises:
            MountError: it cannot be mounted.
        """
        # From before there is a mount: the first requests are served before any other task has its turn.
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            _init_fuse(operations, self._mountpoint, options, session)
            try:
                yield signals
            finally:
                pyfuse3.close(unmount=False)

    async def serve(
        self,
        signals: AsyncIterator[int],
        *tasks: Callable[[], Awaitable[object]],
        announce: Callable[[], None],
    ) -> None:
        """Serve until the mount has ended.

        Args:
            signals: What `mounted` yields.
            tasks: What else runs until then.
            announce: Called when the file system answers.
        """
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)
            nursery.start_soon(self._handle_signals, signals)
            nursery.start_soon(_log_tasks_on_demand)
            nursery.start_soon(self._cores.watch)
            nursery.start_soon(self._announce, announce)
            with self._serving, _no_blocked_reads():
                await pyfuse3.main(max_tasks=self._max_requests)
            log.info("%s is unmounted", self._mountpoint)
            self.unmounted.set()
            nursery.cancel_scope.cancel()

    async def unmount(self) -> None:
        """Unmount, and return when the last requests are answered.

        Raises:
            BusyError: it is in use.
            MountError: it failed for another reason.
        """
        if not self.unmounted.is_set():  # somebody else may have done it meanwhile
            await trio.to_thread.run_sync(mounts.unmount, self._mountpoint)
        await self._end_requests()

    async def _announce(self, announce: Callable[[], None]) -> None:
        await self.answering.wait()
        await trio.to_thread.run_sync(_ask_first_questions, self._mountpoint, abandon_on_cancel=True)
        announce()

    async def _handle_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            log.info("%s: unmounting", signal.Signals(number).name)
            self.is_stopping = True
            try:
                await trio.to_thread.run_sync(mounts.unmount, self._mountpoint)
            except FlistfsError as error:
                # Programs that still use it must see errors, and no empty directory, so it is left as a dead
                # mount, which the next `flistfs mount` there takes away.
                log.warning("%s; leaving a dead mount", error)
                self._serving.cancel()
            await self._end_requests()

    async def _end_requests(self) -> None:
        """Wait for the last requests, and end serving.

        Programs that use the mount in another namespace by then, where none did when that was checked, get
        errors from then on.
        """
        with trio.move_on_after(_LAST_REQUESTS):
            await self.unmounted.wait()
        self._serving.cancel()
        await self.unmounted.wait()


@contextmanager
def _no_blocked_reads() -> Iterator[None]:
    """Interrupt system calls of the main thread from time to time.

    The kernel takes back the request of a program that is killed. Between waiting for the FUSE device and
    reading from it, that leaves pyfuse3 in a read that blocks, with the interpreter's lock, until there is
    another request. It tries again after EINTR, but gives up after EAGAIN, so that the device cannot be made
    non-blocking.
    """
    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, _BLOCKED_READ, _BLOCKED_READ)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def _ask_first_questions(mountpoint: Path) -> None:
    """Check that the mount answers, and let the kernel learn whether there are extended attributes."""
    mountpoint.stat()
    with suppress(OSError):
        os.getxattr(mountpoint, "user.flistfs")


def _init_fuse(
    operations: pyfuse3.Operations, mountpoint: Path, options: list[str], session: Path | None
) -> None:
    """Mount, as `MountServer.mounted` says; what libfuse prints of a failure is in the error's message."""
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


async def _log_tasks_on_demand() -> None:
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
