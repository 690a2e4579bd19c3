"""Starting a session, or the mount of a sealed flist: everything between the arguments and the answer.

Commands and `flistfs.api` start sessions here alone.
"""

from __future__ import annotations

import time
from pathlib import Path

from flistfs.authoring.request import USUAL_FORMAT
from flistfs.authoring.state.directory import Settings


def new_settings(mountpoint: Path, store: str) -> Settings:
    """Return what a session that begins now is made with; the store's URL has no password."""
    return Settings(str(mountpoint), store, format=USUAL_FORMAT, created=time.time())
