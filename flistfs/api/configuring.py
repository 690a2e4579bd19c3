"""What an flist says besides its tree: how it is started, and what is said about it."""

from __future__ import annotations

import re
from pathlib import Path

from flistfs.api.arguments import AnyPath, flist_path, output_path
from flistfs.errors import UsageError
from flistfs.format.metadata import BACKEND, KNOWN, MetadataChange
from flistfs.hub.copies import is_copy

__all__ = ["MetadataChange", "configure"]

_PORT = re.compile(r"(tcp|udp)/(\d{1,5})", re.ASCII)
_PORTS = range(1, 1 << 16)


def configure(
    package: AnyPath, change: MetadataChange, *, out: AnyPath | None = None, force: bool = False
) -> None:
    """Change the metadata of a sealed flist. Its tree and blocks stay as they are.

    Args:
        package: The flist.
        change: What is to be changed.
        out: The changed flist; it exists whole or not at all. Default: it takes the place of `package`.
        force: Replace `out` if it exists.

    Raises:
        FormatError: the flist is not there or damaged, or its metadata has another shape.
        OutputError: the output exists or cannot be written.
        UsageError: its format has no place for metadata, or a value is invalid.
    """
    from flistfs.format.opening import format_of  # noqa: PLC0415  who seals need not wait for it
    from flistfs.reading.config import rewrite  # noqa: PLC0415
    from flistfs.reading.flist import Flist  # noqa: PLC0415

    checked_metadata(change)
    source = flist_path(package)
    format_ = format_of(source)
    if not format_.has_metadata:
        raise UsageError(
            f"{source} has the format {format_.name}, which has no place for metadata; sqlite has one"
        )
    if change.unset:
        with Flist.open(source) as flist:
            if missing := [key for key in change.unset if key not in flist.metadata]:
                raise UsageError(f"{source} has no metadata {missing[0]!r}")
    rewrite(source, changed_path(source, out), None, change, force=force)


def changed_path(package: AnyPath, out: AnyPath | None) -> Path:
    """Return where a changed flist goes.

    Raises:
        UsageError: it would take the place of a directory.
    """
    source = flist_path(package)
    if out is None and is_copy(source):
        raise UsageError(f"{source.name} is a copy of what lies elsewhere; name the changed one with `out`")
    if out is None and source.is_dir():
        raise UsageError(f"{source} is an unpacked flist; name the changed one with `out`")
    return output_path(source if out is None else out)


def checked_metadata(change: MetadataChange) -> MetadataChange:
    """Check values of metadata.

    Raises:
        UsageError: one is invalid, or belongs to something else.
    """
    for key in change.free:
        if key in KNOWN - {BACKEND}:
            raise UsageError(f"the metadata {key!r} has an option of its own, which gives it its shape")
    if BACKEND in {*change.free, *change.unset}:
        raise UsageError("the metadata 'backend' says where blocks are: flistfs route changes that")
    for name in change.environ:
        if "=" in name or not name:
            raise UsageError(f"{name!r} is no name of an environment variable")
    for port, outside in change.ports.items():
        match = _PORT.fullmatch(port)
        if match is None or int(match[2]) not in _PORTS or outside not in _PORTS:
            raise UsageError(f"the port {port}:{outside} is invalid; ports are tcp/1 to udp/65535")
    for path, host in change.volumes.items():
        if not path.startswith("/") or not (host is None or host.startswith("/")):
            raise UsageError(f"the volume {path} is invalid; both of its paths are absolute")
    _check_texts(change)
    return change


def _check_texts(change: MetadataChange) -> None:
    texts = [*(change.entrypoint or ()), change.readme or ""]
    for pairs in (change.environ, change.volumes, change.free):
        texts += [text for pair in pairs.items() for text in pair if text is not None]
    for text in texts:
        if "\0" in text or _has_surrogates(text):
            raise UsageError(f"{text[:40]!r} is no text (UTF-8) that metadata can hold")


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
