"""Who acts for a repository: its owners say, and who runs the hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flistfs.errors import UsageError
from flistfs.hub.accounts import Role, Scope
from flistfs.hub.answers import success
from flistfs.hub.bodies import fields_of
from flistfs.hub.callers import ForbiddenError, token_of
from flistfs.hub.errors import HubError, NotFoundError
from flistfs.hub.hub import Hub
from flistfs.hub.names import repository_name
from flistfs.hub.public import hub_of, in_thread


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
    role = _role(await fields_of(request))
    try:
        await in_thread(hub.accounts.add_member, repository, request.path_params["member"], role)
    except UsageError:
        raise NotFoundError("user not found") from None
    return success()


async def _remove(request: Request) -> Response:
    hub, repository = await _managed(request)
    try:
        await in_thread(hub.accounts.drop_member, repository, request.path_params["member"])
    except UsageError:
        raise NotFoundError("user not found") from None
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


def _role(fields: Mapping[str, Any] | None) -> Role:
    try:
        return Role.MEMBER if fields is None else Role(fields["role"])
    except (ValueError, KeyError):
        raise HubError('malformed json request: {"role": "member"} or "owner" is wanted') from None
