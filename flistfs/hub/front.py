"""What stands before the routes: requests are taken as clients are known to send them, and counted."""

from __future__ import annotations

import ipaddress
import logging
import re
from collections.abc import Iterator, MutableMapping
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flistfs.hub.answers import failure
from flistfs.hub.hub import Network, Settings
from flistfs.hub.metrics import Metrics

log = logging.getLogger(__name__)

IS_READ: Final = "flistfs.is_read"
"""The key in a request's scope that says that all of its body was received."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "INFO"})
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_SLASHES: Final = re.compile("//+")
_HOST: Final = re.compile(rb"[A-Za-z0-9.:\[\]_-]{1,255}")


class Front:
    """Takes more slashes than a path needs, and what a proxy says of who asks.

    A hub where nobody logs in is asked by this machine alone, under one of its own names: a page that got
    another name to mean this machine is refused.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or the beginning and the end of the server."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] == "http":
            scope["path"] = _SLASHES.sub("/", scope["path"]).rstrip("/") or "/"
            if _is_of(scope, self._settings.proxies):
                _believe(scope, self._settings.proxies)
            if self._settings.is_open and _host_name(scope) not in _LOOPBACK:
                await failure("this hub is for this machine alone", 403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Watched:
    """Counts answers, notes how far a request was read, and of a bug tells only that it is one."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self._metrics.answers[method, message["status"]] += 1
            await send(message)

        async def noted() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                scope[IS_READ] = True
            return message

        try:
            await self._app(scope, noted, watched)
        except Exception as error:
            log.exception("%s %r failed", scope.get("method"), scope.get("path"))
            if begun:  # the connection must end where its answer does not
                raise error from None
            await failure("this is a bug of the hub", 500)(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    """Answer the server that the application begins and ends with it: there is nothing more to that."""
    while (message := await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": message["type"] + ".complete"})


def _headers(scope: Scope, name: bytes) -> Iterator[bytes]:
    return (value for each, value in scope["headers"] if each == name)


def _host_name(scope: Scope) -> str:
    host = next(_headers(scope, b"host"), b"").decode("latin-1")
    return host if host.endswith("]") else host.rpartition(":")[0] or host


# What a proxy says


def _is_of(scope: Scope, networks: tuple[Network, ...]) -> bool:
    client = scope.get("client")
    return bool(networks) and client is not None and _is_in(client[0], networks)


def _is_in(text: str, networks: tuple[Network, ...]) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return any(address in network for network in networks)


def _believe(scope: MutableMapping[str, Any], proxies: tuple[Network, ...]) -> None:
    """Take over who asks, and how, as the proxy says; what others have said before it is not believed."""
    client = _client(b",".join(_headers(scope, b"x-forwarded-for")).decode("latin-1"), proxies)
    if client is not None:
        scope["client"] = (client, 0)
    scheme = _last(scope, b"x-forwarded-proto")
    if scheme in {b"http", b"https"}:
        scope["scheme"] = scheme.decode()
    host = _last(scope, b"x-forwarded-host")
    if _HOST.fullmatch(host):
        others = [(name, value) for name, value in scope["headers"] if name != b"host"]
        scope["headers"] = [*others, (b"host", host)]


def _last(scope: Scope, name: bytes) -> bytes:
    return b",".join(_headers(scope, name)).rpartition(b",")[2].strip().lower()


def _client(forwarded: str, proxies: tuple[Network, ...]) -> str | None:
    """Return the last address of a list that is no proxy of ours; None if there is none."""
    for text in reversed([each.strip() for each in forwarded.split(",")]):
        try:
            address = str(ipaddress.ip_address(text))
        except ValueError:
            return None
        if not _is_in(address, proxies):
            return address
    return None
