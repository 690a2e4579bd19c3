"""How long work tells how far it is."""

from __future__ import annotations

from typing import Protocol


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


def quiet(
    phase: str, done: int, total: int, trouble: str | None = None, counts: dict[str, int] | None = None
) -> None:
    """Show nothing."""
