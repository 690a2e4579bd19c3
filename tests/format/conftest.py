"""Data that all tests of the format share: made by others, so it lies outside the project."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flistfs.format.rocksdb.catalog import Catalog
from flistfs.format.rocksdb.package import unpack_package
from flistfs.tree.chunks import CHUNK_SIZE, BlockRef
from tests.needs import needs_data, needs_old_flist, needs_tool, needs_vectors

Records = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Vector:
    """A block that the reference library made."""

    name: str
    chunk: bytes
    ref: BlockRef
    stored: bytes | None  # only of small ones
    stored_sha256: str | None = None


@pytest.fixture(scope="session")
def real_flist() -> Path:
    """A flist that a Zero-OS Hub made in 2017."""
    return needs_old_flist()


@pytest.fixture(scope="session")
def real_records(real_flist: Path, tmp_path_factory: pytest.TempPathFactory) -> Records:
    directory = tmp_path_factory.mktemp("real")
    unpack_package(real_flist, directory)
    with Catalog.open(directory) as catalog:
        return list(catalog.items())


@pytest.fixture(scope="session")
def vectors() -> list[Vector]:
    return list(_read_vectors(json.loads(needs_vectors().read_text()), str.encode))


@pytest.fixture(scope="session")
def vectors2() -> list[Vector]:
    """Blocks of generation 2."""
    return list(_read_vectors(json.loads(needs_data("blocks-gen2.json").read_text()), bytes.fromhex))


@pytest.fixture
def tool() -> Callable[[str], str]:
    """The path of a program of RocksDB's own, at the version that Debian has."""
    return needs_tool


def _read_vectors(document: dict[str, Any], name: Callable[[str], bytes]) -> Iterator[Vector]:
    for vector in document["vectors"]:
        data = _GENERATORS[vector["generator"]](vector["size"])
        assert hashlib.sha256(data).hexdigest() == vector["sha256"]
        for index, block in enumerate(vector["blocks"]):
            stored = block.get("stored_base64")
            yield Vector(
                name=f"{vector['generator']}-{vector['size']}-{index}",
                chunk=data[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE],
                ref=BlockRef(name(block["hash"]), name(block["key"])),
                stored=None if stored is None else base64.b64decode(stored),
                stored_sha256=block.get("stored_sha256"),
            )


def _lines(size: int) -> bytes:
    data = bytearray()
    for i in itertools.count():
        if len(data) >= size:
            return bytes(data[:size])
        digest = hashlib.md5(str(i).encode()).hexdigest()[:8].encode()
        data += b"%d: the quick brown fox %x jumps over the lazy dog %s\n" % (
            i,
            i * 2654435761 % 2**32,
            digest,
        )
    raise AssertionError


_GENERATORS: dict[str, Callable[[int], bytes]] = {
    "mod251": lambda n: (bytes(range(251)) * (n // 251 + 1))[:n],
    "zeros": bytes,
    "a": lambda n: b"a" * n,
    "sha256ctr": lambda n: b"".join(
        hashlib.sha256(i.to_bytes(8, "little")).digest() for i in range((n + 31) // 32)
    )[:n],
    "lines": _lines,
}
