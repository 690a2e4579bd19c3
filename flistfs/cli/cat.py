"""flistfs cat."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

import click

from flistfs.cli.options import flist_argument, from_store_option, usual_store
from flistfs.cli.secrets import password
from flistfs.reading.content import read, store_of
from flistfs.reading.flist import Flist


@click.command("cat", short_help="Print files of an flist.")
@flist_argument
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@from_store_option
def command(package: Path, paths: tuple[str, ...], store: str | None) -> None:
    """Print the content of files in an flist, every block checked. Links are followed, within the flist.

    \b
    Example:
      flistfs cat out.flist etc/os-release
      flistfs cat out.flist boot/initrd.img --store ardb://host:16379 | lsinitramfs -
    """
    out = sys.stdout.buffer
    with Flist.open(package) as flist, closing(store_of(flist, store, password(), usual_store())) as blocks:
        for node in [flist.follow(os.fsencode(path)) for path in paths]:
            for chunk in read(blocks, node):
                out.write(chunk)
    out.flush()
