"""Author and read Zero-OS flists. What a program may use is named here; `flistfs.api` has it.

It is loaded when a name is first used, so that importing a part of the package does not load the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flistfs import errors
from flistfs.errors import FlistfsError

if TYPE_CHECKING:
    from flistfs.api.by_mountpoint import Found, Started, abort, add, new, seal, sync
    from flistfs.api.checking import Verified, verify
    from flistfs.api.comparing import Difference, diff
    from flistfs.api.configuring import MetadataChange, configure
    from flistfs.api.converting import Converted, convert
    from flistfs.api.extracting import Extracted, extract
    from flistfs.api.flists import Flist, open  # noqa: A004  flistfs.open, like gzip.open
    from flistfs.api.merging import merge
    from flistfs.api.mounting import mount, mount_sealed, unmount
    from flistfs.api.packing import Packed, pack
    from flistfs.api.publishing import HubClient, Published, open_hub, publish
    from flistfs.api.pushing import push
    from flistfs.api.routing import Routed, route
    from flistfs.api.sessions import Session
    from flistfs.api.status import Activity, Holdings, SessionStatus, status
    from flistfs.api.waiting import wait
    from flistfs.authoring.summaries import AddSummary, BaseSummary, LeftOut, SealSummary
    from flistfs.daemons.starting import Mounted, MountedFlist
    from flistfs.reading.merge import Merged, PathsClashError
    from flistfs.reading.push import PushSummary
    from flistfs.reading.survey import Survey
    from flistfs.tree.node import Access, Kind, Node
    from flistfs.util.progress import Progress, Report

    __version__: str

__all__ = [
    "Access",
    "Activity",
    "AddSummary",
    "BaseSummary",
    "Converted",
    "Difference",
    "Extracted",
    "Flist",
    "FlistfsError",
    "Found",
    "Holdings",
    "HubClient",
    "Kind",
    "LeftOut",
    "Merged",
    "MetadataChange",
    "Mounted",
    "MountedFlist",
    "Node",
    "Packed",
    "PathsClashError",
    "Progress",
    "Published",
    "PushSummary",
    "Report",
    "Routed",
    "SealSummary",
    "Session",
    "SessionStatus",
    "Started",
    "Survey",
    "Verified",
    "__version__",
    "abort",
    "add",
    "configure",
    "convert",
    "diff",
    "errors",
    "extract",
    "merge",
    "mount",
    "mount_sealed",
    "new",
    "open",
    "open_hub",
    "pack",
    "publish",
    "push",
    "route",
    "seal",
    "status",
    "sync",
    "unmount",
    "verify",
    "wait",
]

if not TYPE_CHECKING:  # a type checker knows the names, and is to refuse any other
    # The module of each name, to be loaded when it is asked for.
    _NAMES = {
        "flistfs.api.by_mountpoint": "Found Started abort add new seal sync",
        "flistfs.api.checking": "Verified verify",
        "flistfs.api.comparing": "Difference diff",
        "flistfs.api.configuring": "MetadataChange configure",
        "flistfs.api.converting": "Converted convert",
        "flistfs.api.extracting": "Extracted extract",
        "flistfs.api.flists": "Flist open",
        "flistfs.api.merging": "merge",
        "flistfs.api.mounting": "mount mount_sealed unmount",
        "flistfs.api.packing": "Packed pack",
        "flistfs.api.publishing": "HubClient Published open_hub publish",
        "flistfs.api.pushing": "push",
        "flistfs.api.routing": "Routed route",
        "flistfs.api.sessions": "Session",
        "flistfs.api.status": "Activity Holdings SessionStatus status",
        "flistfs.api.waiting": "wait",
        "flistfs.authoring.summaries": "AddSummary BaseSummary LeftOut SealSummary",
        "flistfs.daemons.starting": "Mounted MountedFlist",
        "flistfs.reading.merge": "Merged PathsClashError",
        "flistfs.reading.push": "PushSummary",
        "flistfs.reading.survey": "Survey",
        "flistfs.tree.node": "Access Kind Node",
        "flistfs.util.progress": "Progress Report",
    }

    def __getattr__(name: str) -> object:
        from importlib import import_module, metadata  # noqa: PLC0415

        if name == "__version__":
            return globals().setdefault(name, metadata.version("flistfs"))
        for module, names in _NAMES.items():
            if name in names.split():
                return globals().setdefault(name, getattr(import_module(module), name))
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
