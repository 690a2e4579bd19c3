"""Author and read Zero-OS flists. What a program may use is named here; `flistfs.api` has it.

That is loaded when a name is first used: whoever imports a part of the package need not wait for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flistfs import errors
from flistfs.errors import FlistfsError

if TYPE_CHECKING:
    from flistfs.api import (
        AddSummary,
        Flist,
        Kind,
        Merged,
        Node,
        Packed,
        PathsClashError,
        Progress,
        Report,
        SealSummary,
        Session,
        merge,
        open,  # noqa: A004  flistfs.open, like gzip.open
        pack,
    )

__all__ = [
    "AddSummary",
    "Flist",
    "FlistfsError",
    "Kind",
    "Merged",
    "Node",
    "Packed",
    "PathsClashError",
    "Progress",
    "Report",
    "SealSummary",
    "Session",
    "errors",
    "merge",
    "open",
    "pack",
]

if not TYPE_CHECKING:  # a type checker knows the names, and is to refuse any other

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from flistfs import api  # noqa: PLC0415

        return globals().setdefault(name, getattr(api, name))

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
