"""The answers of the hub, in the shapes that clients know from 0-hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from flistfs.hub.repositories import Entry

FOR_ALL: Final = {"Access-Control-Allow-Origin": "*"}
"""Headers of what anybody may read: dashboards in a browser fetch it from other origins."""


class Json(Response):
    """A JSON value and a newline."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """Return the bytes of the answer."""
        return json.dumps(content).encode() + b"\n"


def public(content: object) -> Json:
    """Return an answer that anybody may read."""
    return Json(content, headers=FOR_ALL)


def success(payload: Mapping[str, Any] | None = None) -> Json:
    """Return the answer to an action that was carried out."""
    return Json({"status": "success"} if payload is None else {"status": "success", "payload": payload})


def failure(message: str, status: int, headers: Mapping[str, str] | None = None) -> Json:
    """Return the answer to a request that was not carried out."""
    return Json({"status": "error", "message": message}, status, dict(headers or {}))


def listed(entry: Entry) -> dict[str, Any]:
    """Return an entry as lists have it."""
    size = "0 KB" if entry.kind == "tag" else f"{entry.size / 1024:.2f} KB"
    plain: dict[str, Any] = {
        "name": entry.name,
        "size": size,
        "updated": entry.updated,
        "type": entry.kind,
    }
    if entry.target is not None:
        plain |= {"linktime": entry.linktime, "target": entry.shown_target}
    return plain


def light(entry: Entry, md5: str) -> dict[str, Any]:
    """Return what is known of one flist. There must be no `status` in it: clients take that for an error."""
    plain: dict[str, Any] = {
        "name": entry.name,
        "size": entry.size,
        "updated": entry.updated,
        "type": entry.kind,
        "md5": md5,
    }
    if entry.target is not None:
        plain |= {"linktime": entry.linktime, "target": entry.target}
    return plain
