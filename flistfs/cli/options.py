"""Options and arguments that several commands share."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click

from flistfs.authoring.request import PATIENCE
from flistfs.errors import UsageError
from flistfs.stores.url import named_store

json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")

mount_option = click.option(
    "--mount",
    "mountpoint",
    type=click.Path(path_type=Path, readable=False),  # it may be a dead mount
    metavar="MOUNTPOINT",
    help="Which session; needed only if there are several.",
)


class StorePlace(click.ParamType[str]):
    """A store: its URL, or the path of a router.yaml."""

    name = "store"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        """Make it a URL; click calls this."""
        return named_store(str(value))


store_option = click.option(
    "--store",
    type=StorePlace(),
    metavar="URL|FILE",
    envvar="FLISTFS_STORE",
    help="Where blocks go: ardb://[:password@]host[:port], redis://, rediss://, zdb://, redis+cluster:// or "
    "dir:///path; or a router.yaml of several servers. Default: $FLISTFS_STORE, else a directory of yours. A "
    "password may come from $FLISTFS_STORE_PASSWORD.",
)

min_replicas_option = click.option(
    "--min-replicas",
    type=click.IntRange(1, 9999),
    metavar="N",
    help="With a router: go on when N servers of a block took it. Default: all that its hash belongs to.",
)

router_option = click.option(
    "--router",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Put this router.yaml into the flist. Default: the store, if it is one that readers can use.",
)

public_url_option = click.option(
    "--public-url",
    metavar="URL",
    help="Let readers fetch blocks from here, where that differs from the store's URL.",
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
