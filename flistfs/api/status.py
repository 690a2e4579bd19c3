"""How sessions are: what they hold, what waits to be stored, how the last seal ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import all_directories
from flistfs.authoring.state.settings import PartialAdd, Settings, State
from flistfs.authoring.summaries import Result
from flistfs.daemons.control import ask
from flistfs.errors import FlistfsError, SessionError
from flistfs.fuse import mounts

__all__ = [
    "Activity",
    "Holdings",
    "PartialAdd",
    "Result",
    "SessionStatus",
    "Settings",
    "State",
    "holdings_of",
    "status",
]

# Seconds for a daemon to say how it is: one that hangs must not hide the others for long.
_MAX_SILENCE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """What a mounted session holds, and what of it is stored. Sizes are in bytes, `new_bytes` as stored.

    `queued` blocks wait to be stored; `spooled_chunks` are not stored yet, those in use among them, and
    `cached_chunks` are copies of stored ones. `waiting_writers` wait for space. `latency` is how many seconds
    the store took for the last batch. `trouble` is what keeps blocks from being stored, since
    `trouble_since` (seconds since 1970), and `store_trouble` what is wrong with a server that others stand
    in for.
    """

    files: int
    directories: int
    links: int
    specials: int
    size: int
    new_blocks: int
    new_bytes: int
    shared_blocks: int
    replaced_blocks: int
    spooled_chunks: int
    spooled_bytes: int
    cached_chunks: int
    waiting_writers: int
    queued: int
    queued_bytes: int
    trouble: str | None
    trouble_since: float | None
    latency: float | None
    store_trouble: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity(Holdings):
    """What a session's daemon says of itself.

    It has been mounted `since` then (seconds since 1970), and seals into `seal_to` when it is unmounted.
    `requests` counts what the kernel asked.
    """

    sealing: bool
    since: float
    seal_to: str | None
    requests: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatus:
    """How a session is.

    `settings` is what it was made with, unless that cannot be read; `activity` is there while it is mounted,
    `at_work` names the command or program that has it without a mount. `result` is how the last seal ended,
    and `incomplete` what was not added whole. `error` says why more is not known.
    """

    state_directory: str
    log: str
    state: State
    pid: int | None
    settings: Settings | None = None
    result: Result | None = None
    incomplete: tuple[PartialAdd, ...] = ()
    activity: Activity | None = None
    at_work: str | None = None
    error: str | None = None

    @property
    def mountpoint(self) -> str | None:
        """Where it is, or would be, mounted."""
        return self.settings.mountpoint if self.settings else None


def status() -> list[SessionStatus]:
    """Return how each session of the user is. One that cannot be read says why."""
    return [_describe(directory) for directory in all_directories()]


def _describe(directory: SessionDirectory) -> SessionStatus:
    state, holder = directory.state(), directory.holder()
    session = SessionStatus(
        state_directory=str(directory.path),
        log=str(directory.log),
        state=state,
        pid=holder.pid if holder and state in {State.MOUNTED, State.BUSY} else None,
    )
    try:
        session = replace(session, settings=directory.settings())
        session = replace(session, result=directory.result())
        session = replace(session, incomplete=tuple(directory.partial_adds()))
        if state is State.MOUNTED:
            answer = ask(directory.control, {"op": "status"}, silence=_MAX_SILENCE)
            session = replace(session, activity=_typed(Activity, answer))
    except FlistfsError as error:
        if _has_no_mount(session):  # its daemon has not begun to listen, or has ceased to
            session = replace(session, state=State.BUSY)
        else:
            session = replace(session, error=str(error))
    if session.state is State.BUSY:
        session = replace(session, at_work=str(directory.holder() or "a process"))
    return session


def _has_no_mount(session: SessionStatus) -> bool:
    place = session.mountpoint
    return session.state is State.MOUNTED and place is not None and mounts.mount_at(Path(place)) is None


def holdings_of(answer: dict[str, Any]) -> Holdings:
    """Give what a daemon says after a sync its types.

    Raises:
        SessionError: the daemon is of another version.
    """
    return _typed(Holdings, answer)


H = TypeVar("H", bound=Holdings)


def _typed(kind: type[H], answer: dict[str, Any]) -> H:
    try:
        return kind(**{field.name: answer[field.name] for field in fields(kind)})
    except KeyError as error:
        raise SessionError(f"the daemon is of another version of flistfs: it does not say {error}") from None
