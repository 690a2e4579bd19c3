"""One command of a client at a time, over the control socket."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import trio

from flistfs.daemons.control import MAX_REQUEST
from flistfs.errors import (
    SessionError,
)
from flistfs.util.nurseries import unwrapped
from flistfs.util.progress import Report

# Bytes of a request that are taken at a time.
_RECEIVE_SIZE = 1 << 16


T = TypeVar("T")


class _ProgressBoard:
    """The latest progress, set from any thread and read by whoever shows it."""

    def __init__(self) -> None:
        self.latest: Report | None = None

    def put(self, report: Report) -> None:
        self.latest = report


async def _while_wanted(stream: trio.SocketStream, work: Callable[[Callable[[], None]], Awaitable[T]]) -> T:
    """Do something for as long as the command that asked for it is there: it says nothing more until then.

    `work` is given a function to call when it is to be finished all the same.

    Raises:
        SessionError: the command has gone.
    """
    watching = trio.CancelScope()
    with unwrapped():
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                with watching:
                    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                        await stream.receive_some(1)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                return await work(watching.cancel)
            finally:
                watching.cancel()
    raise SessionError("interrupted")


def _peer(stream: trio.SocketStream) -> int:
    """Return the user id of who has connected: struct ucred of unix(7) is pid, uid, gid."""
    size = struct.calcsize("3i")
    raw = stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, _ = struct.unpack("3i", raw)
    return int(uid)


async def _receive_line(stream: trio.SocketStream) -> bytes:
    data = bytearray()
    while not data.endswith(b"\n"):
        more = await stream.receive_some(_RECEIVE_SIZE)
        data += more
        if not more or len(data) > MAX_REQUEST:
            raise trio.BrokenResourceError
    return bytes(data)
