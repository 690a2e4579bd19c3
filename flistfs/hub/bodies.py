"""Bodies of requests that are small JSON values."""

from __future__ import annotations

import json
from typing import Any, Final

from starlette.requests import Request

from flistfs.hub.errors import HubError

_MAX_BODY: Final = 1000  # bytes


async def fields_of(request: Request) -> dict[str, Any] | None:
    """Return the members of the JSON object that a request has; None if it has no body.

    Raises:
        HubError: it has another body, or a longer one than any of these is.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_BODY:
            raise HubError("malformed json request: too long")
    if not body:
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise HubError("malformed json request: an object is wanted")
    return found
