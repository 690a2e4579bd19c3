"""Names of users and groups for the numbers that own a tree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flistfs.authoring.sealing.survey import Owner
from flistfs.tree.node import Access

# The tree's own account files are read up to this many bytes.
MAX_ACCOUNTS_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Accounts:
    """The names of users and groups, by number.

    `named_users` and `named_groups` are those that a base knows by name alone: so are they sealed.
    """

    users: Mapping[int, bytes]
    groups: Mapping[int, bytes]
    named_users: Mapping[int, bytes] = field(default_factory=dict)
    named_groups: Mapping[int, bytes] = field(default_factory=dict)

    @classmethod
    def parse(cls, passwd: bytes, group: bytes) -> Accounts:
        """Read the tree's etc/passwd and etc/group; what is no account in them is passed over."""
        return cls(_names(passwd), _names(group))

    def access(self, owner: Owner) -> Access:
        """Return owner and mode as the flist is to have them."""
        (user, uid), (group, gid) = self.user(owner.uid), self.group(owner.gid)
        return Access(owner.mode, user, group, uid, gid)

    def user(self, uid: int) -> tuple[bytes, int | None]:
        """Return the name and number that a user has in the flist."""
        return _account(uid, self.users, self.named_users)

    def group(self, gid: int) -> tuple[bytes, int | None]:
        """Return the name and number that a group has in the flist."""
        return _account(gid, self.groups, self.named_groups)


def _account(number: int, names: Mapping[int, bytes], named: Mapping[int, bytes]) -> tuple[bytes, int | None]:
    if number in named:
        return named[number], None
    return names.get(number, b"%d" % number), number


def _names(text: bytes) -> dict[int, bytes]:
    names: dict[int, bytes] = {}
    for line in text.splitlines():
        fields = line.split(b":")
        if len(fields) > 2 and fields[0] and fields[2].isdigit() and len(fields[2]) <= 10:
            names.setdefault(int(fields[2]), fields[0])
    return {0: b"root", **names}
