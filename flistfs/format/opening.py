"""Find a format by its name, or by a file of it."""

from __future__ import annotations

import stat
from pathlib import Path

from flistfs.errors import FormatError
from flistfs.format.base import Format, TreeReader
from flistfs.format.rocksdb.generation1 import ROCKSDB
from flistfs.format.sqlite.generation2 import SQLITE

_FORMATS: dict[str, Format] = {each.name: each for each in (ROCKSDB, SQLITE)}


def formats() -> tuple[Format, ...]:
    """Return all formats, the default first."""
    return tuple(_FORMATS.values())


def format_named(name: str) -> Format:
    """Return the format with a name.

    Raises:
        FormatError: it is unknown.
    """
    try:
        return _FORMATS[name]
    except KeyError:
        known = ", ".join(_FORMATS)
        raise FormatError(
            f"the format {name!r} is unknown to this version of flistfs (known: {known})"
        ) from None


def open_tree(path: Path) -> tuple[Format, TreeReader]:
    """Open an flist of any format: a file, or a directory with an unpacked package.

    Raises:
        FormatError: it does not exist, is damaged, or is not an flist.
    """
    format_ = format_of(path)
    return format_, format_.open(path)


def format_of(path: Path) -> Format:
    """Return the format that a file or directory seems to have, without reading more than that takes.

    Raises:
        FormatError: it is not there, or cannot be read.
    """
    usual, *others = formats()  # its message is the one for files of no format
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
        if kind not in {stat.S_IFREG, stat.S_IFDIR}:  # bytes read from a pipe are lost
            return usual
        return next((each for each in others if each.recognizes(path)), usual)
    except FileNotFoundError:
        raise FormatError(f"there is no file {path}") from None
    except OSError as error:
        raise FormatError(f"cannot read {path}: {error.strerror}") from error
