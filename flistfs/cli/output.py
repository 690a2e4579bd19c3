"""What the user sees: progress on a terminal, sizes, summaries."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

import click

from flistfs.cli.answers import print_now
from flistfs.cli.messages import spoken
from flistfs.cli.streams import on_one_line
from flistfs.errors import SourceError
from flistfs.tree.names import printable
from flistfs.tree.owners import FIRST_OWN_NUMBER
from flistfs.util.progress import Progress, Report, quiet

if TYPE_CHECKING:
    from flistfs.api.by_mountpoint import AddSummary, BaseSummary, SealSummary
    from flistfs.api.flists import Flist
    from flistfs.cli.bars import Bars

# How many servers a summary names.
_NAMED_SERVERS = 3

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def human_size(size: float) -> str:
    """Return a number of bytes in the unit that fits it."""
    if size < 1024:
        return f"{size:.0f} B"
    power = min(int(math.log2(size)) // 10, len(_UNITS))
    return f"{size / 1024**power:.1f} {_UNITS[power - 1]}"


def plural(count: int, word: str, many: str = "") -> str:
    """Return a count with its word: "1 file", "2 files"."""
    return f"{count:,} {word if count == 1 else many or word + 's'}"


def is_watched() -> bool:
    """Return whether progress is shown on a terminal."""
    return sys.stderr.isatty()


@contextmanager
def progress_shown(*, as_json: bool = False) -> Iterator[Progress]:
    """Show progress on standard error: as JSON in lines, on a terminal as bars, and else not at all."""
    if as_json:
        yield _JsonProgress().take
    elif not is_watched():
        yield quiet
    else:
        with _bars() as progress:
            yield progress


# Seconds between two lines of JSON that tell the progress.
_JSON_EVERY = 1.0


class _JsonProgress:
    """Prints a line of JSON a second, {"progress": …}, to standard error: the other is for the answer."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._next = self._started + _JSON_EVERY

    def take(self, report: Report) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _JSON_EVERY
        plain = asdict(report)
        plain |= plain.pop("counts") or {}
        print_now({"progress": {**plain, "seconds": round(now - self._started, 1)}}, err=True)


@contextmanager
def _bars() -> Iterator[Progress]:
    """Show bars from the first report on: before it, processes may be forked, which no thread may disturb."""
    with ExitStack() as opened:
        shown: list[Bars] = []
        lock = threading.Lock()

        def show(report: Report) -> None:
            from flistfs.cli import bars  # noqa: PLC0415  a pipe need not wait for it

            with lock:
                if not shown:
                    shown.append(opened.enter_context(bars.Bars()))
            shown[0].show(report)

        yield show
        for each in shown:
            each.finish()


class HasCounts(Protocol):
    """A summary that counts entries by kind."""

    @property
    def files(self) -> int:
        """Files."""

    @property
    def directories(self) -> int:
        """Directories, the root among them."""

    @property
    def links(self) -> int:
        """Symbolic links."""

    @property
    def specials(self) -> int:
        """Everything else."""


def metadata_lines(flist: Flist) -> Iterator[str]:
    """Yield what an flist says besides its tree, a line each."""
    for key, value in flist.metadata.items():
        yield f"{printable(os.fsencode(key))}: {printable(value)}"


def kinds(counts: HasCounts) -> str:
    """Return how many entries of each kind there are, in words."""
    return ", ".join(
        (
            plural(counts.files, "file"),
            plural(counts.directories, "directory", "directories"),
            plural(counts.links, "link"),
            plural(counts.specials, "special file"),
        )
    )


def added_lines(summary: AddSummary) -> Iterator[str]:
    """Yield the lines that say what was added."""
    yield (
        f"added {plural(summary.entries, 'entry', 'entries')}, {human_size(summary.size)} of content; "
        f"blocks: {summary.new_blocks:,} new ({human_size(summary.new_bytes)}), "
        f"{summary.shared_blocks:,} shared; in {summary.seconds:.1f} s"
    )
    if count := summary.replaced_count:
        yield f"{plural(count, 'entry', 'entries')} took the place of what was there"
    yield from replaced_lines(summary.replaced_blocks)


