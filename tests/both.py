"""What tests need to run over both formats: `@both_formats` on a test that has a home."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Final

import pytest

from tests.independent_reader import Get, Node, read_content, read_flist
from tests.independent_reader2 import FILE, read_content2, read_flist2

FORMATS: Final = ("rocksdb", "sqlite")

both_formats = pytest.mark.parametrize("home", FORMATS, indirect=True)
"""Lets each test run in a home whose usual format is the one, and in one with the other."""


LARGEST: Final = {"rocksdb": 198 << 30, "sqlite": 495 << 30}
"""Bytes of the largest file of each."""


def shown(name: bytes) -> str:
    """A block's name as a directory of blocks has it."""
    return name.hex() if len(name) == 16 else name.decode()


def read_sealed(package: Path) -> dict[bytes, Node]:
    """Every node of a package, by the independent reader of its format."""
    with tarfile.open(package) as archive:
        return (read_flist2 if FILE in archive.getnames() else read_flist)(package)


def read_file(node: Node, get: Get, *, fast: bool = False) -> bytes:
    """A file's bytes, by the independent reader of its blocks' format."""
    is_second = any(len(name) == 16 for name, _ in node.blocks)
    return (read_content2 if is_second else read_content)(node, get, fast=fast)
