"""Merging flists of any repositories into one."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from flistfs.errors import ClashError, FormatError
from flistfs.hub.answers import success
from flistfs.hub.bodies import body_of, parsed
from flistfs.hub.callers import Caller
from flistfs.hub.errors import HubError, without
from flistfs.hub.hub import Hub
from flistfs.hub.jobs import jobs_of
from flistfs.hub.names import flist_name, with_suffix
from flistfs.hub.public import in_thread
from flistfs.reading.flist import Flist
from flistfs.reading.merge import Source, merge
from flistfs.tree.rules import Prefer

_MAX_BODY: Final = 1 << 20  # bytes of a list of flists


async def take_merge(hub: Hub, caller: Caller, request: Request) -> Response:
    """Make one flist of several; the first one has whatever others have too."""
    body = await body_of(request, _MAX_BODY)
    wanted = None if body is None else parsed(body, list)
    if wanted is None:
        raise HubError("malformed json request")
    if not wanted:
        raise HubError("no source found")
    try:
        target = flist_name(request.path_params["name"])
    except HubError:
        raise HubError("build name not allowed") from None
    with jobs_of(request).at_work(request, caller.user) as job:
        async with request.app.state.packers:
            job.update("merging", 0)
            await in_thread(_merge_files, hub, caller.repository, target, wanted)
        job.succeed(target)
    return success()


def _merge_files(hub: Hub, repository: str, target: str, wanted: list[object]) -> None:
    out = hub.repositories.new_file()
    named = _named(hub, wanted)
    try:
        with ExitStack() as opened:
            sources = [Source(name, opened.enter_context(Flist.open(path))) for name, path in named]
            merge(sources, out, prefer=Prefer.FIRST, only_first_metadata=True)
        hub.repositories.publish(out, repository, target)
    except (ClashError, FormatError) as error:
        raise HubError(without(str(error), {str(path): name for name, path in named})) from None
    finally:
        out.unlink(missing_ok=True)


def _named(hub: Hub, wanted: list[object]) -> list[tuple[str, Path]]:
    """Return the files of flists that are named as `USER/NAME`."""
    found = []
    for each in wanted:
        user, slash, name = each.partition("/") if isinstance(each, str) else ("", "", "")
        if not slash:
            raise HubError("malformed source filename")
        try:
            found.append((f"{user}/{flist_name(name)}", hub.repositories.package(user, name)))
        except HubError:
            raise HubError(f"{with_suffix(str(each))} does not exists") from None
    return found
