"""flistfs cat."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import click

from flistfs.cli.options import flist_argument, from_store_option, json_option, usual_store
from flistfs.cli.output import begin_answer
from flistfs.cli.secrets import password
from flistfs.reading.content import read, store_of
from flistfs.reading.flist import Flist
from flistfs.stores import Store
from flistfs.tree.node import Node


@click.command("cat", short_help="Print files of an flist.")
@flist_argument
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@from_store_option
@json_option
def command(package: Path, paths: tuple[str, ...], store: str | None, as_json: bool) -> None:
    """Print the content of files in an flist, every block checked. Links are followed, within the flist.

    With --json each file is an object in a list, with its path, its size and its content in base64.

    \b
    Example:
      flistfs cat out.flist etc/os-release
      flistfs cat out.flist boot/initrd.img --store ardb://host:16379 | lsinitramfs -
    """
    out = sys.stdout.buffer
    with Flist.open(package) as flist, closing(store_of(flist, store, password(), usual_store())) as blocks:
        nodes = [flist.follow(os.fsencode(path)) for path in paths]
        for part in _json(blocks, nodes) if as_json else _plain(blocks, nodes):
            if as_json:
                begin_answer()
            out.write(part)
    out.flush()


def _plain(blocks: Store, nodes: Sequence[Node]) -> Iterator[bytes]:
    for node in nodes:
        yield from read(blocks, node)


def _json(blocks: Store, nodes: Sequence[Node]) -> Iterator[bytes]:
    for number, node in enumerate(nodes):
        head = json.dumps({"path": os.fsdecode(node.path), "size": node.size, "base64": ""})
        yield (b"," if number else b"[") + head.removesuffix('"}').encode()
        yield from _base64(read(blocks, node))
        yield b'"}'
    yield b"]\n"


def _base64(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Encode a stream, of which three bytes make four letters."""
    rest = b""
    for chunk in chunks:
        data = rest + chunk
        whole = len(data) // 3 * 3
        rest = data[whole:]
        yield base64.b64encode(data[:whole])
    yield base64.b64encode(rest)
