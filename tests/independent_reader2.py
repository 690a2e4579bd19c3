"""A second opinion on flists of generation 2: reads a package as its readers do, and trusts nothing.

Like the one of generation 1 it shares no code with flistfs: the database is read with SQLite's own module,
all else is decoded by hand. What it requires are the rules that 0-fs since August 2018, rfs 1.x and zflist
need together.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from tests.independent_reader import (
    BLOCK_UNITS,
    CHUNK,
    MAX_NAME,
    Access,
    Directory,
    Entry,
    Get,
    Kind,
    Message,
    Node,
    check_gzip_header,
    check_link,
    check_member,
    decode_access,
    decode_directory,
    decode_fast,
    device_numbers,
    require,
    snappy_decode,
    xxtea_decode,
)

FILE: Final = "flistdb.sqlite3"
_MEMBERS: Final = re.compile(r"flistdb\.sqlite3|router\.yaml")
_DIGEST: Final = 16
_SPECIAL: Final = frozenset({"fifo", "socket", "block", "char"})


def read_flist2(package: Path) -> dict[bytes, Node]:
    """Every node of a package by its path relative to the root, which is b""."""
    directories: dict[str, Directory] = {}
    accesses: dict[str, Access] = {}
    for number, (key, value) in enumerate(_rows(package)):
        require((number == 0) == (key == directory_key(b"")), "the root is not the first row, or not there")
        if re.fullmatch("[0-9a-f]{32}", key):
            directories[key] = decode_directory(Message(value).root())
        else:
            require(re.fullmatch("[0-9a-f]{16}", key), f"stray record {key!r}")
            accesses[key] = decode_access(Message(value).root())
            _check_access(key, accesses[key])
    return _Walk(directories, accesses).run()


def read_content2(node: Node, get: Get, *, fast: bool = False) -> bytes:
    """A file's bytes; `get` answers the stored block of a hash, or None."""
    content = b"".join(_read_block(name, key, get, fast=fast) for name, key in node.blocks)
    require(len(content) == node.size, f"{len(content)} bytes in the blocks of a file of {node.size}")
    return content


def directory_key(path: bytes) -> str:
    """The key of the record of the directory with this path."""
    return hashlib.blake2b(path, digest_size=16).hexdigest()


def _rows(package: Path) -> list[tuple[str, bytes]]:
    """All records, in the order of their rows."""
    check_gzip_header(package)
    with tempfile.TemporaryDirectory(prefix="flist-") as directory:
        with tarfile.open(package, "r:gz") as archive:
            names = []
            for member in archive:
                check_member(member, _MEMBERS)
                names.append(member.name)
                source = archive.extractfile(member)
                assert source is not None
                (Path(directory) / member.name).write_bytes(source.read())
        require(FILE in names and len(set(names)) == len(names), f"it has the members {names}")
        database = sqlite3.connect(f"file:{directory}/{FILE}?mode=ro", uri=True)
        try:
            require(database.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "it is not intact")
            require(
                database.execute("PRAGMA journal_mode").fetchone() == ("delete",), "it is in another mode"
            )
            types = "SELECT DISTINCT typeof(key), typeof(value) FROM entries"
            require(database.execute(types).fetchall() == [("text", "blob")], "keys or values of other types")
            rows: list[tuple[str, bytes]] = database.execute(
                "SELECT key, value FROM entries ORDER BY rowid"
            ).fetchall()
        finally:
            database.close()
    return rows


def _check_access(key: str, access: Access) -> None:
    require(access.uname and access.gname, f"ACI {key!r} does not name its owners")
    require(access.uid >= 0 and access.gid >= 0, f"ACI {key!r} has the owner {access.uid}:{access.gid}")
    require(access.mode & 0o7777 == access.mode, f"ACI {key!r} has a file type in its mode {access.mode:o}")
    text = b"user:%s\ngroup:%s\nmode:0o%o\nuid:%d\ngid:%d" % (
        access.uname,
        access.gname,
        access.mode,
        access.uid,
        access.gid,
    )
    wanted = hashlib.blake2b(text, digest_size=8).hexdigest()
    require(key == wanted, f"ACI {key!r} does not have the key of its text")


