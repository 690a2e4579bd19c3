"""What a session directory says of its session: plain data."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from flistfs.authoring.request import AddRequest


class State(enum.Enum):
    """What a session is like, seen from outside."""

    MOUNTED = "mounted"
    BUSY = "busy"
    SEALED = "sealed"
    UNMOUNTED = "unmounted"
    DIED = "died"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a session is made with. The stores' URLs have no passwords.

    `base_store` is where blocks of the flists that it started from are, if not in its own store.
    """

    mountpoint: str
    store: str
    format: str
    created: float
    base_store: str | None = None


@dataclass(frozen=True, slots=True)
class PartialAdd:
    """A source that is not in the tree with all it has: its add failed, was broken off, or is still at work.

    `source` and `to` are those of an `AddRequest`.
    """

    source: str
    to: str

    def __str__(self) -> str:
        """Return what the user asked for."""
        return f"{self.source} to {self.to}" if self.to else self.source


def partial_adds_of(request: AddRequest) -> list[PartialAdd]:
    """Return what is not added whole while a request is carried out."""
    return [PartialAdd(source, request.to) for source in request.sources]


@dataclass(frozen=True, slots=True)
class Result:
    """How the last seal of a session ended; `summary` is there if it went well."""

    exit_code: int
    message: str
    time: float
    summary: dict[str, Any] | None = None
