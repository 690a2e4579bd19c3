"""What anybody may ask a hub: lists, and what is in an flist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flistfs.format.router import only_server
from flistfs.hub import looking
from flistfs.hub.answers import FOR_ALL, Json, light, listed, public
from flistfs.hub.contents import contents_of
from flistfs.hub.hub import Hub
from flistfs.stores.url import parse_store_url

_T = TypeVar("_T")

_LISTING: Final = trio.CapacityLimiter(1)
"""A list is a thousand short calls, at each of which threads take turns: several at a time were slower."""


def routes() -> list[Route]:
    """Return the routes, in the order in which they are tried."""
    one = "/api/flist/{user}/{name}"
    return [
        Route("/api/flist", _raw),
        Route("/api/repositories", _repositories),
        Route("/api/hub", _about),
        Route("/api/fileslist", _all),
        Route("/api/flist/{user}", _entries),
        Route("/api/flist/{user}/tags/{tag}", _tagged),
        Route(one, _contents),
        Route(one, _light, methods=["INFO"]),
        Route(f"{one}/light", _light),
        Route(f"{one}/taglink", _tag_target),
        Route(f"{one}/metadata", _metadata),
    ]


def hub_of(request: Request) -> Hub:
    """Return the hub that is asked."""
    hub: Hub = request.app.state.hub
    return hub


async def in_thread(work: Callable[..., _T], *arguments: object) -> _T:
    """Do what blocks."""
    return await trio.to_thread.run_sync(work, *arguments)


async def _in_turn(work: Callable[..., _T], *arguments: object) -> _T:
    """Do what blocks, one after the other."""
    return await trio.to_thread.run_sync(work, *arguments, limiter=_LISTING)


def backend(hub: Hub) -> Mapping[str, Any] | None:
    """Return where readers fetch the hub's blocks, as flists have it in their metadata."""
    router = hub.settings.named_router
    server = only_server(router)
    if server is None:
        return None
    url = parse_store_url(server)
    return {"namespace": url.name or "default", "host": url.host, "port": url.port}


async def _raw(request: Request) -> Response:
    return public(await _in_turn(hub_of(request).repositories.raw))


async def _about(request: Request) -> Response:
    """Tell what clients of flistfs want to know: where blocks are written to, and what flists are made of."""
    settings = hub_of(request).settings
    return public({"software": "flistfs", "blocks": settings.public_store, "format": settings.format})


async def _repositories(request: Request) -> Response:
    found = await _in_turn(hub_of(request).repositories.all)
    return public([{"name": each.name, "official": False, "updated": each.updated} for each in found])


async def _all(request: Request) -> Response:
    repositories = hub_of(request).repositories

    def listing() -> dict[str, list[dict[str, Any]]]:
        return {each.name: [*map(listed, repositories.entries(each.name))] for each in repositories.all()}

    return await _in_turn(lambda: public(listing()))


async def _entries(request: Request) -> Response:
    lists, user = hub_of(request).lists, request.path_params["user"]
    text = lists.kept(user)
    if text is None:
        text = await _in_turn(lists.of, user)
    return Response(text, headers=FOR_ALL, media_type=Json.media_type)


async def _tagged(request: Request) -> Response:
    user, tag = request.path_params["user"], request.path_params["tag"]
    return public([*map(listed, await _in_turn(hub_of(request).repositories.tagged, user, tag))])


async def _contents(request: Request) -> Response:
    return await contents_of(hub_of(request), request.path_params["user"], request.path_params["name"])


async def _light(request: Request) -> Response:
    hub, user, name = hub_of(request), request.path_params["user"], request.path_params["name"]

    # Two calls that block for microseconds; a thread for them took a quarter of the answers in a second away.
    entry, package = hub.repositories.find(user, name)
    md5 = hub.checksums.known(package)
    if md5 is None:
        md5 = await in_thread(hub.checksums.md5, package)
    return public(light(entry, md5))


async def _tag_target(request: Request) -> Response:
    user, name = request.path_params["user"], request.path_params["name"]
    return public({"target": await in_thread(hub_of(request).repositories.tag_target, user, name)})


async def _metadata(request: Request) -> Response:
    hub = hub_of(request)
    package = await in_thread(
        hub.repositories.package, request.path_params["user"], request.path_params["name"]
    )
    return public(await in_thread(looking.metadata, package, backend(hub)))
