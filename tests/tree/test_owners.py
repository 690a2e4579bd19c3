"""Owners: whose rights set-id bits lend, and who it is that no account can be."""

from __future__ import annotations

import pytest

from flistfs.tree.node import Access
from flistfs.tree.owners import MAX_ID, NOBODY, Owners, id_fault, shown_owner

MODE = 0o6755


def _access(uid: int | None, user: bytes, gid: int | None = 7, group: bytes = b"group") -> Access:
    return Access(0o100000 | MODE, user, group, uid, gid)


@pytest.mark.parametrize(
    ("access", "shown"),
    [
        (_access(1000, b"alice"), (1000, 7, MODE)),
        (_access(MAX_ID, b"alice"), (MAX_ID, 7, MODE)),
        (_access(None, b"root"), (0, 7, MODE)),
        (_access(None, b"1000"), (1000, 7, MODE)),
        (_access(None, b"nobody-of-that-name"), (0, 7, 0o755)),
        (_access(None, b""), (0, 7, 0o755)),
        (_access(None, b"4294967295"), (0, 7, 0o755)),
        (_access(0, b"root", None, b"nobody-of-that-name"), (0, 0, 0o755)),
        (_access(MAX_ID + 1, b"root"), (NOBODY, 7, 0o755)),
        (_access(2**32, b"root"), (NOBODY, 7, 0o755)),
        (_access(-2, b"root"), (NOBODY, 7, 0o755)),
        (_access(-(2**63), b"root"), (NOBODY, 7, 0o755)),
        (_access(0, b"root", 2**63 - 1, b"root"), (0, NOBODY, 0o755)),
        (None, (0, 0, 0o755)),
    ],
)
def test_no_set_id_bits_of_whom_nobody_knows(access: Access | None, shown: tuple[int, int, int]) -> None:
    assert shown_owner(access, MODE) == shown
    uid, gid, is_foreign = Owners().allowed(access)
    assert uid in {-1, shown[0]}
    assert gid in {-1, shown[1]}
    assert is_foreign or shown[2] == MODE


@pytest.mark.parametrize("number", [-2, MAX_ID + 1, 2**32, 2**63 - 1, -(2**63)])
def test_what_no_account_can_be_is_a_fault(number: int) -> None:
    assert id_fault(_access(number, b"")) == f"its user has the number {number}, which no account can have"
    fault = f"its group has the number {number}, which no account can have"
    assert id_fault(_access(0, b"", number)) == fault
    assert id_fault(_access(None, b"alice", MAX_ID)) is None
