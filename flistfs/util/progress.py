"""Progress reporting, from long-running work to its display."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Report:
    """Progress of one phase of the work: `done` of `total` (0: unknown).

    `trouble` is what blocks it, `counts` holds further figures by name.
    """

    phase: str
    done: int
    total: int
    trouble: str | None = None
    counts: Mapping[str, int] | None = None


Progress = Callable[[Report], object]
"""A receiver of reports; called from any thread, and often."""


def quiet(_: Report) -> None:
    """Discard a report."""


def counting(progress: Progress, phase: str) -> Callable[[int, int], None]:
    """Return a callable that takes `done` and `total` and reports them for one phase."""

    def report(done: int, total: int) -> None:
        progress(Report(phase, done, total))

    return report
