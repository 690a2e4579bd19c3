"""What a daemon does as a process, whatever it serves: it is told its config, gets ready, and ends."""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from flistfs.errors import InterruptedByUserError
from flistfs.util.progress import Report

INTERRUPTS = {signal.SIGINT, signal.SIGTERM}
"""What ends a daemon that starts; it is kept waiting until that can be done cleanly."""


class Ready:
    """Tells the command that started the daemon how that went, once; in the foreground the log does."""

    def __init__(self, foreground: bool) -> None:  # noqa: FBT001
        self._told = foreground

    def report(self, report: Report) -> None:
        """Tell how far it is on the way to that."""
        if not self._told:
            with suppress(BrokenPipeError):
                os.write(1, json.dumps({"progress": asdict(report)}).encode() + b"\n")

    def say(self, answer: dict[str, Any]) -> None:
        """Tell it, and let go of its pipes."""
        if self._told:
            return
        self._told = True
        with suppress(BrokenPipeError):
            os.write(1, json.dumps(answer).encode() + b"\n")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)


def read_config() -> dict[str, Any]:
    """Return the config that this process, a daemon, is told; it ends if there is none.

    A command that was killed has not told everything, and nobody wants its mount any more.
    """
    try:
        config: dict[str, Any] = json.load(sys.stdin)
    except ValueError:
        sys.exit(InterruptedByUserError.exit_code)
    return config


def heed_interrupts() -> None:
    """Take Ctrl-C and SIGTERM, as KeyboardInterrupt, from now on; one that came before is raised here.

    For a daemon that starts and removes what it has made; once it has a mount, it handles signals otherwise.
    """
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPTS)
