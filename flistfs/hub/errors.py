"""What the hub answers to a request that it does not carry out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class HubError(Exception):
    """A request that fails; the text is for the caller, and never holds a secret or a path of the hub."""

    status: ClassVar[int] = 400
    """The status of the answer (HTTP)."""


class NotFoundError(HubError):
    """There is no such repository, flist, link or tag."""

    status = 404


class RefusedError(HubError):
    """The caller may not do that, or something is in its place: 401, as clients know it of such refusals."""

    status = 401


class StalledError(HubError):
    """Nothing arrives any more of what was begun."""

    status = 408


class TooLargeError(HubError):
    """There is more of it than the hub takes."""

    status = 413


class TooManyError(HubError):
    """There were too many of it: it may be asked for again after some seconds."""

    status = 429

    def __init__(self, text: str, retry_after: int) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class InTheWayError(HubError):
    """Something of that name is there, which would be lost."""

    status = 409


def without(text: str, hidden: Mapping[str, str]) -> str:
    """Return the text of an error for the caller: what is the hub's own is called as the caller knows it."""
    for own, shown in hidden.items():
        text = text.replace(own, shown)
    return text
