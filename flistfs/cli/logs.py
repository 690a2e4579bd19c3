"""Where commands log that do without a daemon."""

from __future__ import annotations

import logging
from pathlib import Path


def log_to(path: Path | None) -> None:
    """Write what a daemon would into a session's log, once there is anything; or nowhere.

    Without this the last-resort handler would say it on standard error.
    """
    handler: logging.Handler = logging.NullHandler()
    if path is not None:  # names of files need not be text
        handler = logging.FileHandler(path, delay=True, errors="backslashreplace")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=[handler]
    )
