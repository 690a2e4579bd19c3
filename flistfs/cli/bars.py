"""Progress bars, one a phase, for terminals of 80 columns and more."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from flistfs.cli.output import human_size
from flistfs.util.progress import Report

_PHASES = {
    "add": "Adding",
    "base": "Reading the base",
    "copy": "Copying blocks",
    "compare": "Comparing blocks",
    "upload": "Storing blocks",
    "list": "Reading the flist",
    "push": "Pushing blocks",
    "check": "Checking the store",
    "named": "Asking readers' servers",
    "catalog": "Writing the catalog",
    "package": "Packing",
    "unmount": "Unmounting",
    "structure": "Reading the flist",
    "verify": "Checking blocks",
    "extract": "Extracting",
}


class Bars(Progress):
    """Bars on standard error; below them what there is to count, and what keeps it from going on."""

    def __init__(self) -> None:
        self._phases: dict[str, TaskID] = {}
        self._phase: str | None = None
        self._counts: Mapping[str, int] | None = None
        self._trouble = ""
        self._started = time.monotonic()
        super().__init__(
            TextColumn("{task.description:<19}"),
            BarColumn(bar_width=None),  # what the other columns leave
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            expand=True,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield the lines; rich calls this."""
        yield self.make_tasks_table(self.tasks)
        if self._counts:
            said = _counted(self._counts, time.monotonic() - self._started)
            yield Text(said, no_wrap=True, overflow="ellipsis")
        if self._trouble:
            yield Text(self._trouble, style="red")

    def show(self, report: Report) -> None:
        """Show progress. A phase is done when another begins, whatever its last report said."""
        phase, total = report.phase, report.total
        if phase != self._phase:
            self._complete()
            self._phase = phase
            if phase not in self._phases:
                self._phases[phase] = self.add_task(_PHASES.get(phase, phase), total=None)
        self._counts = report.counts
        self._trouble = report.trouble or ""
        if total:
            self.update(self._phases[phase], completed=report.done, total=total)

    def finish(self) -> None:
        """Show that all is done."""
        self._complete()
        self._trouble = ""

    def _complete(self) -> None:
        if self._phase is not None:
            task = self._phases[self._phase]
            total = self._tasks[task].total or 1
            self.update(task, completed=total, total=total)


def _counted(counts: Mapping[str, int], seconds: float) -> str:
    rate = counts["size"] / max(seconds, 0.1)
    return (
        f"{counts['entries']:,} entries, {human_size(counts['size'])}, {human_size(rate)}/s; "
        f"{counts['new_blocks']:,} new, {counts['shared_blocks']:,} shared"
    )
