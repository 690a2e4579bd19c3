"""What can go wrong in a way that a user can understand.

Every error that is meant for the user derives from `FlistfsError`. Its text is one line that says what is
wrong and what to do about it; its `exit_code` is what the command ends with. Any other exception that
reaches the top is a bug in flistfs (exit code 1). docs/commands.md lists the codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar


class FlistfsError(Exception):
    """Base of all errors shown to the user as one line on stderr."""

    exit_code: ClassVar[int] = 1


class UsageError(FlistfsError):
    """The command line or the environment asks for something that makes no sense."""

    exit_code = 2


class StoreError(FlistfsError):
    """The block store cannot be used."""

    exit_code = 3


class StoreUnavailableError(StoreError):
    """The store does not answer now; the same request may work later."""


class StoreRefusedError(StoreError):
    """The store answers with a refusal that waiting does not heal: wrong password, read-only, full."""


class BlockMissingError(StoreError):
    """The store does not hold a block that it should hold."""

    exit_code = 7


class MountError(FlistfsError):
    """The file system cannot be mounted or unmounted."""

    exit_code = 4


class SessionError(FlistfsError):
    """There is no such session, more than one, or it is in the wrong state for this."""

    exit_code = 5


class JournalError(SessionError):
    """A session's journal is damaged or of an unknown version."""


class BusyError(FlistfsError):
    """The mount is still in use, so it can't be sealed or unmounted."""

    exit_code = 6


class FormatError(FlistfsError):
    """A package, catalog, record or block is not what it should be."""

    exit_code = 8


class BlockCorruptError(FormatError):
    """A block's bytes do not match its hash or its key."""


class OutputError(FlistfsError):
    """The output exists, or cannot be written."""

    exit_code = 9


class FaultsError(FlistfsError):
    """An flist has faults, or the store lacks blocks of it; what they are was said before."""

    exit_code = 10


class SourceError(FlistfsError):
    """What is to be put into a tree cannot be read, changed while it was read, or makes no sense."""

    exit_code = 11


class NoPlaceError(SourceError):
    """Entries have no place in a tree, and nothing was added.

    `no_place` says which and why, up to a number, and `count` counts them all.
    """

    def __init__(self, message: str, no_place: Sequence[tuple[str, str]], count: int) -> None:
        super().__init__(message)
        self.no_place = no_place
        self.count = count

    def as_dict(self) -> dict[str, Any]:
        """Return the entries as plain data."""
        return {
            "no_place": [{"path": path, "why": why} for path, why in self.no_place],
            "count": self.count,
        }


class ClashError(FlistfsError):
    """Flists that are to become one have the same path, or a link against a directory."""

    exit_code = 12


class InterruptedByUserError(FlistfsError):
    """The user pressed Ctrl-C."""

    exit_code = 130
