"""What tests of the Python interface work with."""

from __future__ import annotations

from pathlib import Path

import pytest

from flistfs.stores import default_store_url
from tests.e2e.commands import Home
from tests.generation1 import open_store
from tests.independent_reader import read_content, read_flist

PROJECT = Path(__file__).parents[2]


def move_to(home: Home, patch: pytest.MonkeyPatch) -> None:
    """Let this process have the home that commands have, and work in it."""
    for name, value in home.environment().items():
        if name.startswith("XDG_"):
            patch.setenv(name, value)
    patch.chdir(home.path)


def write(path: str, content: bytes = b"content") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def contents(package: str, store: str | None = None) -> dict[bytes, bytes]:
    """The files of an flist, as the independent reader finds them."""
    get = open_store(store or default_store_url()).get
    nodes = read_flist(Path(package))
    return {path: read_content(node, get, fast=True) for path, node in nodes.items() if node.kind == "file"}
