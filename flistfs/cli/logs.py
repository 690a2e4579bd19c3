"""Where commands log that do without a daemon."""

from __future__ import annotations

import logging
from pathlib import Path


def log_to(path: Path) -> None:
    """Write what a daemon would into a session's log, once there is anything."""
    # Names of files need not be text.
    handler = logging.FileHandler(path, delay=True, errors="backslashreplace")
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=[handler]
    )
