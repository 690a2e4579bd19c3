"""Log destinations and the format of log lines."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def with_format(handler: logging.Handler) -> logging.Handler:
    """Return the handler, set to the line format of a session's log."""
    handler.setFormatter(logging.Formatter(_FORMAT))
    return handler


def log_to(path: Path) -> None:
    """Log to a session's log file, created with the first message."""
    # File names may be invalid text.
    handler = logging.FileHandler(path, delay=True, errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, handlers=[with_format(handler)])


def log_to_standard_error(*, foreground: bool) -> None:
    """Log to standard error, which is a terminal in the foreground and otherwise the log file."""
    logging.basicConfig(
        level=logging.INFO, format="%(message)s" if foreground else _FORMAT, stream=sys.stderr
    )
