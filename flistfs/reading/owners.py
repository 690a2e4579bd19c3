"""Who may own what this process makes, and who that is on this machine."""

from __future__ import annotations

import grp
import os
import pwd

from flistfs.format.records import Aci


class Owners:
    """Root gives to all, others to themselves and to their groups."""

    def __init__(self) -> None:
        self._is_root = os.geteuid() == 0
        self._groups = {os.getegid(), *os.getgroups()}
        self._known: dict[Aci | None, tuple[int, int, bool]] = {None: (-1, -1, True)}

    def allowed(self, aci: Aci | None) -> tuple[int, int, bool]:
        """Return the ids to give (-1: none), and whether they are others than the flist says."""
        if aci not in self._known:
            assert aci is not None  # noqa: S101  the type checker's
            uid, gid = uid_of(aci), gid_of(aci)
            may_uid = uid is not None and (self._is_root or uid == os.geteuid())
            may_gid = gid is not None and (self._is_root or gid in self._groups)
            self._known[aci] = (
                uid if may_uid and uid is not None else -1,
                gid if may_gid and gid is not None else -1,
                not (may_uid and may_gid),
            )
        return self._known[aci]


# Old flists have names only: root is 0, a number is one, and for the rest this machine is asked, as tar does.


def uid_of(aci: Aci) -> int | None:
    """Return the number of the user; None for a name that nobody has here."""
    if aci.uid >= 0:
        return aci.uid
    name = aci.uname
    if (number := _number_of(name)) is not None:
        return number
    try:
        return pwd.getpwnam(os.fsdecode(name)).pw_uid
    except (KeyError, ValueError):
        return None


def gid_of(aci: Aci) -> int | None:
    """Return the number of the group; None for a name that no group has here."""
    if aci.gid >= 0:
        return aci.gid
    name = aci.gname
    if (number := _number_of(name)) is not None:
        return number
    try:
        return grp.getgrnam(os.fsdecode(name)).gr_gid
    except (KeyError, ValueError):
        return None


def _number_of(name: bytes) -> int | None:
    if name == b"root":
        return 0
    return int(name) if name.isdigit() and len(name) < 10 else None
