"""flistfs status."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import datetime
from typing import Any, NoReturn

import click

from flistfs.api.status import PartialAdd, State, status
from flistfs.api.store_names import shown_store
from flistfs.cli import documents, interrupts
from flistfs.cli.answers import answer, print_now
from flistfs.cli.messages import spoken
from flistfs.cli.nodes import Counts
from flistfs.cli.options import json_option
from flistfs.cli.output import human_size, kinds, plural
from flistfs.cli.streams import on_one_line

# Seconds from one report to the next.
_WATCH_EVERY = 1.0


@click.command("status", short_help="Show your sessions.")
@click.option("--watch", is_flag=True, help="Follow live, a report a second, until Ctrl-C.")
@json_option
def command(watch: bool, as_json: bool) -> None:
    """Show your sessions: what they hold, what waits to be stored, how the last seal ended.

    \b
    Example:
      flistfs status
      flistfs status --watch
    """
    if watch:
        _watch(as_json=as_json)
    sessions = _sessions()
    if as_json:
        answer({"sessions": sessions})
    else:
        click.echo("\n".join(_all_lines(sessions)))


def _sessions() -> list[dict[str, Any]]:
    return list(map(documents.status, status()))


def _all_lines(sessions: list[dict[str, Any]]) -> Iterator[str]:
    if not sessions:
        yield "no sessions; start one with: flistfs mount MOUNTPOINT"
    for session in sessions:
        yield from _lines(session)


def _watch(*, as_json: bool) -> NoReturn:
    """Report every second what there is, with rates."""
    with interrupts.loading():  # only this needs it
        from rich.live import Live  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

    live = Live(auto_refresh=False) if sys.stdout.isatty() and not as_json else None
    before: dict[str, dict[str, Any]] = {}
    with live or nullcontext():
        while True:
            sessions = _sessions()
            for session in sessions:
                session["asked"] = time.time()
                session["rates"] = _rates(before.get(session["state_directory"]), session)
            before = {session["state_directory"]: session for session in sessions}
            if as_json:
                print_now({"sessions": sessions})
            elif live:
                live.update(Text("\n".join(_all_lines(sessions))), refresh=True)
            else:
                click.echo(f"{_clock(time.time())}\n" + "\n".join(_all_lines(sessions)) + "\n")
            time.sleep(_WATCH_EVERY)


def _rates(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, float] | None:
    """Return what came in per second since the last report: bytes and files written, bytes stored.

    What went, as files were removed, is none of it.
    """
    if before is None or "files" not in before or "files" not in now:
        return None
    seconds = now["asked"] - before["asked"]
    return {name: max(0, now[name] - before[name]) / seconds for name in ("size", "files", "new_bytes")}


def _dedup(session: dict[str, Any]) -> str:
    total = session["new_blocks"] + session["shared_blocks"]
    return f" ({100 * session['shared_blocks'] / total:.0f} %)" if total else ""


def _latency(session: dict[str, Any]) -> str:
    latency = session["latency"]
    return "" if latency is None else f"; the last batch took the store {1000 * latency:.0f} ms"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _store_lines(session: dict[str, Any]) -> Iterator[str]:
    if "store" in session:
        yield f"  store: {shown_store(session['store'])}; format: {session['format']}"
    if session.get("store_trouble"):
        yield f"  a server fails, others stand in for it: {session['store_trouble']}"


def _trouble_lines(session: dict[str, Any]) -> Iterator[str]:
    """Yield lines about what is in the way of whom."""
    if "at_work" in session:
        yield f"  {session['at_work']} is at work in it, without a mount; its log: {session['log']}"
    if session.get("waiting_writers"):
        yield "  the spool or the disk is full: writers are waiting"
    if session.get("trouble"):
        yield f"  trouble since {_clock(session['trouble_since'])}: {session['trouble']}"


def _lines(session: dict[str, Any]) -> Iterator[str]:
    mountpoint = session.get("mountpoint", session["state_directory"])
    state = session["state"]
    yield f"{mountpoint}: {'sealing' if session.get('sealing') else state}"
    yield from _store_lines(session)
    if "files" in session:
        counts = Counts(*(session[name] for name in Counts._fields))
        yield f"  holds: {kinds(counts)}; {human_size(session['size'])} of content"
        yield (
            f"  blocks: {session['queued']:,} queued ({human_size(session['queued_bytes'])}), "
            f"{session['new_blocks']:,} stored ({human_size(session['new_bytes'])}), "
            f"{session['shared_blocks']:,} shared{_dedup(session)}{_latency(session)}"
        )
        yield (
            f"  spool: {plural(session['spooled_chunks'], 'chunk')} "
            f"({human_size(session['spooled_bytes'])}) not stored yet"
        )
    if session.get("rates"):
        rates = session["rates"]
        yield (
            f"  now: {human_size(rates['size'])}/s and {plural(round(rates['files']), 'file')}/s written, "
            f"{human_size(rates['new_bytes'])}/s stored"
        )
    yield from _trouble_lines(session)
    if state == State.DIED.value:
        yield "  its daemon died; nothing that was written is lost: mount it again, or seal it"
    elif state == State.UNMOUNTED.value:
        yield "  it is kept: seal it, or mount it again to resume it"
    for add in session.get("incomplete", ()):
        name = on_one_line(str(PartialAdd(**add)))
        yield f"  incomplete: {name} was not added whole: add it again, or seal --incomplete"
    if session.get("result"):
        result = session["result"]
        yield f"  last seal, {_clock(result['time'])}: {result['message']}"
    if "error" in session:
        yield f"  error: {spoken(session['error'])}"
