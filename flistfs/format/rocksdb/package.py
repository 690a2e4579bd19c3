"""Packages of a RocksDB catalog."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO, Final

from flistfs.format.zeroos import package
from flistfs.format.zeroos.package import Members

_PACKED: Final = r"CURRENT|MANIFEST-\d+|\d+\.sst|router\.yaml"

# Of a database only these belong in a package: an OPTIONS file of a newer RocksDB makes older tools fail. Old
# packages have records in a log. What else they carry is of no use for reading, and some of it would be
# obeyed: rocksdict takes its options from a file in the directory.
MEMBERS: Final = Members(
    needed="CURRENT",
    packed=re.compile(_PACKED),
    taken=re.compile(_PACKED + r"|\d+\.log"),
    pending=re.compile(r"\d+\.log"),
)
"""The files that a package has."""


def write_package(directory: Path, out: BinaryIO) -> None:
    """Write the catalog in a directory as a package; see `zeroos.package`."""
    package.write_package(directory, MEMBERS, out)


def unpack_package(packed: Path, directory: Path, *, limit: int | None = None) -> list[str]:
    """Unpack a package into a directory; see `zeroos.package`."""
    return package.unpack_package(packed, directory, MEMBERS, limit=limit)


def link_package(unpacked: Path, directory: Path) -> None:
    """Link an unpacked package into a directory; see `zeroos.package`."""
    package.link_package(unpacked, directory, MEMBERS)