class _Walk:
    def __init__(self, directories: dict[str, Directory], accesses: dict[str, Access]) -> None:
        self.directories = directories
        self.accesses = accesses
        self.nodes: dict[bytes, Node] = {}
        self.used: set[str] = set()

    def run(self) -> dict[bytes, Node]:
        waiting = [(b"", directory_key(b""))]
        while waiting:
            path, parent = waiting.pop()
            waiting += self._directory(path, parent)
        stray = (self.directories.keys() | self.accesses.keys()) - self.used
        require(not stray, f"{len(stray)} stray records, among them {sorted(stray)[:3]}")
        return self.nodes

    def _directory(self, path: bytes, parent: str) -> list[tuple[bytes, str]]:
        key = directory_key(path)
        require(key in self.directories, f"{path!r}: no record with the key of this directory")
        directory = self.directories[key]
        self.used.add(key)
        require(directory.location == path, f"{path!r}: its location says {directory.location!r}")
        require(directory.parent.decode() == parent, f"{path!r}: its parent says {directory.parent!r}")
        require(directory.name == path.rpartition(b"/")[2], f"{path!r}: its name says {directory.name!r}")
        self.nodes[path] = self._node("dir", directory, directory.size)
        _check_names(path, directory.entries)
        below = []
        for entry in directory.entries:
            where = path + b"/" + entry.name if path else entry.name
            if entry.kind == "dir":
                self._check_subdirectory(where, entry)
                below.append((where, key))
            else:
                self.nodes[where] = self._leaf(where, entry)
        return below

    def _check_subdirectory(self, path: bytes, entry: Entry) -> None:
        key = directory_key(path)
        require(entry.subdir.decode() == key, f"{path!r}: {entry.subdir!r} is not this path's key")
        require(key in self.directories, f"{path!r}: its directory is missing")
        own = self.directories[key]
        require(
            (entry.size, entry.aclkey, entry.mtime, entry.ctime)
            == (own.size, own.aclkey, own.mtime, own.ctime),
            f"{path!r}: entry and record differ",
        )

    def _leaf(self, path: bytes, entry: Entry) -> Node:
        match entry.kind:
            case "file":
                _check_file(path, entry)
                return self._node("file", entry, entry.size, blocks=entry.blocks)
            case "link":
                check_link(path, entry)
                return self._node("link", entry, entry.size, target=entry.target)
            case "block":
                return self._node("block", entry, entry.size, device=device_numbers(path, entry))
            case "char":
                return self._node("char", entry, entry.size, device=device_numbers(path, entry))
            case "fifo":
                return self._node("fifo", entry, entry.size)
        require(entry.kind == "socket", f"{path!r}: no reader knows an entry of the kind {entry.kind!r}")
        return self._node("socket", entry, entry.size)

    def _node(
        self,
        kind: Kind,
        source: Directory | Entry,
        size: int,
        *,
        target: bytes | None = None,
        device: tuple[int, int] | None = None,
        blocks: tuple[tuple[bytes, bytes], ...] = (),
    ) -> Node:
        key = source.aclkey.decode()
        require(key in self.accesses, f"no ACI {key!r}")
        access = self.accesses[key]
        self.used.add(key)
        return Node(
            kind=kind,
            mode=access.mode,
            type_mode=access.mode,
            uid=access.uid,
            gid=access.gid,
            uname=access.uname,
            gname=access.gname,
            size=size,
            mtime=source.mtime,
            ctime=source.ctime,
            target=target,
            device=device,
            blocks=blocks,
        )


def _check_names(path: bytes, entries: tuple[Entry, ...]) -> None:
    for entry in entries:
        name = entry.name
        require(0 < len(name) <= MAX_NAME, f"{path!r}: a name of {len(name)} bytes")
        require(b"/" not in name and b"\0" not in name, f"{path!r}: {name!r} has a slash or a NUL in it")
        require(name not in (b".", b".."), f"{path!r}: an entry is called {name!r}")
    order = [(entry.kind in _SPECIAL, entry.name) for entry in entries]
    require(
        order == sorted(set(order)), f"{path!r}: not sorted, a name twice, or a special file before others"
    )


def _check_file(path: bytes, entry: Entry) -> None:
    require(entry.block_size == BLOCK_UNITS, f"{path!r}: the block size is {entry.block_size} times 4 KiB")
    expected = (entry.size + CHUNK - 1) // CHUNK
    require(len(entry.blocks) == expected, f"{path!r}: {entry.size} bytes in {len(entry.blocks)} blocks")
    for block in entry.blocks:
        require(all(len(each) == _DIGEST for each in block), f"{path!r}: {block} is not a hash and a key")


def _read_block(name: bytes, key: bytes, get: Get, *, fast: bool) -> bytes:
    stored = get(name)
    require(stored is not None, f"the store has no block {name!r}")
    assert stored is not None
    require(hashlib.blake2b(stored, digest_size=_DIGEST).digest() == name, f"block {name!r} has another hash")
    chunk = decode_fast(stored, key) if fast else snappy_decode(xxtea_decode(stored, key))
    require(
        hashlib.blake2b(chunk, digest_size=_DIGEST).digest() == key,
        f"block {name!r}: its key {key!r} is not its chunk's",
    )
    return chunk
