"""The files of a hub: packages, and what is told beside them. Never a redirect, which nodes do not follow."""

from __future__ import annotations

import os
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from flistfs.format.router import only_server
from flistfs.hub.answers import FOR_ALL, Json
from flistfs.hub.errors import NotFoundError
from flistfs.hub.hub import Hub
from flistfs.hub.names import flist_name, with_suffix
from flistfs.hub.public import hub_of, in_thread

_ABOUT = (".md5", ".txt", ".json")

_LINES = (
    ("File", "flist"),
    ("Uploader", "uploader"),
    ("Source", "source"),
    ("Storage", "storage"),
    ("Checksum", "checksum"),
)


def routes() -> list[Route]:
    """Return the routes, which come after all others."""
    return [
        Route("/{user}/tags/{tag}/{file}", _file),
        Route("/{user}/{file}", _file),
    ]


async def _file(request: Request) -> Response:
    user, name = request.path_params["user"], request.path_params["file"]
    tag = request.path_params.get("tag")
    hub = hub_of(request)
    about = next((each for each in _ABOUT if name.endswith(each)), None)
    if about is None:
        if not name.endswith((".flist", ".fl")):
            raise NotFoundError("there is no such page")
        package = await in_thread(hub.repositories.package, user, name, tag)
        return await _package(request, package, name)
    flist = flist_name(name.removesuffix(about))
    package = await in_thread(hub.repositories.package, user, flist, tag)
    md5 = await in_thread(hub.checksums.md5, package)
    if about == ".md5":
        return PlainTextResponse(f"{md5}\n", headers=FOR_ALL)
    told = _told(request, user, flist, md5)
    if about == ".json":
        return Json(told, headers=FOR_ALL)
    lines = [f"{title + ':':<10}{told[key]}\n" for title, key in _LINES if told[key]]
    return PlainTextResponse("".join(lines), headers=FOR_ALL)


def _told(request: Request, user: str, name: str, md5: str) -> dict[str, Any]:
    settings = hub_of(request).settings
    return {
        "flist": name,
        "uploader": user,
        "source": with_suffix(_address(request).rpartition(".")[0]),
        "storage": only_server(settings.named_router) or "",
        "checksum": md5,
    }


def _address(request: Request) -> str:
    """Return the URL that was asked, as others reach it."""
    own = hub_of(request).settings.public_url
    return str(request.url) if own is None else f"{own}{request.url.path}"


async def _package(request: Request, package: Path, name: str) -> Response:
    md5, status = await in_thread(_identity, hub_of(request), package)
    headers = {**FOR_ALL, "Cache-Control": "no-cache", "ETag": f'"{md5}"'}
    answer = FileResponse(
        package,
        headers=headers,
        media_type="application/octet-stream",
        filename=name,
        stat_result=status,
        content_disposition_type="inline",
    )
    if _is_unchanged(request, md5, status.st_mtime):
        kept = {key: answer.headers[key] for key in ("etag", "last-modified", "cache-control")}
        return Response(status_code=304, headers={**FOR_ALL, **kept})
    return answer


def _identity(hub: Hub, package: Path) -> tuple[str, os.stat_result]:
    return hub.checksums.md5(package), package.stat()


def _is_unchanged(request: Request, md5: str, mtime: float) -> bool:
    """Return whether the caller has the file already (RFC 9110, 13.2.2)."""
    tags = request.headers.get("if-none-match")
    if tags is not None:
        return tags.strip() == "*" or f'"{md5}"' in tags
    since = request.headers.get("if-modified-since")
    try:
        return since is not None and int(mtime) <= parsedate_to_datetime(since).timestamp()
    except ValueError:
        return False
