"""flistfs cat."""

from __future__ import annotations

import base64
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import click

from flistfs.api.flists import Flist
from flistfs.cli.answers import VERSION, dumps, write
from flistfs.cli.options import flist_argument, from_store_option, json_option, usual_store
from flistfs.cli.reading import opened
from flistfs.cli.secrets import password
from flistfs.errors import FlistfsError
from flistfs.tree.node import Node


@click.command("cat", short_help="Print files of an flist.")
@flist_argument
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@from_store_option
@json_option
def command(package: Path, paths: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """Print the content of files in an flist, every block checked. Links are followed, within the flist.

    With --json each file is an object, with its path, its size and its content in base64.

    \b
    Example:
      flistfs cat out.flist etc/os-release
      flistfs cat out.flist boot/initrd.img --store ardb://host:16379 | lsinitramfs -
    """
    secret = password()
    nodes: list[Node] = []
    with opened(
        package,
        at=nodes,
        content_only=True,
        store=store,
        password=secret,
        fallback_store=usual_store(),
    ) as flist:
        nodes += [flist.find(path, follow=True) for path in paths]
        if as_json:
            _print_as_json(flist, nodes)
            return
        for node in nodes:
            for part in flist.read(node):
                sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()


def _print_as_json(flist: Flist, nodes: Sequence[Node]) -> None:
    """Print each file as an object that is never in memory as a whole."""
    lead = f'{{"version": {VERSION}, "files": ['
    for node in nodes:
        parts = _base64(flist.read(node))
        part = next(parts)  # an error before anything is printed needs no beginning of an answer
        head = dumps({"path": os.fsdecode(node.path), "size": node.size}).removesuffix("}")
        write(f'{lead}{head}, "base64": "', closing='"}]')
        for text in itertools.chain([part], parts):
            write(text, closing='"}]')
        write('"}', closing="]")
        lead = ", "


def _base64(chunks: Iterable[bytes]) -> Iterator[str]:
    """Encode a stream, of which three bytes make four letters; at an error what came before it is whole."""
    rest = b""
    try:
        for chunk in chunks:
            data = rest + chunk
            whole = len(data) // 3 * 3
            rest = data[whole:]
            yield base64.b64encode(data[:whole]).decode()
    except FlistfsError:
        if rest:
            yield base64.b64encode(rest).decode()
        raise
    yield base64.b64encode(rest).decode()
