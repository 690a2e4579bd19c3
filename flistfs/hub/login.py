"""A token for a password, and the end of a token."""

from __future__ import annotations

import base64
from functools import partial
from typing import Final

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flistfs.errors import UsageError
from flistfs.hub.accounts import Scope, lifetime_of
from flistfs.hub.answers import success
from flistfs.hub.callers import refuse_other_sites, text_of_token
from flistfs.hub.errors import HubError, RefusedError
from flistfs.hub.hub import Hub
from flistfs.hub.public import hub_of, in_thread

_HASHING: Final = trio.CapacityLimiter(2)
"""A hash of argon2 takes 64 MiB of memory, and who asks for one may be anybody."""

_MAX_LABEL: Final = 200  # characters


def routes() -> list[Route]:
    """Return the routes."""
    return [
        Route("/api/hub/token", _new, methods=["POST"]),
        Route("/api/hub/token", _revoke, methods=["DELETE"]),
    ]


async def _new(request: Request) -> Response:
    refuse_other_sites(request)
    hub = hub_of(request)
    if hub.settings.is_open:
        raise HubError("nobody logs in to this hub")
    user, password = _login(request)
    asked = request.query_params
    label = asked.get("label", "")[:_MAX_LABEL]
    scope = _scope(asked.get("scope", Scope.WRITE))
    try:
        lifetime = None if "expires" not in asked else lifetime_of(asked["expires"])
    except UsageError as error:
        raise HubError(str(error).replace("`", "")) from None
    host = request.client.host if request.client is not None else ""
    check = partial(_is_right, hub, host, user, password)
    if not await trio.to_thread.run_sync(check, limiter=_HASHING):
        raise RefusedError("wrong user name or password")
    text = await in_thread(hub.accounts.new_token, user, label, scope, lifetime)
    return success({"user": user, "token": text})


def _is_right(hub: Hub, host: str, user: str, password: str) -> bool:
    """Return whether a password is right; who asks from one place can try the names of many."""
    hub.tries.check(host)
    is_right = hub.accounts.is_password(user, password)
    (hub.tries.succeeded if is_right else hub.tries.failed)(host)
    return is_right


def _scope(text: str) -> Scope:
    """Return what a token is to be good for; who runs the hub has its directory, and makes others there."""
    if text not in {Scope.READ, Scope.WRITE}:
        raise HubError("a password is good for tokens with the scope read or write")
    return Scope(text)


def _login(request: Request) -> tuple[str, str]:
    kind, _, text = request.headers.get("authorization", "").partition(" ")
    try:
        user, colon, password = base64.b64decode(text.strip(), validate=True).decode().partition(":")
    except ValueError:
        user = colon = password = ""
    if kind.lower() != "basic" or not colon:
        raise RefusedError("a user name and a password are wanted")
    return user, password


async def _revoke(request: Request) -> Response:
    refuse_other_sites(request)
    accounts = hub_of(request).accounts
    token = await in_thread(accounts.token, text_of_token(request))
    if token is None:
        raise RefusedError("invalid signature")
    await in_thread(accounts.revoke, token.id)
    return success()
