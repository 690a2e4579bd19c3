"""Options and arguments that several commands share."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from flistfs.authoring.request import PATIENCE
from flistfs.errors import UsageError

json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")

mount_option = click.option(
    "--mount",
    "mountpoint",
    type=click.Path(path_type=Path, readable=False),  # it may be a dead mount
    metavar="MOUNTPOINT",
    help="Which session; needed only if there are several.",
)

store_option = click.option(
    "--store",
    metavar="URL",
    envvar="FLISTFS_STORE",
    help="Where blocks go: ardb://[:password@]host[:port], redis://, rediss://, zdb:// or dir:///path. "
    "Default: $FLISTFS_STORE, else a directory of yours. A password may come from $FLISTFS_STORE_PASSWORD.",
)


timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=PATIENCE,
    show_default=True,
    metavar="SECONDS",
    help="Give up when the store takes nothing for so long.",
)


class Size(click.ParamType[int]):
    """A number of bytes, with K, M, G or T for the powers of 1024."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it; click calls this."""
        match = re.fullmatch(r"(\d{1,15})([KMGT]?)(i?B)?", str(value), re.IGNORECASE | re.ASCII)
        if match is None:
            self.fail(f"{value!r} is no size; write it like 512M or 4G", param, ctx)
        return int(match[1]) << (10 * " KMGT".index(match[2].upper() or " "))


def source_date_epoch() -> int | None:
    """Return SOURCE_DATE_EPOCH from the environment, or None where it is not set.

    Raises:
        UsageError: it is no number of seconds.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise UsageError(f"SOURCE_DATE_EPOCH is {text[:30]!r}; it must be whole seconds since 1970")
    return int(text)
