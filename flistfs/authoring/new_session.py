"""The settings of a new session, the same for `mount`, `new`, `pack` and Python programs."""

from __future__ import annotations

import time
from pathlib import Path

from flistfs.authoring.request import USUAL_FORMAT
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import directory_for
from flistfs.authoring.state.settings import Settings
from flistfs.errors import SessionError


def new_settings(mountpoint: Path | None, store: str, format_: str = USUAL_FORMAT) -> Settings:
    """Return what a session that begins now is made with.

    Args:
        mountpoint: What it is called; None for one that need not be found again.
        store: The URL of its store, without a password.
        format_: The name of the format of its flist.
    """
    return Settings(str(mountpoint or ""), store, format=format_, created=time.time())


def session_directory(mountpoint: Path, state: Path | None = None) -> SessionDirectory:
    """Return the session directory of a mount point (absolute, resolved), which may have to be made.

    Raises:
        SessionError: `state` holds something else, or the user's state cannot be written.
    """
    try:
        return directory_for(mountpoint, state)
    except OSError as error:
        raise SessionError(f"{error.filename} cannot be written: {error.strerror}") from error
