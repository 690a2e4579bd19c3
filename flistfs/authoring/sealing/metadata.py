"""What an flist says besides its tree, and of how it is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from flistfs.authoring.request import SealRequest
from flistfs.errors import UsageError
from flistfs.format.base import Format
from flistfs.format.metadata import WORKING_DIRECTORY, MetadataChange, entrypoint_of, environ_of
from flistfs.format.router import parse_router
from flistfs.stores.readers import check_readable


@dataclass(frozen=True, slots=True)
class Startup:
    """The command that starts an flist, its environment, and the directory that it starts in."""

    entrypoint: tuple[str, ...]
    environ: Mapping[str, str]
    directory: str = "/"


def metadata_of(
    format_: Format, request: SealRequest, base: Mapping[str, bytes]
) -> tuple[dict[str, bytes], Startup | None]:
    """Return the metadata of an flist that has that of its base, and what its tree is to say of its start.

    Raises:
        FormatError: that of the base has another shape than the request needs.
        UsageError: the format has no place for it, or for where blocks are, or there is nothing to start.
    """
    if request.router is not None:
        check_readable(parse_router(request.router.encode()), format_)
    if not format_.has_metadata:
        _check_placeless(format_, request.metadata, startup=request.startup)
    changed = request.metadata.applied(base)
    startup = None
    if request.startup:
        directory = changed.get(WORKING_DIRECTORY, b"").decode(errors="replace") or "/"
        startup = Startup(tuple(entrypoint_of(changed)), environ_of(changed), directory)
        if not startup.entrypoint:
            raise UsageError("`startup` says what is to be started: name it with `entrypoint`")
    return changed if format_.has_metadata else {}, startup


def _check_placeless(format_: Format, change: MetadataChange, *, startup: bool) -> None:
    """Check that nothing needs a place that the format lacks: what starts the flist may go into its tree."""
    left = replace(change, entrypoint=None, environ={}) if startup else change
    if left:
        raise UsageError(
            f"an flist of the format {format_.name} has no place for metadata: choose the `format` sqlite "
            "when the session starts (`startup` puts `entrypoint` and `environ` into its tree)"
        )
