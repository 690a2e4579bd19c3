"""Owners on this machine: which ones files may be given to, and which account a name means."""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Callable
from typing import Final

from flistfs.tree.node import Access

FIRST_OWN_NUMBER = 2**32 - 2**16
"""From here on, numbers stand for accounts that a base knows by name only: no system assigns these."""

MAX_ID: Final = 2**32 - 2
"""The largest number of a user or group; the next one, -1 in 32 bits, means "none"."""

NOBODY: Final = 65534
"""The owner shown for an impossible number, as Linux does for one that does not fit."""

_MAX_DIGITS: Final = 10
_SET_ID: Final = stat.S_ISUID | stat.S_ISGID


class Owners:
    """The owners that this process may give files to: any for root, itself and its groups for others."""

    def __init__(self) -> None:
        self._is_root = os.geteuid() == 0
        self._groups = {os.getegid(), *os.getgroups()}
        self._known: dict[Access | None, tuple[int, int, bool]] = {None: (-1, -1, True)}

    def allowed(self, access: Access | None) -> tuple[int, int, bool]:
        """Return the ids to set (-1: leave as is), and whether they differ from those in the flist."""
        if access not in self._known:
            assert access is not None  # noqa: S101  for the type checker
            uid, gid = uid_of(access), gid_of(access)
            may_uid = uid is not None and (self._is_root or uid == os.geteuid())
            may_gid = gid is not None and (self._is_root or gid in self._groups)
            self._known[access] = (
                uid if may_uid and uid is not None else -1,
                gid if may_gid and gid is not None else -1,
                not (may_uid and may_gid),
            )
        return self._known[access]


def id_fault(access: Access) -> str | None:
    """Return why user or group are invalid; None if they are valid."""
    for kind, number in ("user", access.uid), ("group", access.gid):
        if _is_invalid(number):
            return f"its {kind} has the number {number}, which no account can have"
    return None


def shown_owner(access: Access | None, mode: int) -> tuple[int, int, int]:
    """Return the user, group and mode of an entry as a mount shows them.

    An account known by name only, and unknown on this machine, becomes root, and set-id bits are dropped:
    they would grant root's rights where another account's were meant. An invalid number becomes nobody.
    """
    if access is None:
        return 0, 0, mode & ~_SET_ID
    uid, gid = uid_of(access), gid_of(access)
    if uid is None or gid is None:
        mode &= ~_SET_ID
    return (
        (NOBODY if _is_invalid(access.uid) else 0) if uid is None else uid,
        (NOBODY if _is_invalid(access.gid) else 0) if gid is None else gid,
        mode,
    )


# Old flists have names only: root is 0, digits are a number, and others are looked up here, as tar does.


def uid_of(access: Access) -> int | None:
    """Return the number of the user; None for a name unknown on this machine, or an invalid number."""
    return _number(access.uid, access.user, lambda name: pwd.getpwnam(name).pw_uid)


def gid_of(access: Access) -> int | None:
    """Return the number of the group; None for a name unknown on this machine, or an invalid number."""
    return _number(access.gid, access.group, lambda name: grp.getgrnam(name).gr_gid)


def said_number(name: bytes) -> int | None:
    """Return the number that a name means on any machine: root's is 0; None if it is a name like others."""
    return 0 if name == b"root" else spelled_number(name)


def spelled_number(text: bytes) -> int | None:
    """Return the number of an account that is written in digits; None if it is not a possible one."""
    return int(text) if text.isdigit() and len(text) <= _MAX_DIGITS and int(text) <= MAX_ID else None


def _number(number: int | None, name: bytes, ask: Callable[[str], int]) -> int | None:
    if _is_invalid(number):
        return None
    if number is not None:
        return number
    if (said := said_number(name)) is not None:
        return said
    try:
        return ask(os.fsdecode(name))
    except (KeyError, ValueError):
        return None


def _is_invalid(number: int | None) -> bool:
    return number is not None and not 0 <= number <= MAX_ID
