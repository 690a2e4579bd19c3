"""Jobs: work that takes long, and whoever follows it, as 0-hub tells of it.

A client asks for a job, names it when it sends what is to be done, and follows it meanwhile on another
connection: the answer to an upload comes only at its end.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from flistfs.hub.errors import HubError, NotFoundError, TooManyError

_MAX_JOBS: Final = 1000
_MAX_JOBS_EACH: Final = 100  # of one user
_KEPT: Final = 600.0  # seconds that a job waits for what is to be done, and is known once it is done
_ALIVE: Final = 15.0  # seconds after which something is sent, so that no proxy ends the connection


@dataclass
class Job:
    """Something that is done, and what was last said of it.

    Attributes:
        id: What it is known by, to whoever was told.
        user: Who asked for it.
        said: The last event.
        has_begun: Whether something is done for it already.
        is_over: Whether there comes no other event.
        changed: Set once something else is said, then replaced.
        touched: When something happened last (trio's clock).
    """

    id: str
    user: str
    said: Mapping[str, Any] = field(default_factory=lambda: _update("waiting", 0))
    has_begun: bool = False
    is_over: bool = False
    changed: trio.Event = field(default_factory=trio.Event)
    touched: float = field(default_factory=trio.current_time)

    def update(self, message: str, progress: int) -> None:
        """Say how far it is, in percent."""
        self._say(_update(message, progress))

    def succeed(self, name: str, counts: Mapping[str, Any] | None = None) -> None:
        """Say what it has become: an flist of a name, with counts."""
        self.is_over = True
        self._say({"status": "info", "info": {"file": name, "filename": name, "flist": dict(counts or {})}})

    def fail(self, message: str) -> None:
        """Say why it came to nothing."""
        self.is_over = True
        self._say({"status": "error", "message": message})

    async def follow(self) -> AsyncIterator[Mapping[str, Any] | None]:
        """Yield events until it is over; None now and then, where there is nothing new."""
        while True:
            changed = self.changed
            yield self.said
            if self.is_over:
                return
            while not changed.is_set():
                with trio.move_on_after(_ALIVE):
                    await changed.wait()
                if not changed.is_set():
                    yield None

    def _say(self, event: Mapping[str, Any]) -> None:
        if event == self.said:
            return
        self.said = event
        self.touched = trio.current_time()
        changed, self.changed = self.changed, trio.Event()
        changed.set()


def _update(message: str, progress: int) -> Mapping[str, Any]:
    return {"status": "update", "message": message, "progress": progress}


class Jobs:
    """The jobs of a hub, as long as it is served."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}

    def new(self, user: str) -> Job:
        """Return a job that something is to be done for.

        Raises:
            TooManyError: there are too many.
        """
        self._forget()
        own = [each for each in self._jobs.values() if each.user == user]
        for known, limit in ((own, _MAX_JOBS_EACH), ([*self._jobs.values()], _MAX_JOBS)):
            if len(known) >= limit:
                over = next((each for each in known if each.is_over), None)
                if over is None:
                    raise TooManyError("there are too many jobs; try again later", int(_KEPT))
                self._jobs.pop(over.id, None)
        job = Job(secrets.token_urlsafe(16), user)
        self._jobs[job.id] = job
        return job

    def _forget(self) -> None:
        """Forget what nothing was done for, and what is over, after a while."""
        now = trio.current_time()
        for each in [*self._jobs.values()]:
            is_at_work = each.has_begun and not each.is_over
            if not is_at_work and each.touched < now - _KEPT:
                del self._jobs[each.id]

    def find(self, job: str) -> Job:
        """Return a job; raises `NotFoundError` if there is none, or no longer."""
        try:
            return self._jobs[job]
        except KeyError:
            raise NotFoundError("job id not found") from None

    @contextmanager
    def at_work(self, request: Request, user: str) -> Iterator[Job]:
        """Do something for the job that a request names, or for one that nobody knows.

        Whatever way the block ends, whoever follows the job is told.

        Raises:
            NotFoundError: there is no such job of the user.
            HubError: something is done for it already.
        """
        wanted = request.query_params.get("job")
        job = Job("", user) if wanted is None else self.find(wanted)
        if job.user != user:
            raise NotFoundError("job id not found")
        if job.has_begun:
            raise HubError("this job has begun already")
        job.has_begun = True
        try:
            yield job
        except HubError as error:
            job.fail(str(error))
            raise
        finally:
            if not job.is_over:
                job.fail("it was not finished")


def jobs_of(request: Request) -> Jobs:
    """Return the jobs of the hub that is asked."""
    jobs: Jobs = request.app.state.jobs
    return jobs


def routes() -> list[Route]:
    """Return the routes of those that follow jobs."""
    return [Route("/listen/{job}", _listen)]


async def _listen(request: Request) -> Response:
    job = jobs_of(request).find(request.path_params["job"])
    if request.method == "HEAD":
        return Response(media_type="text/event-stream")
    return StreamingResponse(
        _events(job), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
    )


async def _events(job: Job) -> AsyncIterator[bytes]:
    async for event in job.follow():
        yield b": still at work\n\n" if event is None else b"data: " + json.dumps(event).encode() + b"\n\n"