def hidden_lines(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each flist that has entries hidden by others."""
    for name, count in counts.items():
        verb = "is" if count == 1 else "are"
        yield f"{plural(count, 'entry', 'entries')} of {name} {verb} hidden by what others have there"


def base_lines(summary: BaseSummary) -> Iterator[str]:
    """Yield the lines that say what a session started from."""
    yield (
        f"it holds {plural(summary.entries, 'entry', 'entries')} of its base, "
        f"{human_size(summary.size)} of content; in {summary.seconds:.1f} s"
    )
    yield from hidden_lines(summary.hidden_counts)
    yield from accepted_lines(summary.accepted_faults)
    if count := summary.unknown_owners:
        belong = "entry belongs to an account" if count == 1 else "entries belong to accounts"
        yield (
            f"note: {count:,} {belong} that the base knows by name only: in the mount that is a number from "
            f"{FIRST_OWN_NUMBER} on, in the flist the name again"
        )


def accepted_lines(count: int) -> Iterator[str]:
    """Yield the line that says how many faults of flists were accepted."""
    if count:
        faults = plural(count, "fault was", "faults were")
        yield f"note: {faults} accepted: what is there was taken; flistfs verify names them"


def complain_left_out(summary: AddSummary) -> None:
    """Name what was left out: it could not be read, or has no place.

    Raises:
        SourceError: anything was.
    """
    for each in summary.left_out:
        click.echo(f"flistfs: left out: {on_one_line(str(each))}", err=True)
    if count := summary.left_out_count:
        raise SourceError(f"{plural(count, 'entry was', 'entries were')} left out")


def replaced_lines(count: int) -> Iterator[str]:
    """Yield a line that says how many wrong blocks were replaced, if any were."""
    if count:
        yield f"note: {plural(count, 'block was', 'blocks were')} wrong in the store, and replaced"


def seal_lines(summary: SealSummary) -> Iterator[str]:
    """Yield the lines that say what was sealed, and what the format cannot represent or readers drop."""
    yield f"{summary.out}: {kinds(summary)}; {human_size(summary.size)} of content"
    yield (
        f"blocks: {summary.new_blocks:,} new ({human_size(summary.new_bytes)}), "
        f"{summary.shared_blocks:,} shared; package: {human_size(summary.package_size)} ({summary.format}); "
        f"sealed in {summary.seconds:.1f} s"
    )
    for add in summary.incomplete:
        yield f"note: {on_one_line(str(add))} was not added whole"
    yield from replaced_lines(summary.replaced_blocks)
    if summary.servers:
        yield f"readers fetch from {_servers(summary.servers)}"
    for note in summary.notes:
        yield f"note: {spoken(note)}"
    if summary.store_trouble:
        yield f"note: {summary.store_trouble}; flistfs push brings it later what it lacks"
    for name, text in _UNREPRESENTABLE.items():
        if count := getattr(summary.unrepresentable, name):
            yield f"note: {plural(count, *text[:2])} {text[2]}"


def server_lines(package: str, servers: Sequence[str], notes: Sequence[str]) -> Iterator[str]:
    """Yield the lines that say where readers of an flist look for blocks from then on."""
    yield f"{package}: readers fetch from {_servers(servers)}"
    for note in notes:
        yield f"note: {spoken(note)}"


def _servers(servers: Sequence[str]) -> str:
    more = f" and {len(servers) - _NAMED_SERVERS} more" if len(servers) > _NAMED_SERVERS else ""
    return ", ".join(servers[:_NAMED_SERVERS]) + more


# What got lost: its word, its plural, and what becomes of it.
_UNREPRESENTABLE = {
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
        "set-id or sticky bits; readers drop them",
    ),
    "large_devices": (
        "device has",
        "devices have",
        "a minor number over 255; readers of 2017 show it wrongly",
    ),
    "special_files": ("special file is", "special files are", "not shown by 0-fs"),
    "names": (
        "name is",
        "names are",
        "no UTF-8: rfs 1.x cannot read the directories with them",
    ),
}
