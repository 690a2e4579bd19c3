"""Who sends a request, and what that allows."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import trio
from starlette.requests import Request

from flistfs.hub.accounts import Scope, Token
from flistfs.hub.errors import HubError, RefusedError
from flistfs.hub.hub import NOBODY, Hub
from flistfs.hub.names import checked

log = logging.getLogger(__name__)

_SAFE_SITES: Final = frozenset({"same-origin", "same-site", "none"})


class ForbiddenError(HubError):
    """The caller is known, and may not do that."""

    status = 403


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is served: `repository` is the one that it acts for."""

    user: str
    repository: str


async def caller_of(request: Request, wanted: Scope) -> Caller:
    """Return who sends a request that needs a scope.

    Raises:
        HubError: nobody that is known, or one that may not.
    """
    hub: Hub = request.app.state.hub
    token = await token_of(request, wanted)
    if token is None:
        return Caller(NOBODY, _chosen(request) or NOBODY)
    return await trio.to_thread.run_sync(_acting, hub, token, _chosen(request))


async def token_of(request: Request, wanted: Scope) -> Token | None:
    """Return the token of a request that needs a scope; None where nobody needs one.

    Raises:
        HubError: there is none that is good, or good enough.
    """
    hub: Hub = request.app.state.hub
    refuse_other_sites(request)
    if hub.settings.is_open:
        return None
    token = await trio.to_thread.run_sync(hub.accounts.token, text_of_token(request))
    if token is None:
        raise RefusedError("invalid signature")
    if not token.scope.allows(wanted):
        raise ForbiddenError(f"this token may not {wanted}")
    return token


def text_of_token(request: Request) -> str:
    """Return the text of the request's token.

    Raises:
        HubError: it has none, or what is none of ours.
    """
    header = request.headers.get("authorization")
    if header is None:
        # Clients of before 2020 send it this way; no answer ever sets it, so no browser has it.
        cookie = request.cookies.get("caddyoauth")
        if cookie is None:
            raise RefusedError("no authorization provided")
        return cookie
    if not header.strip():
        raise RefusedError("no authorization provided")
    kind, _, text = header.strip().partition(" ")
    if kind.lower() != "bearer":
        raise HubError("invalid authorization header")
    if "." in text:  # of ours there is none: these are another service's
        raise ForbiddenError("invalid token")
    return text.strip()


def _chosen(request: Request) -> str | None:
    """Return the repository that the caller asks to act for."""
    wanted = request.cookies.get("active-user")
    return checked(wanted, "repository") if wanted else None


def _acting(hub: Hub, token: Token, wanted: str | None) -> Caller:
    if wanted is None or hub.accounts.acts_for(token.user, wanted):
        return Caller(token.user, wanted or token.user)
    log.info("%s may not act for %s", token.user, wanted)
    return Caller(token.user, token.user)


def _place(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # no URL
        return ""


def refuse_other_sites(request: Request) -> None:
    """Refuse what a page of another site lets a browser send: actions are links here.

    Raises:
        ForbiddenError: it comes from such a page.
    """
    origin = request.headers.get("origin")
    own = {request.headers.get("host"), urlsplit(request.app.state.hub.settings.public_url or "").netloc}
    is_other = origin is not None and _place(origin) not in own - {""}
    if is_other or request.headers.get("sec-fetch-site", "none") not in _SAFE_SITES:
        raise ForbiddenError("another site may not do this")
