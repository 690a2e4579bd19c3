"""What Ctrl-C and SIGTERM do to a command: they end it while it is loaded, and later let it clean up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_received: list[int] = []


def end_at_once() -> None:
    """Let a signal end the process silently, as long as there is nothing to clean up.

    A KeyboardInterrupt would not do: one that is raised while a module is imported may be swallowed, or come
    out as an error of another kind.
    """
    for number in _SIGNALS:
        _handle(number, _end)


def clean_up_first() -> None:
    """Let a signal raise KeyboardInterrupt from now on, so that what was made is removed."""
    for number in _SIGNALS:
        _handle(number, _raise)


@contextmanager
def loading() -> Iterator[None]:
    """Import modules in this block, with nothing yet made that would have to be removed."""
    end_at_once()
    yield
    clean_up_first()


def exit_code() -> int:
    """Return what a command ends with that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (_received[0] if _received else signal.SIGINT)


def _handle(number: int, handler: Callable[[int, object], None]) -> None:
    if signal.getsignal(number) is not signal.SIG_IGN:  # as what a shell runs in the background has it
        signal.signal(number, handler)


def _end(number: int, _: object) -> None:
    os._exit(128 + number)


def _raise(number: int, _: object) -> None:
    _received.append(number)
    raise KeyboardInterrupt
