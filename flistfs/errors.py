"""Errors reported to the user.

They all derive from `FlistfsError`. The text of one is a line that says what is wrong and what to do; its
`exit_code` is what the command ends with, and its `code` names it for programs. Any other exception that
reaches the top is a bug in flistfs (exit code 1). docs/commands.md lists the exit codes, docs/json.md the
codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

# How many of an flist's faults are shown as lines; JSON has them all.
_SHOWN_FAULTS: Final = 20


class FlistfsError(Exception):
    """Base of all errors shown to the user as one line on stderr."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "error"
    """What is wrong, in a word for programs; it never changes."""

    def __init__(self, message: str = "", *, paths: Sequence[str] = (), count: int | None = None) -> None:
        """Make one with its line for the user.

        Args:
            message: The line.
            paths: The paths that it is about, for programs; as many of them as are worth listing.
            count: How many there are, if that is not all of them.
        """
        super().__init__(message)
        self.paths = [*paths]
        self.count = len(self.paths) if count is None else count

    @property
    def details(self) -> Sequence[str]:
        """Lines that the user sees before the line."""
        return ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "code": self.code,
            "exit_code": self.exit_code,
            "message": str(self),
            "paths": [{"path": path} for path in self.paths],
            "count": self.count,
        }


class UsageError(FlistfsError):
    """The command line, an argument or the environment is invalid."""

    exit_code = 2
    code = "usage"


class StoreError(FlistfsError):
    """The block store cannot be used."""

    exit_code = 3
    code = "store"


class StoreUnavailableError(StoreError):
    """The store does not answer now; the same request may work later."""

    code = "store-unavailable"


class StoreRefusedError(StoreError):
    """The store answers with a refusal that waiting does not heal: wrong password, read-only, full."""

    code = "store-refused"


class BlockMissingError(StoreError):
    """The store does not hold a block that it should hold."""

    exit_code = 7
    code = "block-missing"


class MountError(FlistfsError):
    """The file system cannot be mounted or unmounted."""

    exit_code = 4
    code = "mount"


class SessionError(FlistfsError):
    """There is no such session, more than one, or it is in the wrong state for this."""

    exit_code = 5
    code = "session"


class JournalError(SessionError):
    """A session's journal is damaged or of an unknown version."""

    code = "journal"


class BusyError(FlistfsError):
    """The mount is still in use, so it can't be sealed or unmounted."""

    exit_code = 6
    code = "busy"


class FormatError(FlistfsError):
    """A package, catalog, record or block is not what it should be."""

    exit_code = 8
    code = "format"


class BlockCorruptError(FormatError):
    """A block's bytes do not match its hash or its key."""

    code = "block-corrupt"


class OutputError(FlistfsError):
    """The output exists, or cannot be written."""

    exit_code = 9
    code = "output"


class FaultsError(FlistfsError):
    """An flist has faults, or the store lacks blocks of it; what they are was said before.

    Or reading went past what another program lost: `found` says at which paths, and what readers make of it.
    """

    exit_code = 10
    code = "faults"

    def __init__(self, message: str, found: Sequence[tuple[str, str]] = (), count: int | None = None) -> None:
        super().__init__(message, paths=[path for path, _ in found], count=count)
        self.found = found

    @property
    def details(self) -> Sequence[str]:
        """Return a line for each, up to a number."""
        lines = [f"{path or '/'}: {why}" for path, why in self.found[:_SHOWN_FAULTS]]
        more = self.count - len(lines)
        return [*lines, f"… and {more:,} more (flistfs verify --no-store lists them)"] if more else lines

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object, each path with what is wrong there."""
        return {**super().as_dict(), "paths": _explained(self.found)}


class SourceError(FlistfsError):
    """A source to add cannot be read, changed while it was read, or is invalid."""

    exit_code = 11
    code = "source"


class NoPlaceError(SourceError):
    """Entries have no place in a tree, and nothing was added.

    `no_place` says which and why, up to a number, and `count` counts them all.
    """

    code = "no-place"

    def __init__(self, message: str, no_place: Sequence[tuple[str, str]], count: int) -> None:
        super().__init__(message, paths=[path for path, _ in no_place], count=count)
        self.no_place = no_place

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object, each path with the reason."""
        return {**super().as_dict(), "paths": _explained(self.no_place)}


class ClashError(FlistfsError):
    """Flists that are to become one have the same path, or a link against a directory."""

    exit_code = 12
    code = "clash"


class HubClientError(FlistfsError):
    """A hub cannot be used."""

    exit_code = 13
    code = "hub"


class HubUnavailableError(HubClientError):
    """The hub does not answer now; the same request may work later."""

    code = "hub-unavailable"


class HubRefusedError(HubClientError):
    """The hub answers, and does not do it: no such flist, no rights, something in the way."""

    code = "hub-refused"


class InterruptedByUserError(FlistfsError):
    """The user pressed Ctrl-C."""

    exit_code = 130
    code = "interrupted"


class InternalError(FlistfsError):
    """A bug in flistfs."""

    code = "bug"


def _explained(found: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"path": path, "why": why} for path, why in found]


def error_class(code: str | None, exit_code: int) -> type[FlistfsError]:
    """Return the most general class of errors with a code; without one, with an exit code."""
    waiting = [FlistfsError]
    for each in waiting:
        if each.code == code or (code is None and each.exit_code == exit_code):
            return each
        waiting.extend(each.__subclasses__())
    return FlistfsError
