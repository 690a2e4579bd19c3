"""Where things are logged, and how a line of a log looks."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def dressed(handler: logging.Handler) -> logging.Handler:
    """Let a handler write lines as a session's log has them."""
    handler.setFormatter(logging.Formatter(_FORMAT))
    return handler


def log_to(path: Path) -> None:
    """Write what a daemon would into a session's log, once there is anything."""
    # Names of files need not be text.
    handler = logging.FileHandler(path, delay=True, errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, handlers=[dressed(handler)])


def log_to_standard_error(*, foreground: bool) -> None:
    """Log what a daemon does: in the foreground for people, else to what is the log already."""
    logging.basicConfig(
        level=logging.INFO, format="%(message)s" if foreground else _FORMAT, stream=sys.stderr
    )
