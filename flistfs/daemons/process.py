"""What all daemons do as processes: read their config, announce that they are ready, and end."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flistfs.errors import FlistfsError, InternalError, InterruptedByUserError
from flistfs.util.nurseries import unwrapped
from flistfs.util.progress import Report

log = logging.getLogger(__name__)

INTERRUPTS = {signal.SIGINT, signal.SIGTERM}
"""What ends a daemon that starts; it is kept waiting until that can be done cleanly."""


class Ready:
    """Reports once, to the command that started the daemon, how that went; in the foreground only logs do."""

    def __init__(self, foreground: bool) -> None:  # noqa: FBT001
        self._said = foreground

    def report(self, report: Report) -> None:
        """Report progress until then."""
        if not self._said:
            with suppress(BrokenPipeError):
                os.write(1, json.dumps({"progress": asdict(report)}).encode() + b"\n")

    def say(self, answer: dict[str, Any]) -> None:
        """Report the outcome, and close the pipes to the command."""
        if self._said:
            return
        self._said = True
        with suppress(BrokenPipeError):
            os.write(1, json.dumps(answer).encode() + b"\n")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.close(null)


def read_config() -> dict[str, Any]:
    """Return the config of this daemon from standard input; end the process if it is incomplete.

    The command that wrote it was killed then, and nobody waits for its mount.
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


def run_daemon(
    work: Callable[[], int], ready: Ready, clean_up: Callable[[FlistfsError | None], None], log_path: Path
) -> int:
    """Do a daemon's work to its end, and return its exit code.

    Args:
        work: All of it, from before the mount to after the unmount; it returns the exit code.
        ready: Takes a failure, for the command that started the daemon if it still waits.
        clean_up: Called before that, with the error, or None after a bug.
        log_path: Where the log is, for the user to look up a bug.
    """
    try:
        with unwrapped():
            heed_interrupts()
            return work()
    except FlistfsError as error:
        failure = error
    except KeyboardInterrupt:  # from before there was a mount, which would be unmounted first
        failure = InterruptedByUserError("interrupted before anything was mounted")
    except Exception as error:
        log.exception("the daemon fails")
        clean_up(None)
        ready.say({"error": InternalError(f"the daemon failed: {error} (log: {log_path})").as_dict()})
        return 1
    log.error("%s", failure)
    clean_up(failure)
    ready.say({"error": failure.as_dict()})
    return failure.exit_code
