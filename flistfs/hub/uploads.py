"""Uploads: archives that become flists while they arrive, and flists whose blocks the hub has."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, ExitStack, aclosing, closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
from starlette.requests import Request
from starlette.responses import Response

from flistfs.errors import FormatError
from flistfs.format.metadata import KNOWN, NO_CHANGE, MetadataChange
from flistfs.format.opening import format_named, format_of, formats
from flistfs.hub import forms, looking
from flistfs.hub.answers import success
from flistfs.hub.callers import Caller
from flistfs.hub.contents import Contents, answer, contents
from flistfs.hub.errors import HubError, without
from flistfs.hub.hub import Hub
from flistfs.hub.jobs import Job, jobs_of
from flistfs.hub.metrics import Metrics
from flistfs.hub.names import SUFFIX, uploaded_name
from flistfs.hub.packing import SUFFIXES, Packing, packing
from flistfs.hub.public import in_thread
from flistfs.reading.config import rewrite
from flistfs.reading.content import read
from flistfs.reading.flist import Flist
from flistfs.stores import Store
from flistfs.tree.node import Kind

log = logging.getLogger(__name__)

_LACKING: Final = "unauthorized upload, contents is not fully present on backend: "

_MAX_README: Final = 1 << 20
_READMES: Final = (b".README", b".README.md")  # the last one counts


async def take_archive(hub: Hub, caller: Caller, request: Request) -> Response:
    """Take an archive, which becomes an flist while it arrives."""
    wanted = _original_name(request)
    format_ = format_wanted(hub, request)
    with jobs_of(request).at_work(request, caller.user) as job:
        async with request.app.state.packers, AsyncExitStack() as held:
            found: list[tuple[str, Path, Packing]] = []

            async def opened(file_name: str) -> forms.Sink:
                original = wanted or file_name
                if not (file_name.lower().endswith(SUFFIXES) or original.lower().endswith(SUFFIXES)):
                    raise HubError("this file is not allowed")
                name = uploaded_name(original, SUFFIXES)
                out = hub.repositories.new_file()
                process = await held.enter_async_context(packing(hub, out, format_, job.update))
                found.append((name, out, process))
                return process

            form = await _received(hub, request, job, opened)
            ((name, out, process),) = found
            free = _metadata_of(form)
            if free and not format_named(format_).has_metadata:
                raise HubError(f"an flist of the format {format_} has no place for metadata")
            packed = await process.finish()
            await in_thread(publish, hub, caller.repository, name, out, free)
        log.info("%s uploaded %s/%s", caller.user, caller.repository, name)
        job.succeed(name, packed.counts)
    return success({"name": name, "files": packed.as_stats()})


async def take_flist(hub: Hub, caller: Caller, request: Request) -> Response:
    """Take an flist whose blocks the hub has; its bytes are kept as they are."""
    wanted = _original_name(request)
    with jobs_of(request).at_work(request, caller.user) as job:
        async with request.app.state.packers, AsyncExitStack() as held:
            found: list[tuple[str, _File]] = []

            async def opened(file_name: str) -> forms.Sink:
                original = wanted or file_name
                if not (file_name.endswith(SUFFIX) or original.endswith(SUFFIX)):
                    raise HubError("this file is not allowed")
                file = _File(await trio.open_file(hub.repositories.new_file(), "xb"))
                held.push_async_callback(file.discard)
                found.append((uploaded_name(original, ()), file))
                return file

            await _received(hub, request, job, opened)
            ((name, file),) = found
            await file.finish()
            told = await in_thread(_publish_whole, hub, caller.repository, name, file.path)
            log.info("%s uploaded %s/%s", caller.user, caller.repository, name)
            job.succeed(name, told.counts)
            return answer(told.text, {}, *_around(name, told.counts))


def _original_name(request: Request) -> str | None:
    """Return the name that a header gives, which clients send in the bytes that they have."""
    name = request.headers.get("x-original-name")
    return name and name.encode("latin-1").decode(errors="replace")


def format_wanted(hub: Hub, request: Request) -> str:
    """Return the name of the format that a request asks for.

    Raises:
        HubError: there is none of that name.
    """
    wanted = request.query_params.get("format", hub.settings.format)
    if wanted not in {each.name for each in formats()}:
        raise HubError("there is no such format")
    return wanted


async def _received(
    hub: Hub, request: Request, job: Job, opened: Callable[[str], Awaitable[forms.Sink]]
) -> forms.Form:
    metrics: Metrics = request.app.state.metrics
    total = int(request.headers.get("content-length") or 0)

    async def counted() -> AsyncGenerator[bytes, None]:
        size = 0
        async for part in request.stream():
            size += len(part)
            metrics.received += len(part)
            if total:
                job.update("receiving", min(100, 100 * size // total))
            yield part

    async with aclosing(counted()) as arriving:
        form = await forms.receive(
            request.headers.get("content-type", ""), arriving, opened, max_size=hub.settings.max_upload
        )
    metrics.uploads += 1
    return form


class _File:
    """A file that is written as it arrives."""

    def __init__(self, file: Any) -> None:  # noqa: ANN401  trio names no type of it
        self._file = file
        self.path = Path(file.name)

    async def write(self, data: bytes) -> None:
        await self._file.write(data)

    async def finish(self) -> None:
        """Write all of it to the disk."""
        await self._file.flush()
        await in_thread(os.fsync, self._file.fileno())
        await self._file.aclose()

    async def discard(self) -> None:
        """Remove it, unless it was published."""
        await self._file.aclose()
        await in_thread(partial(self.path.unlink, missing_ok=True))


def _publish_whole(hub: Hub, repository: str, name: str, package: Path) -> Contents:
    """Publish an flist whose blocks are all there, and return its contents.

    Raises:
        HubError: it is no flist, or the hub lacks blocks of it.
    """
    try:
        with closing(_store(hub, package)) as store:
            lacking = looking.lacking(package, store)
        if lacking:
            raise HubError(_LACKING + ", ".join(lacking))
        with ExitStack() as opened:
            told = contents(package)
            opened.callback(told.text.close)
            hub.repositories.publish(package, repository, name)
            opened.pop_all()
    except FormatError as error:
        raise HubError(without(str(error), {str(package): "the upload"})) from None
    return told


def _around(name: str, counts: Mapping[str, int]) -> tuple[bytes, bytes]:
    """Return what stands before and after the contents of an flist in the answer to its upload."""
    files = {"success": True, "error": None, "status": 0, **counts}
    begun = json.dumps({"status": "success", "payload": {"name": name, "files": files}})
    return begun.removesuffix("}}}").encode() + b', "response": ', b"}}}"


def _store(hub: Hub, package: Path) -> Store:
    return hub.open_store(format_of(package).codec, reading=True)


def _metadata_of(form: forms.Form) -> dict[str, str]:
    """Return the metadata that the fields of a form set: those with a shape of their own are left out."""
    named = {key.removeprefix("metadata-"): value for key, value in form.fields.items() if _is_metadata(key)}
    return {key: value for key, value in named.items() if key not in KNOWN and "\0" not in key + value}


def _is_metadata(key: str) -> bool:
    return key.startswith("metadata-") and key != "metadata-"


def publish(hub: Hub, repository: str, name: str, packed: Path, free: Mapping[str, str]) -> None:
    """Publish an flist that was made, with what it says besides its tree (blocks)."""
    router = hub.settings.named_router
    change = NO_CHANGE
    if format_of(packed).has_metadata:
        change = MetadataChange(free=dict(free), readme=_readme(hub, packed))
    if router is None and not change:
        hub.repositories.publish(packed, repository, name)
        return
    changed = hub.repositories.new_file()
    try:
        rewrite(packed, changed, router, change, force=False)
        hub.repositories.publish(changed, repository, name)
    finally:
        changed.unlink(missing_ok=True)


def _readme(hub: Hub, package: Path) -> str | None:
    """Return what the tree of an flist says of itself."""
    with Flist.open(package) as flist:
        found = [
            node
            for node in flist.entries(b"")
            if node.path in _READMES and node.kind is Kind.FILE and node.size <= _MAX_README
        ]
        if not found:
            return None
        with closing(_store(hub, package)) as store:
            text = b"".join(read(store, found[-1])).decode(errors="replace")
    return text.replace("\0", "\ufffd")
