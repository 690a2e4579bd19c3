"""The application: all routes of a hub, and what is the same for each of them."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from flistfs.errors import FlistfsError, FormatError, OutputError, StoreError
from flistfs.hub import files, jobs, login, members, openapi, own, public
from flistfs.hub.answers import FOR_ALL, failure
from flistfs.hub.errors import HubError, TooManyError
from flistfs.hub.front import IS_READ, Front, Watched
from flistfs.hub.hub import Hub
from flistfs.hub.jobs import Jobs
from flistfs.hub.metrics import Metrics

log = logging.getLogger(__name__)

_DRAINING: Final = 5.0  # seconds
_MAX_DRAINED: Final = 16 << 20  # bytes


def make_app(hub: Hub) -> ASGIApp:
    """Return the ASGI application of a hub; it runs under trio."""
    return Front(routed(hub), hub.settings)


def routed(hub: Hub) -> Starlette:
    """Return what is behind the front: the routes, and what is made of errors."""
    handlers: Mapping[Any, Callable[..., Any]] = {
        HubError: _refused,
        FlistfsError: _failed,
        HTTPException: _not_served,
        ClientDisconnect: _gone,
        OSError: _without_disk,
    }
    app = Starlette(
        routes=[
            Route("/healthz", _health),
            Route("/metrics", _metrics),
            *openapi.routes(),
            *login.routes(),
            *members.routes(),
            *own.routes(),
            *public.routes(),
            *jobs.routes(),
            *files.routes(),
        ],
        exception_handlers=handlers,
    )
    app.router.redirect_slashes = False  # what is told to nodes must be no redirect
    app.state.hub = hub
    app.state.metrics = Metrics()
    app.state.jobs = Jobs()
    app.state.packers = trio.CapacityLimiter(hub.settings.max_jobs)
    app.add_middleware(Watched, metrics=app.state.metrics)
    return app


async def _health(request: Request) -> Response:
    """Answer that the hub is there, once its disk answers."""
    await public.in_thread(public.hub_of(request).repositories.all)
    return Response(b"ok\n", media_type="text/plain")


async def _metrics(request: Request) -> Response:
    """Answer with counts, which tell nothing of users or flists."""
    packers = request.app.state.packers.statistics()
    repositories = await public.in_thread(public.hub_of(request).repositories.all)
    text = request.app.state.metrics.text(
        packing=packers.borrowed_tokens, waiting=packers.tasks_waiting, repositories=len(repositories)
    )
    return Response(text, media_type="text/plain; version=0.0.4")


# What goes wrong


async def _refused(request: Request, error: HubError) -> Response:
    headers = await _headers_at_end(request)
    if isinstance(error, TooManyError):
        headers["Retry-After"] = str(error.retry_after)
    return failure(str(error), error.status, headers)


async def _headers_at_end(request: Request) -> dict[str, str]:
    """Return the headers of an answer that is given before the request is read to its end, maybe."""
    headers = dict(_headers(request))
    if request.method in {"POST", "PUT"}:
        # What is still coming must be taken for no further request, and a client that sends may not listen.
        await _drain(request)
        headers["Connection"] = "close"
    return headers


async def _drain(request: Request) -> None:
    """Take the rest of a body, as far as it is worth it."""
    size = 0
    with trio.move_on_after(_DRAINING):
        while size <= _MAX_DRAINED and not request.scope.get(IS_READ):
            message = await request.receive()
            if message["type"] != "http.request":
                return
            size += len(message.get("body", b""))


async def _failed(request: Request, error: FlistfsError) -> Response:
    """Answer for an error of the engine, whose text may tell of the machine."""
    log.warning("%s %r failed: %s", request.method, request.url.path, error)
    if isinstance(error, FormatError):
        return failure("the flist is damaged", 400, _headers(request))
    if isinstance(error, StoreError):
        return failure("the hub's store of blocks cannot be used; try again later", 503, _headers(request))
    if isinstance(error, OutputError):
        return failure("the hub's disk cannot be written; try again later", 507, _headers(request))
    return failure("the hub could not do this", 500, _headers(request))


async def _without_disk(request: Request, error: OSError) -> Response:
    """Answer where a file cannot be had: it is no bug if that has gone, or the disk is full."""
    if isinstance(error, FileNotFoundError):
        return failure("source not found", 404, await _headers_at_end(request))
    if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        raise error
    log.error("%s %r failed: the disk is full", request.method, request.url.path)
    return failure("the hub's disk is full; try again later", 507, await _headers_at_end(request))


async def _not_served(request: Request, error: HTTPException) -> Response:
    headers = {**(error.headers or {}), **_headers(request)}
    if error.status_code == 405:
        headers["Allow"] = ", ".join(sorted(_methods(request)))
        if request.method == "OPTIONS":
            return Response(status_code=200, headers=headers)
    return failure(error.detail.lower(), error.status_code, headers)


def _methods(request: Request) -> set[str]:
    """Return what a path can be asked with, by all the routes that have it."""
    found = {"OPTIONS"}
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods
    return found


async def _gone(request: Request, error: ClientDisconnect) -> Response:  # noqa: ARG001  starlette's signature
    log.info("%s %r: the client has gone", request.method, request.url.path)
    return Response(status_code=400)


def _headers(request: Request) -> Mapping[str, str]:
    """Return the headers of what anybody may read, also where it is an error."""
    return {} if request.url.path.startswith(("/api/flist/me", "/api/hub/")) else FOR_ALL
