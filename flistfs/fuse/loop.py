"""Less event loop for each request, in place of what pyfuse3 asks trio for.

pyfuse3 takes `Lock` and `lowlevel.wait_readable` from its module attribute `trio` (its asyncio mode relies on
that). For each request it takes the lock and waits for the FUSE device with them: two checkpoints, an epoll
registration and a round of the event loop, which is most of the daemon's time. `install` puts two lighter
ones there:

- a lock that costs nothing while nobody else wants it;
- a wait that first looks for the next request for a moment, since a program that works through a tree sends
  it within microseconds of the last answer. It looks again and again before it goes to sleep; or idle cores
  are kept awake meanwhile, where that is wanted and can be had (see `cores`): waking up is what both are
  about. Every `_TURN` requests the event loop gets its turn all the same, so that uploads are noted and
  commands answered.

FLISTFS_STOCK_LOOP=1 in the daemon's environment leaves pyfuse3 as it is. scripts/bench measures both.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from types import SimpleNamespace, TracebackType

import pyfuse3
import trio

from flistfs.fuse.cores import WakefulCores

# How often to look before going to sleep, where cores sleep too: some 50 µs, about what a program needs to
# send its next request.
# (20 looks gain half as much, 100 no more.) With one core it is that program's time, and nothing is gained.
_LOOKS = 40

# How long to look for the next request without the event loop, in milliseconds. It is spent asleep.
_LOOK = 1

# After so many requests in a row the event loop has its turn.
_TURN = 32


class _LightLock:
    """A lock for tasks of one loop whose uncontended path is no checkpoint.

    It is not handed over: a task that has answered its request without waiting takes the next one itself,
    and the waiting one comes to its turn when the first has to wait.
    """

    def __init__(self) -> None:
        self._held = False
        self._waiters = trio.lowlevel.ParkingLot()

    async def __aenter__(self) -> None:
        while self._held:
            await self._waiters.park()
        self._held = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._held = False
        self._waiters.unpark()


class _QuickWait:
    """Waits until the FUSE device can be read."""

    def __init__(self, cores: WakefulCores) -> None:
        self._served = 0
        self._looks = _LOOKS if len(os.sched_getaffinity(0)) > 1 else 0
        self._cores = cores
        self._poll: Callable[[float], list[tuple[int, int]]] | None = None

    async def wait_readable(self, descriptor: int) -> None:
        if self._poll is None:  # a process has one mount
            device = select.poll()
            device.register(descriptor, select.POLLIN)
            self._poll = device.poll
        self._served += 1
        if self._served == _TURN:
            self._served = 0
            await trio.lowlevel.checkpoint()
        awake = self._cores.hold()
        if not self._comes_soon(self._poll, 0 if awake else self._looks):
            self._cores.release()
            await trio.lowlevel.wait_readable(descriptor)

    def _comes_soon(self, poll: Callable[[float], list[tuple[int, int]]], looks: int) -> bool:
        return any(poll(0) for _ in range(looks)) or bool(poll(_LOOK))


def install(*, low_latency: bool) -> WakefulCores:
    """Let pyfuse3 use the light lock and the quick wait, unless the environment says not to.

    Returns the cores that these keep awake, with `low_latency` alone; their `watch` is to run as long as
    requests are served.
    """
    cores = WakefulCores(wanted=low_latency)
    if os.environ.get("FLISTFS_STOCK_LOOP"):
        return cores
    lowlevel = SimpleNamespace(
        current_task=trio.lowlevel.current_task,
        current_trio_token=trio.lowlevel.current_trio_token,
        notify_closing=trio.lowlevel.notify_closing,
        wait_readable=_QuickWait(cores).wait_readable,
    )
    stand_in = SimpleNamespace(
        Lock=_LightLock,
        ClosedResourceError=trio.ClosedResourceError,
        open_nursery=trio.open_nursery,
        lowlevel=lowlevel,
    )
    vars(pyfuse3)["trio"] = stand_in
    return cores
