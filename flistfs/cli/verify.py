"""flistfs verify."""

from __future__ import annotations

from pathlib import Path

import click

from flistfs.api.checking import Verified
from flistfs.api.flists import open  # noqa: A004  flistfs.open, like gzip.open
from flistfs.api.store_names import FROM_PASSWORD_VARIABLE, shown_store
from flistfs.cli import documents
from flistfs.cli.answers import absolute, answer
from flistfs.cli.options import RepairPlace, flist_argument, from_store_option, json_option, usual_store
from flistfs.cli.output import plural, progress_shown
from flistfs.cli.secrets import password
from flistfs.errors import FaultsError
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
    with open(package, store=store, password=password(), fallback_store=usual_store()) as flist:
        with progress_shown() as progress:
            report = flist.verify(
                deep=deep,
                blocks=not no_store,
                source=source,
                source_password=password(FROM_PASSWORD_VARIABLE),
                progress=progress,
            )
        url = None if no_store else flist.store_url
        trouble = flist.store_trouble
    if as_json:
        answer(documents.verified(absolute(package), report, url))
    else:
        _print(report, no_store=no_store)
    if trouble:
        click.echo(f"note: others stood in for a server: {trouble}", err=True)
    if report.faults and not report.repaired and isinstance(source, Path) and _looks_like_blocks(source):
        click.echo(
            f"note: {source} looks like a directory of blocks; --from dir://PATH may have been meant",
            err=True,
        )
    if report.faults:
        asked = "" if url is None else f" (blocks were looked for in {shown_store(url)})"
        raise FaultsError(f"{package} has {plural(len(report.faults), 'fault')}{asked}")


def _looks_like_blocks(directory: Path) -> bool:
    """Return whether a directory has the directories of a directory store."""
    return any(path.is_dir() for path in directory.glob("[0-9a-f]/[0-9a-f]"))


def _print(report: Verified, *, no_store: bool) -> None:
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
