"""Author and read Zero-OS flists. What a program may use is named here; `flistfs.api` has it.

That is loaded when a name is first used: whoever imports a part of the package need not wait for the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flistfs import errors
from flistfs.errors import FlistfsError

if TYPE_CHECKING:
    from flistfs.api.flists import Flist, open  # noqa: A004  flistfs.open, like gzip.open
    from flistfs.api.merging import merge
    from flistfs.api.packing import Packed, pack
    from flistfs.api.sessions import Session
    from flistfs.authoring.summaries import AddSummary, SealSummary
    from flistfs.reading.merge import Merged, PathsClashError
    from flistfs.tree.node import Kind, Node
    from flistfs.util.progress import Progress, Report

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
    # Where each name is, to be loaded when it is asked for.
    _HOMES = {
        "AddSummary": "flistfs.authoring.summaries",
        "Flist": "flistfs.api.flists",
        "Kind": "flistfs.tree.node",
        "Merged": "flistfs.reading.merge",
        "Node": "flistfs.tree.node",
        "Packed": "flistfs.api.packing",
        "PathsClashError": "flistfs.reading.merge",
        "Progress": "flistfs.util.progress",
        "Report": "flistfs.util.progress",
        "SealSummary": "flistfs.authoring.summaries",
        "Session": "flistfs.api.sessions",
        "merge": "flistfs.api.merging",
        "open": "flistfs.api.flists",
        "pack": "flistfs.api.packing",
    }

    def __getattr__(name: str) -> object:
        from importlib import import_module  # noqa: PLC0415

        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals().setdefault(name, getattr(import_module(_HOMES[name]), name))

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
