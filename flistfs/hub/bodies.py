"""Bodies of requests that are JSON values."""

from __future__ import annotations

import json
from typing import Any, Final

from starlette.requests import Request

from flistfs.hub.errors import HubError

_MAX_FIELDS: Final = 1000  # bytes


async def body_of(request: Request, most: int) -> bytes | None:
    """Return the body of a request; None if it has more than `most` bytes."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            return None
    return bytes(body)


def parsed(body: bytes, kind: type) -> Any:  # noqa: ANN401  JSON
    """Return the JSON value that a body is; None if it is none of that kind."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, kind) else None


async def fields_of(request: Request) -> dict[str, Any] | None:
    """Return the members of the JSON object that a request has; None if it has no body.

    Raises:
        HubError: it has another body, or a longer one than any of these is.
    """
    body = await body_of(request, _MAX_FIELDS)
    if body is None:
        raise HubError("malformed json request: too long")
    if not body:
        return None
    found: dict[str, Any] | None = parsed(body, dict)
    if found is None:
        raise HubError("malformed json request: an object is wanted")
    return found
