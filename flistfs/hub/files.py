"""The files of a hub: packages, and what is told beside them. Never a redirect, which nodes do not follow."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from flistfs.format.router import only_server
from flistfs.hub.answers import FOR_ALL, Json
from flistfs.hub.checksums import Loaded
from flistfs.hub.errors import NotFoundError
from flistfs.hub.hub import Hub
from flistfs.hub.names import flist_name, with_suffix
from flistfs.hub.public import hub_of, in_thread

_ABOUT = (".md5", ".txt", ".json")

_SMALL: Final = 256 << 10
"""Bytes of packages that are sent from memory: the parts of a file are each read in another thread."""

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
        return await _package(request, user, name, tag)
    flist = flist_name(name.removesuffix(about))
    md5 = await in_thread(_md5, hub, user, flist, tag)
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


async def _package(request: Request, user: str, name: str, tag: str | None) -> Response:
    package, loaded = await in_thread(_load, hub_of(request), user, name, tag)
    headers = {**FOR_ALL, "Cache-Control": "no-cache", "ETag": f'"{loaded.md5}"'}
    answer = _File(
        package,
        headers=headers,
        media_type="application/octet-stream",
        filename=name,
        stat_result=loaded.status,
        content_disposition_type="inline",
    )
    if _is_unchanged(request, loaded.md5, loaded.status.st_mtime):
        kept = {key: answer.headers[key] for key in ("etag", "last-modified", "cache-control")}
        return Response(status_code=304, headers={**FOR_ALL, **kept})
    if loaded.content is not None and request.method == "GET" and "range" not in request.headers:
        return Response(loaded.content, headers=dict(answer.headers))
    return answer


class _File(FileResponse):
    """A file; where another part of it is asked for than there is, a browser may see that, too."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in {400, 416}:
                allowed = [(name.lower().encode(), value.encode()) for name, value in FOR_ALL.items()]
                message["headers"] = [*message["headers"], *allowed]
            await send(message)

        await super().__call__(scope, receive, sent)


def _load(hub: Hub, user: str, name: str, tag: str | None) -> tuple[Path, Loaded]:
    package = hub.repositories.package(user, name, tag)
    return package, hub.checksums.load(package, _SMALL)


def _md5(hub: Hub, user: str, name: str, tag: str | None) -> str:
    return hub.checksums.md5(hub.repositories.package(user, name, tag))


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
