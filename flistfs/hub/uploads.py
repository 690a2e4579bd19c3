"""Uploads: archives that become flists while they arrive, and flists whose blocks the hub has."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, closing
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
from flistfs.hub.errors import HubError, without_paths
from flistfs.hub.hub import Hub
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

_MAX_README: Final = 1 << 20
_READMES: Final = (b".README", b".README.md")  # the last one counts


async def take_archive(hub: Hub, caller: Caller, request: Request) -> Response:
    """Take an archive, which becomes an flist while it arrives."""
    wanted = _original_name(request)
    format_ = _format_of(hub, request)
    async with request.app.state.jobs, AsyncExitStack() as held:
        found: list[tuple[str, Path, Packing]] = []

        async def opened(file_name: str) -> forms.Sink:
            original = wanted or file_name
            if not (file_name.lower().endswith(SUFFIXES) or original.lower().endswith(SUFFIXES)):
                raise HubError("this file is not allowed")
            name = uploaded_name(original, SUFFIXES)
            out = hub.repositories.new_file()
            process = await held.enter_async_context(packing(hub, out, format_))
            found.append((name, out, process))
            return process

        form = await _received(hub, request, opened)
        ((name, out, process),) = found
        free = _metadata_of(form)
        if free and not format_named(format_).has_metadata:
            raise HubError(f"an flist of the format {format_} has no place for metadata")
        packed = await process.finish()
        await in_thread(_publish, hub, caller.repository, name, out, free)
        log.info("%s uploaded %s/%s", caller.user, caller.repository, name)
        return success({"name": name, "files": packed.as_stats()})


async def take_flist(hub: Hub, caller: Caller, request: Request) -> Response:
    """Take an flist whose blocks the hub has; its bytes are kept as they are."""
    wanted = _original_name(request)
    async with request.app.state.jobs:
        found: list[tuple[str, _File]] = []

        async def opened(file_name: str) -> forms.Sink:
            original = wanted or file_name
            if not (file_name.endswith(SUFFIX) or original.endswith(SUFFIX)):
                raise HubError("this file is not allowed")
            file = _File(await trio.open_file(hub.repositories.new_file(), "xb"))
            found.append((uploaded_name(original, ()), file))
            return file

        try:
            await _received(hub, request, opened)
            ((name, file),) = found
            await file.finish()
            told = await in_thread(_checked_flist, hub, file.path)
            await in_thread(hub.repositories.publish, file.path, caller.repository, name)
        finally:
            with trio.CancelScope(shield=True):
                for _, each in found:
                    await each.discard()
        log.info("%s uploaded %s/%s", caller.user, caller.repository, name)
        return success({"name": name, "files": told})


def _original_name(request: Request) -> str | None:
    """Return the name that a header gives, which clients send in the bytes that they have."""
    name = request.headers.get("x-original-name")
    return name and name.encode("latin-1").decode(errors="replace")


def _format_of(hub: Hub, request: Request) -> str:
    """Return the name of the format that an upload is to become."""
    wanted = request.query_params.get("format", hub.settings.format)
    if wanted not in {each.name for each in formats()}:
        raise HubError("there is no such format")
    return wanted


async def _received(hub: Hub, request: Request, opened: Callable[[str], Awaitable[forms.Sink]]) -> forms.Form:
    metrics: Metrics = request.app.state.metrics

    async def counted() -> AsyncGenerator[bytes, None]:
        async for part in request.stream():
            metrics.received += len(part)
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


def _checked_flist(hub: Hub, package: Path) -> dict[str, Any]:
    """Return the answer about an flist whose blocks are all there.

    Raises:
        HubError: it is no flist, or the hub lacks blocks of it.
    """
    try:
        with closing(_store(hub, package)) as store:
            lacking = looking.lacking(package, store)
        told = looking.contents(package)
    except FormatError as error:
        raise HubError(without_paths(error, [(package, "the upload")])) from None
    if lacking:
        raise HubError(f"unauthorized upload, contents is not fully present on backend: {', '.join(lacking)}")
    counts = {key: value for key, value in told.items() if key != "content"}
    return {"success": True, "error": None, "response": told, "status": 0, **counts}


def _store(hub: Hub, package: Path) -> Store:
    return hub.open_store(format_of(package).codec, reading=True)


def _metadata_of(form: forms.Form) -> dict[str, str]:
    """Return the metadata that the fields of a form set: those with a shape of their own are left out."""
    named = {key.removeprefix("metadata-"): value for key, value in form.fields.items() if _is_metadata(key)}
    return {key: value for key, value in named.items() if key not in KNOWN and "\0" not in key + value}


def _is_metadata(key: str) -> bool:
    return key.startswith("metadata-") and key != "metadata-"


def _publish(hub: Hub, repository: str, name: str, packed: Path, free: dict[str, str]) -> None:
    """Publish an flist that was packed, with what it says besides its tree."""
    router = hub.settings.named_router
    change = NO_CHANGE
    if format_of(packed).has_metadata:
        change = MetadataChange(free=free, readme=_readme(hub, packed))
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
