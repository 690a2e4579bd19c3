"""The values stored in a session directory: settings and incomplete adds."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from flistfs.authoring.request import AddRequest


class State(enum.Enum):
    """The state of a session as other processes see it."""

    MOUNTED = "mounted"
    BUSY = "busy"
    SEALED = "sealed"
    UNMOUNTED = "unmounted"
    DIED = "died"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a session. Store URLs have no passwords.

    `base_store` holds the blocks of the session's base flists, if they are not in its own store.
    """

    mountpoint: str
    store: str
    format: str
    created: float
    base_store: str | None = None


@dataclass(frozen=True, slots=True)
class PartialAdd:
    """A source that is not completely in the tree: its add failed, was interrupted, or is still running.

    `source` and `to` are those of an `AddRequest`.
    """

    source: str
    to: str

    def __str__(self) -> str:
        """Return the add as the user requested it."""
        return f"{self.source} to {self.to}" if self.to else self.source


def partial_adds_of(request: AddRequest) -> list[PartialAdd]:
    """Return the adds that are incomplete while a request runs."""
    return [PartialAdd(source, request.to) for source in request.sources]
