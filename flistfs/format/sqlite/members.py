"""The files of a package of generation 2."""

from __future__ import annotations

import re
from typing import Final

from flistfs.format.zeroos.package import Members

MEMBERS: Final = Members(
    needed="flistdb.sqlite3",
    packed=re.compile(r"flistdb\.sqlite3|router\.yaml"),
    # Beside an unpacked one there may be what it lacks: that is refused, and so must not be lost on the way.
    taken=re.compile(r"flistdb\.sqlite3(-wal|-journal)?|router\.yaml"),
    pending=re.compile(r"flistdb\.sqlite3-(wal|journal)"),
)
"""The files that a package has."""
