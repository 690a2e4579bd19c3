"""What the user sees: progress on a terminal, sizes, summaries."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from flistfs.authoring.request import Progress
from flistfs.control import Report
from flistfs.stores.readers import local_servers

_PHASES = {
    "upload": "Storing blocks",
    "list": "Reading the flist",
    "push": "Pushing blocks",
    "check": "Checking the store",
    "catalog": "Writing the catalog",
    "package": "Packing",
    "unmount": "Unmounting",
}

# How many servers a summary names.
_NAMED_SERVERS = 3

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def print_json(value: object) -> None:
    """Print JSON, on one line."""
    click.echo(json.dumps(value))


def human_size(size: float) -> str:
    """Give a number of bytes in the unit that fits it."""
    if size < 1024:
        return f"{size:.0f} B"
    power = min(int(math.log2(size)) // 10, len(_UNITS))
    return f"{size / 1024**power:.1f} {_UNITS[power - 1]}"


def plural(count: int, word: str, many: str = "") -> str:
    """Give a count with its word: "1 file", "2 files"."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"


@contextmanager
def progress_bar(first: str = "upload") -> Iterator[Progress]:
    """Show progress on a terminal (standard error), and nothing in a pipe; `first` is the first phase."""
    if not sys.stderr.isatty():
        yield _quiet
        return
    from rich.console import Console  # noqa: PLC0415  a pipe need not wait for it
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    from rich.progress import Progress as Bars  # noqa: PLC0415

    bars = Bars(
        TextColumn("{task.description:<20}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[trouble]}", style="red"),
        console=Console(stderr=True),
    )
    with bars:
        # The first phase is shown at once: a quick seal reports none before it is done.
        tasks = {first: bars.add_task(_PHASES[first], total=None, trouble="")}

        def show(phase: str, done: int, total: int, trouble: str | None = None) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(_PHASES.get(phase, phase), total=total, trouble="")
            # A phase of nothing is done.
            full = max(total, 1)
            bars.update(tasks[phase], completed=done if total else full, total=full, trouble=trouble or "")

        yield show


def following(progress: Progress) -> Callable[[Report], None]:
    """Make what shows the progress that a daemon reports."""
    return lambda report: progress(report["phase"], report["done"], report["total"], report["trouble"])


def _quiet(phase: str, done: int, total: int, trouble: str | None = None) -> None:
    """Show nothing."""


def kinds(counts: dict[str, Any]) -> str:
    """Say how many entries of each kind there are."""
    return ", ".join(
        (
            plural(counts["files"], "file"),
            plural(counts["directories"], "directory", "directories"),
            plural(counts["links"], "link"),
            plural(counts["specials"], "special file"),
        )
    )


def seal_lines(summary: dict[str, Any]) -> Iterator[str]:
    """Say what was sealed, and what of it the format or its readers drop."""
    yield f"{summary['out']}: {kinds(summary)}; {human_size(summary['size'])} of content"
    yield (
        f"blocks: {summary['new_blocks']:,} new ({human_size(summary['new_bytes'])}), "
        f"{summary['shared_blocks']:,} shared; package: {human_size(summary['package_size'])}; "
        f"sealed in {summary['seconds']:.1f} s"
    )
    if servers := summary.get("servers"):
        more = f" and {len(servers) - _NAMED_SERVERS} more" if len(servers) > _NAMED_SERVERS else ""
        yield f"readers fetch from {', '.join(servers[:_NAMED_SERVERS])}{more}"
        if local := local_servers(servers):
            yield f"note: {local[0]} is another server to other machines; --public-url names one for them"
    if summary.get("store_trouble"):
        yield f"note: {summary['store_trouble']}; flistfs push brings it later what it lacks"
    for name, text in _LOSSES.items():
        if count := summary["losses"][name]:
            yield f"note: {plural(count, *text[:2])} {text[2]}"


# What got lost: its word, its plural, and what becomes of it.
_LOSSES = {
    "xattrs": ("extended attribute is", "extended attributes are", "left out: flists hold none"),
    "hard_links": (
        "name of a hard-linked file becomes a file of its own,",
        "names of hard-linked files become files of their own,",
        "with the same blocks",
    ),
    "times": ("entry has a time", "entries have times", "outside 1970 to 2106, clamped"),
    "owners": (
        "entry belongs",
        "entries belong",
        "to others than root; readers of 2017 and 2018 show the mounting user",
    ),
    "set_id": (
        "entry has",
        "entries have",
        "set-id or sticky bits; readers of 2017 and 2018 drop them",
    ),
    "large_devices": (
        "device has",
        "devices have",
        "a minor number over 255; readers of 2017 show it wrongly",
    ),
}
