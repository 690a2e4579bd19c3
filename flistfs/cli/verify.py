"""flistfs verify."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from pathlib import Path

import click

from flistfs.cli.options import RepairPlace, flist_argument, from_store_option, json_option, usual_store
from flistfs.cli.output import plural, print_json, progress_shown
from flistfs.cli.secrets import password
from flistfs.errors import FaultsError
from flistfs.format.base import Codec
from flistfs.reading.content import store_of
from flistfs.reading.flist import Flist
from flistfs.reading.repair import DirectorySupply, StoreSupply, Supply
from flistfs.reading.verify import Verified, verify
from flistfs.stores import open_store
from flistfs.stores.url import FROM_PASSWORD_VARIABLE, shown_store
from flistfs.tree.names import printable


@click.command("verify", short_help="Check an flist and its blocks.")
@flist_argument
@from_store_option
@click.option("--deep", is_flag=True, help="Fetch, decrypt and check every block.")
@click.option("--no-store", is_flag=True, help="Check the records only, and ask no store for blocks.")
@click.option(
    "--repair",
    is_flag=True,
    help="Check as --deep does, and put right blocks where the store has wrong ones or none.",
)
@click.option(
    "--from",
    "source",
    type=RepairPlace(),
    metavar="URL|FILE|DIRECTORY",
    help="Where right blocks are for --repair: another store, or a directory with files of the same content. "
    "A password may come from $FLISTFS_FROM_PASSWORD.",
)
@json_option
def command(
    package: Path,
    store: str | None,
    deep: bool,
    no_store: bool,
    repair: bool,
    source: str | Path | None,
    as_json: bool,
) -> None:
    """Check an flist: that it has nothing that readers hang or die of, and that the store has every block.

    Each fault is printed with its path; if there is any, the exit code is 10.

    \b
    Example:
      flistfs verify out.flist
      flistfs verify out.flist --deep --store ardb://host:16379
      flistfs verify out.flist --repair --from rootfs
    """
    if no_store and (deep or repair):
        raise click.UsageError(
            "--deep and --repair fetch blocks, and --no-store asks for none: leave one out"
        )
    if repair != (source is not None):
        raise click.UsageError("--repair and --from belong together: say with --from where right blocks are")
    with ExitStack() as opened:
        flist = opened.enter_context(Flist.open(package))
        blocks = (
            None
            if no_store
            else opened.enter_context(
                closing(store_of(flist, store, password(), usual_store(), reading=not repair))
            )
        )
        supply = None if source is None else opened.enter_context(_supply(source, flist.codec))
        with progress_shown() as progress:
            report = verify(flist, blocks, deep=deep, supply=supply, progress=progress)
    _print(report, as_json=as_json, no_store=no_store)
    if blocks is not None and blocks.trouble:
        click.echo(f"note: others stood in for a server: {blocks.trouble}", err=True)
    if report.faults and not report.repaired and isinstance(source, Path) and _looks_like_blocks(source):
        click.echo(
            f"note: {source} looks like a directory of blocks; --from dir://PATH may have been meant",
            err=True,
        )
    if report.faults:
        asked = "" if blocks is None else f" (blocks were looked for in {shown_store(blocks.url)})"
        raise FaultsError(f"{package} has {plural(len(report.faults), 'fault')}{asked}")


def _looks_like_blocks(directory: Path) -> bool:
    """Whether a directory has the directories of a directory store."""
    return any(path.is_dir() for path in directory.glob("[0-9a-f]/[0-9a-f]"))


@contextmanager
def _supply(source: str | Path, codec: Codec) -> Iterator[Supply]:
    """Open what right blocks are to come from."""
    if isinstance(source, Path):
        yield DirectorySupply(source, codec)
        return
    variable = FROM_PASSWORD_VARIABLE
    with closing(
        open_store(source, codec, password(variable), reading=True, password_variable=variable)
    ) as store:
        store.missing([codec.no_block])  # it can be asked: unlike `check`, this makes no directory
        yield StoreSupply(store)


def _print(report: Verified, *, as_json: bool, no_store: bool) -> None:
    if as_json:
        faults = [{"path": os.fsdecode(fault.path), "fault": fault.what} for fault in report.faults]
        print_json(asdict(report) | {"faults": faults})
        return
    if report.repaired:
        click.echo(f"{plural(report.repaired, 'block')} repaired")
    for fault in report.faults:
        click.echo(f"{printable(fault.path) or '/'}: {fault.what}")
    if not report.faults:
        looked_at = (
            plural(report.directories, "directory", "directories"),
            plural(report.files, "file"),
            "their records only" if no_store else plural(report.blocks, "block"),
        )
        click.echo(f"no faults in {looked_at[0]} and {looked_at[1]} ({looked_at[2]})")
