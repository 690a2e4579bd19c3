"""Making an flist of another format of one that the hub has."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import Response

from flistfs.hub.answers import success
from flistfs.hub.callers import Caller
from flistfs.hub.hub import Hub
from flistfs.hub.jobs import jobs_of
from flistfs.hub.names import flist_name
from flistfs.hub.packing import packing
from flistfs.hub.public import in_thread
from flistfs.hub.uploads import format_wanted, publish

log = logging.getLogger(__name__)


async def take_conversion(hub: Hub, caller: Caller, request: Request) -> Response:
    """Make an flist of another format of any repository's, and publish it in the caller's.

    Its blocks are read where the hub has its own, whatever it says of where they are.
    """
    user, source = request.path_params["user"], request.path_params["source"]
    name = flist_name(request.path_params["name"])
    format_ = format_wanted(hub, request)
    package = await in_thread(hub.repositories.package, user, source)
    with jobs_of(request).at_work(request, caller.user) as job:
        out = hub.repositories.new_file()
        async with request.app.state.packers, packing(hub, out, format_, job.update, package) as process:
            made = await process.finish()
            await in_thread(publish, hub, caller.repository, name, out, {})
        log.info("%s converted %s/%s to %s/%s", caller.user, user, source, caller.repository, name)
        job.succeed(name, made.counts)
    return success({"name": name, "files": made.as_stats()})
