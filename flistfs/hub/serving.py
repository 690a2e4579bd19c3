"""Serving a hub: HTTP and blocks, until the process is told to end."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass

import anycorn
import trio
from anycorn.config import Config

from flistfs.errors import OutputError
from flistfs.hub.app import make_app
from flistfs.hub.blocks import BlockServer, BlockStores
from flistfs.hub.hub import Hub
from flistfs.util.nurseries import unwrapped

log = logging.getLogger(__name__)

_IDLE: float = 30.0  # seconds that a connection may be quiet between two requests
_ENDING: float = 5.0  # seconds that requests have to end when the hub does
_AFTERWARDS: float = 5.0  # seconds that the server of HTTP has for itself then
_MAX_HEADERS: int = 32 << 10  # bytes


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a hub listens.

    Attributes:
        http: HOST:PORT; port 0 is any that is free.
        blocks: The same for its blocks; None if they are not served.
        certificate: The files of a certificate and its key, for TLS.
    """

    http: str
    blocks: str | None = None
    certificate: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a hub can be reached: a URL, and HOST:PORT of its blocks."""

    http: str
    blocks: str | None


def serve(hub: Hub, listening: Listening, announce: Callable[[Addresses], object]) -> None:
    """Serve a hub until SIGINT or SIGTERM; `announce` is called once it can be reached.

    Raises:
        OutputError: an address cannot be listened on.
        StoreError: the store of its blocks cannot be used.
    """
    with ExitStack() as opened:
        stores = opened.enter_context(closing(BlockStores(hub)))
        stores.check()
        trio.run(_serve, hub, stores, listening, announce)


async def _serve(
    hub: Hub, stores: BlockStores, listening: Listening, announce: Callable[[Addresses], object]
) -> None:
    config = Config()
    config.bind = [listening.http]
    config.accesslog = None
    config.errorlog = log
    config.include_server_header = False
    config.keep_alive_timeout = _IDLE
    config.graceful_timeout = _ENDING
    config.h11_max_incomplete_size = _MAX_HEADERS
    if listening.certificate is not None:
        config.certfile, config.keyfile = listening.certificate
    ended = trio.Event()
    try:
        with unwrapped():
            await _serve_until(ended, hub, stores, config, listening, announce)
    except Exception as error:
        if ended.is_set():  # what was cut off is nobody's any more
            log.warning("the hub ended with requests at work: %s", error)
        elif isinstance(error, OSError):
            raise OutputError(f"the hub cannot listen: {error}") from None
        else:
            raise


async def _serve_until(
    ended: trio.Event,
    hub: Hub,
    stores: BlockStores,
    config: Config,
    listening: Listening,
    announce: Callable[[Addresses], object],
) -> None:
    async with trio.open_nursery() as nursery:
        address = None
        if listening.blocks is not None:
            address = await _serve_blocks(nursery, BlockServer(hub, stores), listening.blocks)
        nursery.start_soon(_wait_for_signal, ended)
        async with trio.open_nursery() as answering:
            (bound, *_) = await answering.start(_serve_http, hub, config, ended)
            announce(Addresses(bound, address))
            await ended.wait()
            nursery.cancel_scope.deadline = trio.current_time() + _ENDING + _AFTERWARDS
        nursery.cancel_scope.cancel()  # whoever fetches blocks begins anew elsewhere, or later


async def _serve_http(
    hub: Hub, config: Config, ended: trio.Event, task_status: trio.TaskStatus[list[str]]
) -> None:
    await anycorn.serve(make_app(hub), config, shutdown_trigger=ended.wait, task_status=task_status)  # type: ignore[arg-type]
    ended.set()


async def _serve_blocks(nursery: trio.Nursery, server: BlockServer, address: str) -> str:
    host, _, port = address.rpartition(":")
    (listener,) = await trio.open_tcp_listeners(int(port), host=host.strip("[]"))
    nursery.start_soon(server.serve, listener)
    name, number = listener.socket.getsockname()[:2]
    return f"[{name}]:{number}" if ":" in name else f"{name}:{number}"


async def _wait_for_signal(ended: trio.Event) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            ended.set()
            return
