"""What the hub answers to a request that it does not carry out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
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


class InTheWayError(HubError):
    """Something of that name is there, which would be lost."""

    status = 409


def without_paths(error: Exception, named: Iterable[tuple[Path, str]]) -> str:
    """Return the text of an error for the caller, who knows files of the hub by other names."""
    text = str(error)
    for path, name in named:
        text = text.replace(str(path), name)
    return text
