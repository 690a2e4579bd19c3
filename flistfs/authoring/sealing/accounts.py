"""The names of the users and groups that own a tree."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from flistfs.authoring.parts import Parts
from flistfs.authoring.sealing.survey import Owner
from flistfs.authoring.state.change import Change
from flistfs.authoring.state.records import ROOT_INO, Inode
from flistfs.authoring.state.view import View
from flistfs.errors import (
    BlockCorruptError,
    StoreUnavailableError,
)
from flistfs.tree.node import Access
from flistfs.tree.owners import spelled_number

# At most this many bytes of the tree's own account files are read.
MAX_ACCOUNTS_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Accounts:
    """The names of users and groups, by number.

    `named_users` and `named_groups` are those that a base knows by name only: they are sealed by name only.
    """

    users: Mapping[int, bytes]
    groups: Mapping[int, bytes]
    named_users: Mapping[int, bytes] = field(default_factory=dict)
    named_groups: Mapping[int, bytes] = field(default_factory=dict)

    @classmethod
    def parse(cls, passwd: bytes, group: bytes) -> Accounts:
        """Read the tree's etc/passwd and etc/group; lines that are not accounts are skipped."""
        return cls(_names(passwd), _names(group))

    def access(self, owner: Owner) -> Access:
        """Return owner and mode as recorded in the flist."""
        (user, uid), (group, gid) = self.user(owner.uid), self.group(owner.gid)
        return Access(owner.mode, user, group, uid, gid)

    def user(self, uid: int) -> tuple[bytes, int | None]:
        """Return a user's name and number in the flist."""
        return _account(uid, self.users, self.named_users)

    def group(self, gid: int) -> tuple[bytes, int | None]:
        """Return a group's name and number in the flist."""
        return _account(gid, self.groups, self.named_groups)


def _account(number: int, names: Mapping[int, bytes], named: Mapping[int, bytes]) -> tuple[bytes, int | None]:
    if number in named:
        return named[number], None
    return names.get(number, b"%d" % number), number


def _names(text: bytes) -> dict[int, bytes]:
    names: dict[int, bytes] = {}
    for line in text.splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and fields[0] and (number := spelled_number(fields[2])) is not None:
            names.setdefault(number, fields[0])
    return {0: b"root", **names}


# The journal's setting with the accounts that the base knows by name only: users, then groups.
_NAMED = b"named"


def note_named(change: Change, users: Mapping[int, bytes], groups: Mapping[int, bytes]) -> None:
    """Record the accounts that the base of a session knows by name only."""
    named = [_as_pairs(users), _as_pairs(groups)]
    change.put_setting(_NAMED, json.dumps(named).encode())


async def accounts_of(parts: Parts) -> Accounts:
    """Read the accounts from the tree that is being sealed and from its base, never from this host."""
    accounts = Accounts.parse(await _small_file(parts, b"etc/passwd"), await _small_file(parts, b"etc/group"))
    users, groups = map(_of_pairs, json.loads(parts.journal.setting(_NAMED) or b"[[], []]"))
    return replace(accounts, named_users=users, named_groups=groups)


async def _small_file(parts: Parts, path: bytes) -> bytes:
    inode = _find_inode(parts.journal, path)
    if inode is None or not stat.S_ISREG(inode.mode):
        return b""
    try:
        return await parts.content.read(inode.ino, 0, MAX_ACCOUNTS_SIZE)
    except OSError as error:
        failed = f"{os.fsdecode(path)} of the tree cannot be read"
        if isinstance(error.__cause__, BlockCorruptError):  # waiting does not cure it
            raise BlockCorruptError(f"{failed}: {error.__cause__}; write it again") from error
        raise StoreUnavailableError(f"{failed}: {error.__cause__ or error.strerror}") from error


def _find_inode(view: View, path: bytes) -> Inode | None:
    """Return the inode of a path in a tree, without following links; None if there is none."""
    ino = ROOT_INO
    for name in path.split(b"/"):
        entry = view.child(ino, name)
        if entry is None:
            return None
        ino = entry.ino
    return view.inode(ino)


def _as_pairs(names: Mapping[int, bytes]) -> list[tuple[int, str]]:
    return [(number, os.fsdecode(name)) for number, name in names.items()]


def _of_pairs(pairs: Iterable[tuple[int, str]]) -> dict[int, bytes]:
    return {number: os.fsencode(name) for number, name in pairs}
