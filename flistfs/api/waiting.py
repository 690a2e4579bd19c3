"""Waiting for the end of a session that is sealed when it is unmounted."""

from __future__ import annotations

from dataclasses import dataclass

from flistfs.api.arguments import AnyPath, typed_path
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import find_latest
from flistfs.authoring.state.settings import State
from flistfs.authoring.summaries import Result, SealSummary
from flistfs.daemons.control import ask
from flistfs.errors import FlistfsError, SessionError, error_class

__all__ = ["Ended", "seals_when_unmounted", "wait", "wait_for_end"]


@dataclass(frozen=True, slots=True)
class Ended:
    """A session whose daemon has ended: sealed, or with the reason why not."""

    mountpoint: str
    result: Result

    def check(self) -> None:
        """Check that it was sealed.

        Raises:
            FlistfsError: why it was not, with the exit code of its daemon.
        """
        if self.result.exit_code:
            raise error_class(self.result.code, self.result.exit_code)(self.result.message)


def wait(mountpoint: AnyPath | None = None) -> SealSummary:
    """Wait until a session's daemon has ended, and return what it sealed, as it does with `seal_to`.

    Raises:
        SessionError: it was not sealed.
        FlistfsError: why the seal, or the mount, failed.
    """
    ended = wait_for_end(mountpoint)
    ended.check()
    if ended.result.summary is None:
        raise SessionError(f"it is not kept what the session of {ended.mountpoint} was sealed into")
    return ended.result.summary


def wait_for_end(mountpoint: AnyPath | None = None) -> Ended:
    """Wait until a session's daemon has ended, and return how, be it well or not.

    Raises:
        SessionError: it has ended without a seal.
    """
    directory = _find_latest(mountpoint)
    directory.wait_unlocked()
    result = directory.failed_start() or directory.result()
    if result is None or (
        result.exit_code == 0 and directory.is_open()
    ):  # what was sealed was the one before
        raise SessionError(_not_sealed(directory))
    place = directory.settings().mountpoint if result.summary else str(mountpoint or directory.path)
    return Ended(place, result)


def seals_when_unmounted(mountpoint: AnyPath | None = None) -> bool:
    """Return whether a mount was started with `seal_to`; True as well for a session that is not mounted.

    Raises:
        SessionError: there is no such session.
    """
    directory = _find_latest(mountpoint)
    if directory.state() is not State.MOUNTED:
        return True
    try:
        return bool(ask(directory.control, {"op": "status"})["seal_to"])
    except FlistfsError:
        return True  # it is ending now, and is about to say


def _not_sealed(directory: SessionDirectory) -> str:
    name = f"the session of {directory.settings().mountpoint}"
    if not directory.is_open():
        return f"{name} has ended without being sealed"
    return f"{name} is not mounted, and was left without being sealed; seal it with: flistfs seal OUT.flist"


def _find_latest(mountpoint: AnyPath | None) -> SessionDirectory:
    return find_latest(None if mountpoint is None else typed_path(mountpoint))
