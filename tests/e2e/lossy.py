"""An flist that lacks what another program loses."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from dataclasses import replace
from pathlib import Path

from flistfs.format.sqlite.members import MEMBERS
from flistfs.format.zeroos.keys import GENERATION_2
from flistfs.format.zeroos.package import write_package
from flistfs.format.zeroos.records import File, decode_directory, encode_directory
from tests.e2e.commands import Home
from tests.redis_server import RedisServer

CHUNK = 512 << 10
CONTENT = bytes(range(256)) * (CHUNK // 256)


def lose_record(database: sqlite3.Connection) -> None:
    """As zflist does it with a directory of very many entries."""
    database.execute(
        "UPDATE entries SET value = '00' WHERE key = ?", [GENERATION_2.directory(b"lost").decode()]
    )


def lose_tail(database: sqlite3.Connection) -> None:
    """As zflist does it with files of a little over 16 MiB."""
    key = GENERATION_2.directory(b"").decode()
    ((raw,),) = database.execute("SELECT value FROM entries WHERE key = ?", [key])
    root = decode_directory(raw)
    entries = [
        replace(entry, attributes=replace(entry.attributes, blocks=entry.attributes.blocks[:-1]))
        if isinstance(entry.attributes, File)
        else entry
        for entry in root.entries
    ]
    database.execute(
        "UPDATE entries SET value = ? WHERE key = ?", [encode_directory(replace(root, entries=entries)), key]
    )


def make_lossy(home: Home, source: Path, redis: RedisServer) -> Path:
    """Pack an flist that lacks what is in a directory, and the end of a file."""
    (source / "lost").mkdir(mode=0o750)
    (source / "lost/file").touch()
    (source / "kept").mkdir()
    (source / "kept/file").write_bytes(b"kept")
    (source / "tail").write_bytes(CONTENT + b"end")
    home.run("pack", source, "right.flist", "--format", "sqlite", "--store", redis.url)
    unpacked = home.path / "unpacked"
    with tarfile.open(home.path / "right.flist") as archive:
        archive.extractall(unpacked)
    database = sqlite3.connect(unpacked / MEMBERS.needed)
    lose_record(database)
    lose_tail(database)
    database.commit()
    database.close()
    with (home.path / "bad.flist").open("wb") as out:
        write_package(unpacked, MEMBERS, out)
    verified = home.run("verify", "bad.flist", "--no-store", "--json", code=10)
    assert len(json.loads(verified.stdout)["faults"]) == 2
    return home.path / "bad.flist"
