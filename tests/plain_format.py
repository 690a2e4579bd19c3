"""A second, tiny format: rows of JSON, blocks in the clear. It shows that nothing knows the first one.

A file of lines: a header, then each directory with its entries. Hashes are raw bytes, of another length than
those of generation 1, and no key is a hash.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from flistfs.errors import BlockCorruptError, FormatError
from flistfs.format.base import Block, Fault, Format, Limits, TreeReader, TreeWriter
from flistfs.format.faults import node_fault
from flistfs.format.metadata import MetadataChange
from flistfs.format.router import Router, format_router, parse_router
from flistfs.tree.chunks import BlockRef
from flistfs.tree.node import Access, Kind, Node

MAGIC = b'{"format": "plain"'
_DIGEST = 20


class PlainCodec:
    """A block is its chunk, named by SHA-1; the key says how long it is."""

    no_block = bytes(_DIGEST)

    def key(self, chunk: bytes | memoryview) -> bytes:
        return b"plain" + hashlib.sha1(chunk).digest()

    def encode(self, chunk: bytes | memoryview, key: bytes | None = None) -> Block:
        data = bytes(chunk)
        return Block(hashlib.sha1(data).digest(), key or self.key(data), (data,))

    def decode(self, stored: bytes | memoryview, ref: BlockRef) -> bytes:
        if not self.has_hash(stored, ref.hash):
            raise BlockCorruptError(f"block {self.show(ref.hash)} is corrupt")
        return bytes(stored)

    def has_hash(self, stored: bytes | memoryview, block_hash: bytes) -> bool:
        return hashlib.sha1(stored).digest() == block_hash

    def is_ref(self, ref: BlockRef) -> bool:
        return len(ref.hash) == _DIGEST and ref.key.startswith(b"plain")

    def show(self, block_hash: bytes) -> str:
        return block_hash.hex()

    def compact(self, name: bytes) -> bytes:
        return name


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _row(node: Node) -> dict[str, Any]:
    access = node.access
    return {
        "path": _text(node.path),
        "kind": node.kind,
        "access": access and [access.mode, _text(access.user), _text(access.group), access.uid, access.gid],
        "numbers": [node.size, node.mtime, node.ctime],
        "target": None if node.target is None else _text(node.target),
        "device": node.device,
        "blocks": [[_text(ref.hash), _text(ref.key)] for ref in node.blocks],
    }


def _node(row: Mapping[str, Any]) -> Node:
    decode = base64.b64decode
    access = None
    if row["access"]:
        mode, user, group, uid, gid = row["access"]
        access = Access(mode, decode(user), decode(group), uid, gid)
    kind = Kind(row["kind"])
    size, mtime, ctime = row["numbers"]
    return Node(
        decode(row["path"]),
        kind,
        access,
        size,
        mtime,
        ctime,
        target=None if row["target"] is None else decode(row["target"]),
        device=tuple(row["device"]) if row["device"] else None,
        blocks=tuple(BlockRef(decode(hash_), decode(key)) for hash_, key in row["blocks"]),
        whole=kind is not Kind.DIRECTORY,
    )


class PlainReader:
    """Reads all of it at once."""

    package_faults: Sequence[str] = ()

    def __init__(self, path: Path) -> None:
        header, *rows = map(json.loads, path.read_bytes().splitlines())
        self.metadata = {"made": header["made"].encode()}
        self._router = header["router"]
        self._directories: dict[bytes, tuple[Node, list[Node]]] = {}
        for row in rows:
            directory = _node(row["directory"])._replace(whole=True)
            self._directories[directory.path] = directory, list(map(_node, row["entries"]))

    @property
    def estimated_directories(self) -> int:
        return len(self._directories)

    def router(self) -> Router | None:
        return None if self._router is None else parse_router(self._router.encode())

    def directory(self, path: bytes) -> Node | None:
        return self._directories[path][0] if path in self._directories else None

    def listing(self, path: bytes) -> list[Node] | None:
        return self._directories[path][1] if path in self._directories else None

    def faults(self, path: bytes) -> Iterator[Fault]:
        for node in self._directories[path][1]:
            whole = node._replace(whole=node.whole or node.path in self._directories)
            if (fault := node_fault(whole, PLAIN.codec)) is not None:
                yield Fault(node.path, fault)

    def read_past(self, path: bytes) -> Iterator[Fault]:  # noqa: ARG002  nothing is known
        return iter(())

    def files(self) -> Iterator[Node]:
        for _, entries in self._directories.values():
            yield from (node for node in entries if node.kind is Kind.FILE)

    def close(self) -> None:
        pass


class PlainWriter:
    """Writes directories parents first, as row formats do."""

    def __init__(self, directory: Path) -> None:
        self._rows = (directory / "rows").open("wb+")
        self._known: set[bytes] = set()

    def position(self, path: bytes) -> bytes:
        return path.count(b"/").to_bytes(4) + path if path else b""

    def add(self, directory: Node, children: Iterable[Sequence[Node]]) -> None:
        parent = directory.path.rpartition(b"/")[0]
        if directory.path and parent not in self._known:
            raise FormatError("a directory comes before its parent")
        self._known.add(directory.path)
        entries = [_row(node) for part in children for node in part]
        self._rows.write(json.dumps({"directory": _row(directory), "entries": entries}).encode() + b"\n")

    def finish(self, router: Router | None, metadata: Mapping[str, bytes], out: BinaryIO) -> None:
        assert not metadata
        text = None if router is None else format_router(router).decode()
        out.write(json.dumps({"format": "plain", "made": "by a test", "router": text}).encode() + b"\n")
        self._rows.seek(0)
        out.write(self._rows.read())

    def close(self) -> None:
        self._rows.close()


def _recognizes(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _open(path: Path) -> TreeReader:
    return PlainReader(path)


@contextmanager
def _writer(directory: Path, _: Iterable[Access]) -> Iterator[TreeWriter]:
    writer = PlainWriter(directory)
    yield writer
    writer.close()


def _rewrite(
    package: Path, directory: Path, router: Router | None, change: MetadataChange, out: BinaryIO
) -> None:
    raise NotImplementedError


PLAIN = Format(
    name="plain",
    codec=PlainCodec(),
    limits=Limits(file_size=1 << 40, latest=2**40, minor=2**20),
    unrepresentable=frozenset({"hard_links"}),
    has_metadata=False,
    names_namespaces=False,
    has_known_defects=False,
    complete_entries=False,
    recognizes=_recognizes,
    open=_open,
    rewrite=_rewrite,
    writer=_writer,
)
