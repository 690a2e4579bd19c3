"""What users do with their own repository: upload, name, link, tag, merge, remove."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flistfs.hub.accounts import Scope
from flistfs.hub.answers import failure, success
from flistfs.hub.callers import Caller, caller_of
from flistfs.hub.contents import contents_of
from flistfs.hub.converting import take_conversion
from flistfs.hub.hub import Hub
from flistfs.hub.jobs import jobs_of
from flistfs.hub.merging import take_merge
from flistfs.hub.public import hub_of, in_thread
from flistfs.hub.uploads import take_archive, take_flist

Action: TypeAlias = Callable[[Hub, Caller, Request], Awaitable[Response]]


def routes() -> list[Route]:
    """Return the routes, in the order in which they are tried."""
    me = "/api/flist/me"

    def get(path: str, action: Action, method: str = "GET") -> Route:
        route = Route(f"{me}{path}", _asked(action, Scope.WRITE), methods=[method])
        route.methods = {method}  # not HEAD, which must change nothing
        return route

    return [
        Route(me, _asked(_who, Scope.READ)),
        get("/upload", take_archive, "POST"),
        get("/upload-flist", take_flist, "POST"),
        get("/merge/{name}", take_merge, "POST"),
        get("/docker", _docker, "POST"),
        get("/jobs", _new_job, "POST"),
        get("/convert/{user}/{source}/{name}", take_conversion, "POST"),
        get("/{source}/link/{name}", _link),
        get("/{name}/crosslink/{user}/{source}", _link),
        get("/{source}/rename/{name}", _rename),
        get("/promote/{user}/{source}/{name}", _promote),
        get("/{tag}/{name}/tag/{user}/{source}", _tag),
        get("/{tag}/{name}/tag/{user}/{source}", _untag, "DELETE"),
        get("/{name}/crosstag/{user}/{tag}", _link_tag),
        Route(f"{me}/{{name}}", _asked(_contents, Scope.READ)),
        get("/{name}", _delete, "DELETE"),
    ]


def _asked(action: Action, scope: Scope) -> Callable[[Request], Awaitable[Response]]:
    """Return the handler of an action that needs a token with a scope."""

    async def handle(request: Request) -> Response:
        return await action(hub_of(request), await caller_of(request, scope), request)

    return handle


async def _who(hub: Hub, caller: Caller, request: Request) -> Response:  # noqa: ARG001  an Action
    return success({"username": caller.repository})


async def _contents(hub: Hub, caller: Caller, request: Request) -> Response:
    return await contents_of(hub, caller.repository, request.path_params["name"])


async def _delete(hub: Hub, caller: Caller, request: Request) -> Response:
    await in_thread(hub.repositories.delete, caller.repository, request.path_params["name"])
    return success()


async def _rename(hub: Hub, caller: Caller, request: Request) -> Response:
    source, name = request.path_params["source"], request.path_params["name"]
    await in_thread(hub.repositories.rename, caller.repository, source, name)
    return success()


async def _link(hub: Hub, caller: Caller, request: Request) -> Response:
    wanted = request.path_params
    source = (wanted.get("user"), wanted["source"])
    await in_thread(hub.repositories.link, caller.repository, wanted["name"], *source)
    return success()


async def _promote(hub: Hub, caller: Caller, request: Request) -> Response:
    user, source, name = (request.path_params[key] for key in ("user", "source", "name"))
    names = await in_thread(hub.repositories.promote, caller.repository, name, user, source)
    places = ((user, names[0]), (caller.repository, names[1]))
    source_payload, destination = ({"username": user, "filename": name} for user, name in places)
    return success({"source": source_payload, "destination": destination})


async def _tag(hub: Hub, caller: Caller, request: Request) -> Response:
    wanted = [request.path_params[key] for key in ("tag", "name", "user", "source")]
    await in_thread(hub.repositories.tag, caller.repository, *wanted)
    return success()


async def _untag(hub: Hub, caller: Caller, request: Request) -> Response:
    wanted = [request.path_params[key] for key in ("tag", "name", "user", "source")]
    await in_thread(hub.repositories.untag, caller.repository, *wanted)
    return success()


async def _link_tag(hub: Hub, caller: Caller, request: Request) -> Response:
    wanted = [request.path_params[key] for key in ("name", "user", "tag")]
    await in_thread(hub.repositories.link_tag, caller.repository, *wanted)
    return success()


async def _new_job(hub: Hub, caller: Caller, request: Request) -> Response:  # noqa: ARG001  an Action
    return success({"jobid": jobs_of(request).new(caller.user).id})


async def _docker(hub: Hub, caller: Caller, request: Request) -> Response:  # noqa: ARG001  an Action
    return failure("this hub takes no container images yet", 501)
