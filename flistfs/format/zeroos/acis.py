"""The ACIs of one tree: owner and mode as records, with their keys."""

from __future__ import annotations

import stat
from collections.abc import Hashable, Iterable, Iterator
from typing import cast

from flistfs.errors import FormatError
from flistfs.format.zeroos.keys import Keys
from flistfs.format.zeroos.records import NO_ID, Aci, Right, encode_aci
from flistfs.tree.node import Access


class AciTable:
    """Maps the accesses of a tree to its ACIs.

    An ACI's usual key covers neither ids nor all bits of the mode (a directory of 0777 shares it with one of
    01777), so all but the first of those that would share a key get one of their own. The order of the
    accesses decides which is first, so that equal trees have equal ACIs; it is the one without set-id and
    sticky bits. The file type does not need a separate key: readers take it from the entry.
    """

    def __init__(self, accesses: Iterable[Access], keys: Keys) -> None:
        """Assign keys to all accesses of a tree.

        Raises:
            FormatError: two differ in a way that no key covers.
        """
        self._acis: dict[bytes, Aci] = {}
        self._keys: dict[Access, bytes] = {}
        for access in sorted(set(accesses), key=_order):
            aci = aci_of(access, typed=keys.typed)
            key = keys.aci(aci)
            if not _are_alike(self._acis.setdefault(key, aci), aci):
                key = keys.distinct_aci(aci)
                if self._acis.setdefault(key, aci) != aci:
                    raise FormatError("two ACIs differ only in their rights, and cannot be in one flist")
            self._keys[access] = key

    def key(self, access: Access) -> bytes:
        """Return the key of an access that was passed to the constructor."""
        return self._keys[access]

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all records, in the order of their keys."""
        for key in sorted(self._acis):
            yield key, encode_aci(self._acis[key])


def aci_of(access: Access, *, typed: bool) -> Aci:
    """Return an access as a record has it, with the file type in its mode if that is `typed`."""
    uid, gid = (NO_ID if number is None else number for number in (access.uid, access.gid))
    number, rights = cast("tuple[int, tuple[tuple[bytes, int], ...]]", access.extra or (0, ()))
    return Aci(
        uname=access.user,
        gname=access.group,
        mode=access.mode if typed else stat.S_IMODE(access.mode),
        rights=tuple(Right(right, group) for right, group in rights),
        id=number,
        uid=uid,
        gid=gid,
    )


def access_of(aci: Aci) -> Access:
    """Return the access of an ACI."""
    uid, gid = (None if number == NO_ID else number for number in (aci.uid, aci.gid))
    rights = tuple((right.right, right.usergroupid) for right in aci.rights)
    extra: tuple[Hashable, ...] = (aci.id, rights) if aci.id or rights else ()
    return Access(aci.mode, aci.uname, aci.gname, uid, gid, extra)


def _order(access: Access) -> tuple[object, ...]:
    # Fields that no known writer uses come last: they make the order deterministic.
    numbers = [NO_ID if number is None else number for number in (access.uid, access.gid)]
    return access.mode & 0o7000, *numbers, access.mode, access.user, access.group, access.extra


def _are_alike(one: Aci, other: Aci) -> bool:
    return _without_type(one) == _without_type(other)


def _without_type(aci: Aci) -> tuple[object, ...]:
    return aci.uname, aci.gname, stat.S_IMODE(aci.mode), aci.rights, aci.id, aci.uid, aci.gid
