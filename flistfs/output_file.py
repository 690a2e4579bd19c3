"""An flist's way into its place: written aside, flushed, renamed; it exists whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from flistfs.durable import sync_folder
from flistfs.errors import OutputError
from flistfs.format.package import write_package


def part_path(out: Path, maker: str | Path) -> Path:
    """Where the package is written before it takes its place: beside it, so that a rename suffices.

    A digest of its maker (a session's directory) is in it and no process number, so that what a killed seal
    leaves is written over by the next; and of the output's name, which may be as long as a name can be.
    """
    digest = hashlib.blake2b(os.fsencode(out.name) + b"\0" + os.fsencode(maker), digest_size=8).hexdigest()
    return out.with_name(f".flistfs-{digest}.part")


def check_output(out: Path, *, force: bool) -> None:
    """Refuse an output that exists (unless `force`) or cannot be written.

    Raises:
        OutputError: says which.
    """
    if out.is_dir():
        raise OutputError(f"{out} is a directory; name a file in it")
    if os.path.lexists(out) and not force:
        raise OutputError(f"{out} exists; --force replaces it")
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise OutputError(f"{out.parent} cannot be written: {error.strerror}") from error


def pack(folder: Path, part: Path) -> None:
    """Write the catalog in `folder` as a package to the file `part`, flushed to the disk.

    Raises:
        FormatError: the folder holds no catalog.
        OSError: the disk is full, or a folder cannot be read or written.
    """
    with part.open("wb") as file:
        write_package(folder, file)
        file.flush()
        os.fsync(file.fileno())


def publish(part: Path, out: Path, *, force: bool) -> None:
    """Put the finished package in its place: whole, or not at all.

    Raises:
        OutputError: the output appeared meanwhile, or its folder cannot be written.
    """
    try:
        if force or not _link(part, out):
            part.replace(out)
    except FileExistsError:
        raise OutputError(f"{out} has appeared meanwhile; --force replaces it") from None
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}") from error
    with suppress(OSError):  # it is in its place; a folder that may only be written cannot be opened for this
        sync_folder(out.parent)


def _link(part: Path, out: Path) -> bool:
    """Give the part its name without ever replacing anything; say whether the file system can do that.

    Raises:
        FileExistsError: somebody else has put something there meanwhile.
    """
    try:
        out.hardlink_to(part)
    except FileExistsError:
        raise
    except OSError:
        if out.exists():
            raise FileExistsError from None
        return False
    part.unlink()
    return True
