"""Progress reporting: from whatever does long work to whatever shows it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Report:
    """How far one phase of the work is: `done` of `total` (0: unknown).

    `trouble` says what keeps it from going on, `counts` has further figures by name.
    """

    phase: str
    done: int
    total: int
    trouble: str | None = None
    counts: Mapping[str, int] | None = None


Progress = Callable[[Report], object]
"""Takes reports; called from any thread, and often."""


def quiet(_: Report) -> None:
    """Show nothing."""


def counting(progress: Progress, phase: str) -> Callable[[int, int], None]:
    """Return what takes `done` and `total` of one phase."""

    def report(done: int, total: int) -> None:
        progress(Report(phase, done, total))

    return report
