"""Flists with faults that other programs leave behind: refused, unless what is there of them is wanted."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import flistfs
from flistfs.format.sqlite.members import MEMBERS
from flistfs.format.zeroos.keys import GENERATION_2
from flistfs.format.zeroos.package import write_package
from flistfs.format.zeroos.records import File, decode_directory, encode_directory
from tests.e2e.commands import Home
from tests.e2e.test_formats import comparable
from tests.needs import needs_data
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


@pytest.fixture
def package(home: Home, source: Path, redis: RedisServer) -> Path:
    """An flist that lacks what is in a directory, and the end of a file."""
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


def base(home: Home, *options: str, code: int = 0) -> str:
    done = home.run("new", "--from", "bad.flist", *options, code=code)
    if not code:
        home.run("seal", "out.flist")
    return done.stdout + done.stderr


def merge(home: Home, *options: str, code: int = 0) -> str:
    done = home.run("merge", "bad.flist", "-o", "out.flist", *options, code=code)
    return done.stdout + done.stderr


def convert(home: Home, *options: str, code: int = 0) -> str:
    done = home.run("convert", "bad.flist", "out.flist", "--format", "rocksdb", *options, code=code)
    return done.stdout + done.stderr


@pytest.mark.parametrize("use", [base, merge, convert])
def test_what_is_there_is_taken(home: Home, package: Path, source: Path, use: Callable[..., str]) -> None:
    assert package.exists()
    assert "--accept-faults" in use(home, code=8)
    assert "note: 2 faults were accepted" in use(home, "--accept-faults")
    assert home.json("verify", "out.flist")["faults"] == []
    home.run("extract", "out.flist", "copy")
    (source / "lost/file").unlink()
    (source / "tail").write_bytes(CONTENT)
    assert comparable(home.path / "copy") == comparable(source)


def test_what_zflist_lost(home: Home) -> None:
    sample = needs_data("samples/zflist-45000-files-lost.flist")
    home.run("merge", sample, "-o", "out.flist", code=8)
    merged = home.json("merge", sample, "-o", "out.flist", "--accept-faults")
    assert merged["accepted_faults"] > 0
    assert home.json("verify", "out.flist", "--no-store")["faults"] == []


def test_it_belongs_to_a_base(home: Home) -> None:
    assert "belongs to --from" in home.run("new", "--accept-faults", code=2).stderr


def test_python(home: Home, package: Path) -> None:
    merged = flistfs.merge(home.path / "out.flist", [package], accept_faults=True)
    assert merged.accepted_faults == 2
