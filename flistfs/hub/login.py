"""A token for a password, and the end of a token."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from functools import partial
from typing import Final

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flistfs.errors import UsageError
from flistfs.hub.accounts import Scope, lifetime_of
from flistfs.hub.answers import success
from flistfs.hub.bodies import fields_of
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
    asked = await _asked(request)
    label = asked.get("label", "")[:_MAX_LABEL]
    scope = _scope(asked.get("scope", Scope.WRITE))
    try:
        lifetime = None if "expires" not in asked else lifetime_of(asked["expires"])
    except UsageError as error:
        raise HubError(str(error).replace("`", "")) from None
    host = _network(request.client.host if request.client is not None else "")
    hub.tries.check(host)  # what is refused anyway does not wait behind what is not
    check = partial(_is_right, hub, host, user, password)
    if not await trio.to_thread.run_sync(check, limiter=_HASHING):
        raise RefusedError("wrong user name or password")
    text = await in_thread(hub.accounts.new_token, user, label, scope, lifetime)
    return success({"user": user, "token": text})


def _is_right(hub: Hub, host: str, user: str, password: str) -> bool:
    """Return whether a password is right; who asks from one place can try the names of many."""
    hub.tries.check(host)
    is_right = hub.accounts.is_password(user, password)
    if not is_right:  # a right one frees no address: its user could go on with other names, else
        hub.tries.failed(host)
    return is_right


async def _asked(request: Request) -> Mapping[str, str]:
    """Return what the token is to be, from the query and from the body, which counts where both say it."""
    fields = {**request.query_params, **(await fields_of(request) or {})}
    asked = {key: value for key, value in fields.items() if value is not None}
    if not all(isinstance(value, str) for value in asked.values()):
        raise HubError("malformed json request: texts are wanted")
    return asked


def _network(host: str) -> str:
    """Return what counts as one address: a machine has 2^64 of IPv6 to choose from."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4 or address.ipv4_mapped is not None:
        return host
    return str(ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))


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
