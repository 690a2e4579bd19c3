"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypedDict


class ProgressReport(TypedDict):
    """How far something is, as `Progress` is told."""

    phase: str
    done: int
    total: int
    trouble: str | None
    counts: dict[str, int] | None


class Progress(Protocol):
    """Is told how far something is; called from any thread, and often."""

    def __call__(
        self,
        phase: str,
        done: int,
        total: int,
        trouble: str | None = None,
        counts: dict[str, int] | None = None,
    ) -> None:
        """Take note: `done` of `total` of a phase (0: nobody knows), and what keeps it from going on.

        `counts` says more, by name.
        """


def reporting(take: Callable[[ProgressReport], object]) -> Progress:
    """Make a progress of what takes reports."""

    def tell(
        phase: str, done: int, total: int, trouble: str | None = None, counts: dict[str, int] | None = None
    ) -> None:
        take({"phase": phase, "done": done, "total": total, "trouble": trouble, "counts": counts})

    return tell


def _nothing(_: ProgressReport) -> None:
    pass


quiet = reporting(_nothing)
"""Shows nothing."""
