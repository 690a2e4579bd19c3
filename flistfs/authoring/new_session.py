"""The settings of a new session, the same for `mount`, `new`, `pack` and Python programs."""

from __future__ import annotations

import time
from pathlib import Path

from flistfs.authoring.request import USUAL_FORMAT, BaseRequest
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import directory_for
from flistfs.authoring.state.settings import Settings
from flistfs.errors import SessionError


def new_settings(mountpoint: Path | None, store: str, format_: str) -> Settings:
    """Return what a session that begins now is made with.

    Args:
        mountpoint: What it is called; None for one that need not be found again.
        store: The URL of its store, without a password.
        format_: The name of the format of its flist.
    """
    return Settings(str(mountpoint or ""), store, format=format_, created=time.time())


def chosen_format(format_: str | None, base: BaseRequest | None) -> str:
    """Return the name of a new session's format: the one named, else that of its base, else the usual one.

    Raises:
        FormatError: there is no such format, or no such base.
    """
    from flistfs.format.opening import format_named, format_of  # noqa: PLC0415  --help need not wait for it

    if format_ is not None:
        return format_named(format_).name
    return format_of(Path(base.packages[-1])).name if base and base.packages else USUAL_FORMAT


def session_directory(mountpoint: Path, state: Path | None = None) -> SessionDirectory:
    """Return the session directory of a mount point (absolute, resolved), which may have to be made.

    Raises:
        SessionError: `state` holds something else, or the user's state cannot be written.
    """
    try:
        return directory_for(mountpoint, state)
    except OSError as error:
        raise SessionError(f"{error.filename} cannot be written: {error.strerror}") from error


def check_format(directory: SessionDirectory, wanted: str | None) -> None:
    """Check that a session that is resumed has the format that is asked for, if one is.

    Raises:
        SessionError: it has another.
    """
    settings = directory.settings()
    if wanted is not None and wanted != settings.format:
        raise SessionError(
            f"the open session of {settings.mountpoint or directory.path} has the format {settings.format}, "
            f"not {wanted}; seal it first, or omit `format`"
        )
