"""Make a changed package of a sealed flist: what it says besides its tree. Records and blocks stay."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from flistfs.errors import FormatError, OutputError
from flistfs.format.metadata import MetadataChange
from flistfs.format.opening import format_of
from flistfs.format.router import Router
from flistfs.util.output_file import OutputFile
from flistfs.util.scratch import Scratch


def rewrite(package: Path, out: Path, router: Router | None, change: MetadataChange, *, force: bool) -> None:
    """Write a changed flist; the output exists whole or not at all.

    Args:
        package: The flist.
        out: The changed one; it may be the same file, which is then replaced.
        router: Where its blocks are from now on; None leaves what it says of that.
        change: Of its metadata.
        force: Whether another file that exists is replaced.

    Raises:
        FormatError: the flist is not there or damaged, or its metadata has another shape than the change
            needs.
        OutputError: the output exists or cannot be written.
        UsageError: its metadata would be too large.
    """
    format_ = format_of(package)
    force = force or is_same(package, out)
    try:
        with OutputFile(out, force=force) as output, Scratch() as scratch:
            output.write(partial(format_.rewrite, package, scratch.path, router, change))
            output.publish()
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}") from error


def is_same(package: Path, out: Path) -> bool:
    """Return whether a changed flist takes the place of its package.

    Raises:
        FormatError: that cannot be told.
    """
    try:
        return package.is_file() and package.samefile(out)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise FormatError(f"cannot read {package}: {error.strerror}") from error
