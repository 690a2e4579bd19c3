"""Idle cores that stay awake while requests come in.

A request of a small file is answered in some 50 µs, and to wake a core that sleeps costs as much: 40 µs on a
virtual machine, where the host has to be asked, 2 to 100 µs on a real one, by how deep it sleeps. A program
and the daemon wait for each other at every request, so that one of the two sleeps at any time. `cp -r` of
small files takes a fifth less time with cores that stay awake; large ones take what they took.

Linux lets programs say how late a core may wake up (PM QoS, Documentation/power/pm_qos_interface.rst): who
keeps `/dev/cpu_dma_latency` open with a number of µs in it. With 0 an idle core looks for work instead of
sleeping. That holds for all cores of the machine and costs power, so it is asked for only where the user has
asked for it (`mount --low-latency`), and only from one request to the next; the kernel takes it back itself
when the process ends.

Only root may; where it cannot be had (a container without the device, another user), nothing is lost.
"""

from __future__ import annotations

import logging
import os
import struct
from pathlib import Path

import trio

log = logging.getLogger(__name__)

_DEVICE = Path("/dev/cpu_dma_latency")
_AT_ONCE = struct.pack("=i", 0)

# What an idle core does that may not sleep at all. Where there is no such state (on Arm; in a guest whose
# kernel knows nothing but to halt) the request is granted, and cores sleep all the same.
_STATE = Path("/sys/devices/system/cpu/cpu0/cpuidle/state0/name")
_AWAKE = "POLL"

# Seconds without a `hold` after which `watch` lets cores sleep.
_FORGOTTEN = 1.0


class WakefulCores:
    """Idle cores look for work, between `hold` and `release`, if `wanted`."""

    def __init__(self, device: Path = _DEVICE, state: Path = _STATE, *, wanted: bool) -> None:
        """Ask for nothing yet."""
        self._device = device
        self._possible = wanted and obstacle(device, state) is None
        self._held: int | None = None
        self._asked = False

    def hold(self) -> bool:
        """Keep idle cores awake from now on; says whether they are."""
        self._asked = True
        if self._held is None and self._possible:
            try:
                self._held = self._ask()
            except OSError as error:
                log.info("idle cores go to sleep between requests: %s", error)
                self._possible = False
        return self._held is not None

    def _ask(self) -> int:
        descriptor = os.open(self._device, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, _AT_ONCE)
        except OSError:
            os.close(descriptor)
            raise
        return descriptor

    def release(self) -> None:
        """Let them sleep again."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    async def watch(self) -> None:
        """Let them sleep when nobody holds them any more but nobody said so, and when this is cancelled.

        For a file system that was unmounted, and for one whose every task waits for something else.
        """
        try:
            while True:
                self._asked = False
                await trio.sleep(_FORGOTTEN)
                if not self._asked:
                    self.release()
        finally:
            self.release()


def obstacle(device: Path = _DEVICE, state: Path = _STATE) -> str | None:
    """Return why this process cannot keep idle cores awake, or None if it can."""
    if len(os.sched_getaffinity(0)) == 1:
        return "there is only one core, which is never idle while requests come in"
    try:
        name = state.read_text().strip()
    except OSError:
        name = ""
    if name != _AWAKE:
        return "idle cores of this machine have no state in which they stay awake"
    if not os.access(device, os.W_OK):
        return f"{device} cannot be written by this user"
    return None
