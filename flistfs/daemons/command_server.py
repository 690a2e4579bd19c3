"""The daemon's end of the control socket: it takes a command's request, and answers it (see `control`)."""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import trio

from flistfs.daemons.control import MAX_REQUEST, short_path
from flistfs.errors import FlistfsError, InternalError, SessionError
from flistfs.util.nurseries import unwrapped
from flistfs.util.progress import Report

log = logging.getLogger(__name__)

# Bytes of a request that are taken at a time.
_RECEIVE_SIZE = 1 << 16

# Seconds for a command to say what it wants.
_REQUEST_TIME = 10.0

# Progress is sent to waiting commands this often, in seconds.
_PROGRESS_EVERY = 0.1

# A waiting command hears from the daemon at least this often, in seconds; `control` waits longer.
_SIGN_OF_LIFE = 10.0

T = TypeVar("T")

Perform = Callable[[Any, trio.SocketStream], Awaitable[dict[str, Any]]]
"""Does what a request (from JSON) asks, and returns the result; the command is at the stream's other end."""


class CommandServer:
    """Answers commands on a control socket, and reports progress to them meanwhile."""

    def __init__(self, control: Path, perform: Perform, log_path: Path) -> None:
        """Prepare to answer.

        Args:
            control: Where the socket is to be.
            perform: Does what a command asks.
            log_path: Where the log is, for the user to look up a bug.
        """
        self._control = control
        self._perform = perform
        self._log_path = log_path
        self._latest: Report | None = None

    def report(self, report: Report) -> None:
        """Take the latest progress, from any thread, for every command that waits."""
        self._latest = report

    async def listen(self) -> trio.SocketListener:
        """Let commands connect; they wait until `serve` answers them."""
        self._control.unlink(missing_ok=True)
        listening = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
        with short_path(self._control) as address:
            await listening.bind(address)
        listening.listen()
        return trio.SocketListener(listening)

    async def serve(self, listener: trio.SocketListener, commands: trio.Nursery) -> None:
        """Answer commands until this is cancelled; those that have connected by then, in `commands`."""
        await trio.serve_listeners(self._handle, [listener], handler_nursery=commands)

    async def _handle(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError), unwrapped():
            async with stream:
                if _peer(stream) in {os.geteuid(), 0}:
                    await self._answer(stream)

    async def _answer(self, stream: trio.SocketStream) -> None:
        with trio.move_on_after(_REQUEST_TIME) as asking:
            line = await _receive_line(stream)
        if asking.cancelled_caught:
            return
        answer = await self._with_progress(line, stream)
        with trio.move_on_after(_REQUEST_TIME):
            await stream.send_all(json.dumps(answer).encode() + b"\n")

    async def _with_progress(self, line: bytes, stream: trio.SocketStream) -> dict[str, Any]:
        """Do what a command asks, reporting progress to it meanwhile; return the answer."""
        # What ends the session is finished once it was begun, even if the command that asked for it has gone.
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._send_progress, stream)
                try:
                    return {"result": await self._perform(json.loads(line), stream)}
                except FlistfsError as error:
                    return {"error": error.as_dict()}
                except Exception as error:
                    log.exception("a command failed: %r", line[:200])
                    bug = InternalError(f"flistfs failed: {error} (log: {self._log_path})")
                    return {"error": bug.as_dict()}
                finally:
                    nursery.cancel_scope.cancel()
        raise AssertionError("a shielded block was cancelled")

    async def _send_progress(self, stream: trio.SocketStream) -> None:
        last = self._latest
        silent_until = time.monotonic() + _SIGN_OF_LIFE
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while True:
                await trio.sleep(_PROGRESS_EVERY)
                if self._latest != last or time.monotonic() > silent_until:
                    last = self._latest
                    silent_until = time.monotonic() + _SIGN_OF_LIFE
                    await stream.send_all(json.dumps({"progress": last and asdict(last)}).encode() + b"\n")


async def while_wanted(stream: trio.SocketStream, work: Callable[[Callable[[], None]], Awaitable[T]]) -> T:
    """Do something for as long as the command that asked for it is connected; it sends nothing meanwhile.

    `work` is given a function to call from when on it is to be finished even if the command goes.

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
    """Return the user id of the process that connected: struct ucred of unix(7) is pid, uid, gid."""
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
