"""Who acts for a repository: its owners say, and who runs the hub."""

from __future__ import annotations

import json
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flistfs.errors import UsageError
from flistfs.hub.accounts import Role, Scope
from flistfs.hub.answers import success
from flistfs.hub.callers import ForbiddenError, token_of
from flistfs.hub.errors import HubError, NotFoundError
from flistfs.hub.hub import Hub
from flistfs.hub.names import repository_name
from flistfs.hub.public import hub_of, in_thread

_MAX_BODY: Final = 1000  # bytes


def routes() -> list[Route]:
    """Return the routes."""
    one = "/api/hub/members/{repository}/{member}"
    return [
        Route("/api/hub/members/{repository}", _list, methods=["GET"]),
        Route(one, _put, methods=["PUT"]),
        Route(one, _remove, methods=["DELETE"]),
    ]


async def _list(request: Request) -> Response:
    hub, repository = await _managed(request)
    found = await in_thread(hub.accounts.members, repository)
    return success({"members": [{"user": each.user, "role": each.role.value} for each in found]})


async def _put(request: Request) -> Response:
    hub, repository = await _managed(request)
    role = _role(await _body(request))
    try:
        await in_thread(hub.accounts.add_member, repository, request.path_params["member"], role)
    except UsageError:
        raise NotFoundError("user not found") from None
    return success()


async def _remove(request: Request) -> Response:
    hub, repository = await _managed(request)
    await in_thread(hub.accounts.remove_member, repository, request.path_params["member"])
    return success()


async def _managed(request: Request) -> tuple[Hub, str]:
    """Return the repository that the caller manages.

    Raises:
        HubError: nobody that is known, or one that does not manage it.
    """
    hub, repository = hub_of(request), repository_name(request.path_params["repository"])
    token = await token_of(request, Scope.WRITE)
    if token is not None and token.scope is not Scope.ADMIN:
        is_owner = await in_thread(hub.accounts.owns, token.user, repository)
        if not is_owner:
            raise ForbiddenError("only owners of the repository may do this")
    return hub, repository


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            raise HubError("malformed json request")
    return body


def _role(body: bytes) -> Role:
    try:
        return Role(json.loads(body)["role"]) if body else Role.MEMBER
    except (ValueError, TypeError, KeyError, RecursionError):
        raise HubError('malformed json request; {"role": "member"} or "owner" is wanted') from None
