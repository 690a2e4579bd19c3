"""Options and arguments that several commands share."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import click

from flistfs.api.arguments import flist_path
from flistfs.api.format_names import FORMATS
from flistfs.api.store_names import STORE_TIMEOUT, named_store
from flistfs.errors import UsageError
from flistfs.tree.owners import MAX_ID

# A path that the command itself opens: click would call one that may not be read a usage error.
any_path: click.Path = click.Path(path_type=Path, readable=False)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")

mount_option = click.option(
    "--mount",
    "mountpoint",
    type=any_path,  # it may be a dead mount
    metavar="MOUNTPOINT",
    help="Which session; needed only if there are several.",
)


class StorePlace(click.ParamType[str]):
    """A store: its URL, or the path of a router.yaml."""

    name = "store"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ARG002
        """Make it a URL; click calls this."""
        return named_store(str(value))


class RepairPlace(click.ParamType[str | Path]):
    """Where right blocks are: a store, or a directory of files."""

    name = "place"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,  # noqa: ARG002  click calls this
        ctx: click.Context | None,  # noqa: ARG002
    ) -> str | Path:
        """Make a store a URL, and a directory a path."""
        text = str(value)
        # os.path takes names of any length.
        if "://" in text or os.path.isfile(text):  # noqa: PTH113
            return named_store(text)
        if not os.path.isdir(text):  # noqa: PTH112  not repeated: it may be a misspelt URL with a password
            raise UsageError(
                "there is no such directory or file to repair from, and no URL either: a URL looks like "
                "ardb://host:16379, redis://host:6379 or dir:///absolute/path"
            )
        return Path(text)


class FlistPlace(click.ParamType[Path]):
    """An flist: a package, a directory that one was unpacked into, or the URL of one."""

    name = "flist"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Path:  # noqa: ARG002
        """Make it a path, of a copy if it is a URL; click calls this."""
        return value if isinstance(value, Path) else flist_path(str(value))


flist_place = FlistPlace()

store_option = click.option(
    "--store",
    type=StorePlace(),
    metavar="URL|FILE",
    envvar="FLISTFS_STORE",
    help="Where blocks go: ardb://[:password@]host[:port], redis://, rediss://, zdb://, redis+cluster:// or "
    "dir:///path; or a router.yaml of several servers. Default: $FLISTFS_STORE, else a directory of yours. A "
    "password may come from $FLISTFS_STORE_PASSWORD.",
)

format_option = click.option(
    "--format",
    "format_",
    type=click.Choice(FORMATS),
    envvar="FLISTFS_FORMAT",
    help="The format of the flist: rocksdb for 0-fs of 2017, sqlite for 0-fs since August 2018, rfs 1.x and "
    "zflist. Default: $FLISTFS_FORMAT, else that of a base, else rocksdb.",
)

min_replicas_option = click.option(
    "--min-replicas",
    type=click.IntRange(1, 9999),
    metavar="N",
    help="With a router: continue when N servers of a block took it. Default: all that its hash belongs to.",
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

bases_option = click.option(
    "--from",
    "bases",
    type=flist_place,
    metavar="BASE.flist",
    multiple=True,
    help="Start with the tree of this sealed flist; repeatable, later ones lie on top.",
)

replace_links_option = click.option(
    "--replace-links",
    is_flag=True,
    help="Let a directory take the place of a link, instead of going to the directory that it leads to.",
)

accept_faults_option = click.option(
    "--accept-faults",
    is_flag=True,
    help="Take what is there of an flist that has faults: lost directories are empty, cut files end there.",
)

base_store_option = click.option(
    "--base-store",
    type=StorePlace(),
    metavar="URL|FILE",
    help="Where blocks of the base are that the store lacks. Default: where the base says that they are, "
    "else $FLISTFS_STORE, else a directory of yours. A password may come from $FLISTFS_BASE_PASSWORD.",
)

from_store_option = click.option(
    "--store",
    type=StorePlace(),
    metavar="URL|FILE",
    help="Where blocks are read from. Default: where the flist says that they are, else $FLISTFS_STORE, else "
    "a directory of yours. A password may come from $FLISTFS_STORE_PASSWORD.",
)

flist_argument = click.argument("package", type=flist_place, metavar="FLIST|URL")

timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=STORE_TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="Give up when the store cannot be connected to, or takes nothing, for so long.",
)


check_content_option = click.option(
    "--check-content",
    is_flag=True,
    help="Fetch every block that is there already, and put the right one over a wrong one.",
)

exclude_option = click.option(
    "--exclude",
    metavar="PATTERN",
    multiple=True,
    help="Leave out what fits this pattern, as in a .gitignore file; repeatable.",
)

exclude_from_option = click.option(
    "--exclude-from",
    type=click.Path(path_type=Path),
    metavar="FILE",
    multiple=True,
    help="Leave out what fits the patterns in this file, one a line; repeatable.",
)

keep_going_option = click.option(
    "--keep-going",
    is_flag=True,
    help="Leave out what cannot be read or has no place, name it, and end with exit code 11.",
)

force_option = click.option("--force", is_flag=True, help="Replace OUT.flist if it exists.")

changed_option = click.option(
    "-o",
    "--output",
    "out",
    type=any_path,
    metavar="NEW.flist",
    help="The changed flist. Default: it takes the place of the other.",
)

force_changed_option = click.option("--force", is_flag=True, help="Replace NEW.flist if it exists.")

owner_option = click.option(
    "--owner", metavar="UID:GID", help="Let everything belong to this user and group."
)


def usual_store() -> str | None:
    """Return the URL of the store that FLISTFS_STORE names.

    Raises:
        UsageError: it names none.
    """
    text = os.environ.get("FLISTFS_STORE")
    return named_store(text) if text else None


def exclude_patterns(patterns: Sequence[str], files: Sequence[Path]) -> tuple[str, ...]:
    """Gather the patterns of --exclude-from and --exclude; the latter count last.

    Raises:
        UsageError: a file cannot be read, or a pattern is invalid.
    """
    from flistfs.api.excludes import excluding, read_patterns  # noqa: PLC0415  few commands need it

    gathered = (*(line for file in files for line in read_patterns(file)), *patterns)
    excluding(gathered)
    return gathered


def parse_owner(text: str | None) -> tuple[int, int] | None:
    """Read what --owner says.

    Raises:
        UsageError: it is no UID:GID.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,10}):(\d{1,10})", text, re.ASCII)
    if match is None:
        raise UsageError(f"--owner takes UID:GID, two numbers such as 0:0, not {text!r}")
    owner = int(match[1]), int(match[2])
    if max(owner) > MAX_ID:
        raise UsageError(f"--owner takes numbers up to {MAX_ID}")
    return owner


class Size(click.ParamType[int]):
    """A number of bytes, with K, M, G or T for the powers of 1024."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it; click calls this."""
        match = re.fullmatch(r"(\d{1,15})([KMGT]?)(i?B)?", str(value), re.IGNORECASE | re.ASCII)
        if match is None:
            self.fail(f"{value!r} is not a size; write it like 512M or 4G", param, ctx)
        return int(match[1]) << (10 * " KMGT".index(match[2].upper() or " "))


def source_date_epoch() -> int | None:
    """Return SOURCE_DATE_EPOCH from the environment, or None where it is not set.

    Raises:
        UsageError: it is not a number of seconds.
    """
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise UsageError(f"SOURCE_DATE_EPOCH is {text[:30]!r}; it must be whole seconds since 1970")
    return int(text)
