"""flistfs mount --read-only: a sealed flist as a file system."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import click
import platformdirs

from flistfs.cli.options import usual_store
from flistfs.cli.output import print_json
from flistfs.cli.secrets import password
from flistfs.daemons import launch
from flistfs.errors import OutputError


def mount_sealed(
    package: Path,
    mountpoint: Path,
    store: str | None,
    options: list[str],
    cache_size: int | None,
    *,
    offline: bool,
    foreground: bool,
    low_latency: bool,
    as_json: bool,
) -> None:
    """Mount a sealed flist at a place that is free; returns when it answers, or never in the foreground.

    Raises:
        FlistfsError: it cannot be mounted.
    """
    config = launch.ReaderConfig(
        package=os.path.abspath(package),  # noqa: PTH100  absolute() would keep `..`
        mountpoint=str(mountpoint),
        log=str(_log_path(mountpoint)),
        store=store,
        usual_store=usual_store(),
        options=["ro", *options],
        cache_size=cache_size,
        offline=offline,
        foreground=foreground,
        low_latency=low_latency,
    )
    if foreground:
        launch.become(config, password())
    launch.start(config, password())
    if as_json:
        print_json({"mountpoint": str(mountpoint), "package": config.package, "log": config.log})
    else:
        click.echo(f"{mountpoint} shows {package}, read-only; end it with: umount {mountpoint}")


def _log_path(mountpoint: Path) -> Path:
    """Return an empty file for the log."""
    digest = hashlib.blake2b(os.fsencode(mountpoint), digest_size=4).hexdigest()
    directory = platformdirs.user_state_path("flistfs") / "readers"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        log = directory / f"{digest}.log"
        log.write_bytes(b"")
    except OSError as error:
        raise OutputError(f"{directory} cannot be written: {error.strerror}") from error
    return log
