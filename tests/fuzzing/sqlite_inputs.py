"""The ways in which a package of generation 2 is damaged."""

from __future__ import annotations

import gzip
import io
import random
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from flistfs.api.packing import pack as pack_source
from flistfs.format.zeroos.records import decode_aci, decode_directory, encode_aci, encode_directory
from tests.fuzzing.inputs import Base, damaged, odd_aci, odd_directory

_FILE: Final = "flistdb.sqlite3"
_TIME: Final = 1_500_000_000

# What a database of a stranger may have in it, one or several of these.
_STATEMENTS: Final = (
    "CREATE VIEW v AS SELECT * FROM entries",
    "CREATE TRIGGER t AFTER INSERT ON entries BEGIN DELETE FROM entries; END",
    "CREATE VIRTUAL TABLE f USING fts5(x)",
    "DROP TABLE metadata",
    "DROP TABLE entries",
    "ALTER TABLE entries RENAME COLUMN value TO other",
    "ALTER TABLE entries ADD COLUMN more",
    "UPDATE entries SET key = CAST(key AS BLOB)",
    "UPDATE entries SET value = 'ab'",
    "UPDATE entries SET value = NULL",
    "UPDATE entries SET value = 7",
    "DELETE FROM entries",
    "DELETE FROM entries WHERE rowid = 1",
    "INSERT INTO metadata VALUES ('x', zeroblob(2000000))",
    'INSERT INTO metadata VALUES (\'backend\', \'{"host": "h", "port": 1e400}\')',
    "INSERT INTO metadata VALUES ('backend', '[]')",
    "INSERT INTO metadata VALUES (NULL, NULL)",
    "PRAGMA user_version = 99",
    "PRAGMA page_size = 65536",
    "PRAGMA encoding = 'UTF-16'",
    "PRAGMA journal_mode = WAL",
    "VACUUM",
)


@cache
def _database(archive: bytes, store: str) -> bytes:
    """The sound database."""
    with tempfile.TemporaryDirectory() as scratch:
        source, package = Path(scratch) / "base.tar", Path(scratch) / "base.flist"
        source.write_bytes(archive)
        pack_source(source, package, store=store, format="sqlite", epoch=_TIME)
        with tarfile.open(package, "r:gz") as opened:
            content = opened.extractfile(_FILE)
            assert content is not None
            return content.read()


def _packed(database: bytes) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo(f"./{_FILE}")
        member.size = len(database)
        archive.addfile(member, io.BytesIO(database))
    return gzip.compress(
        raw.getvalue()[: 512 + -(-len(database) // 512) * 512]
    )  # without its end, as zflist's


def _changed(database: bytes, change: Callable[[sqlite3.Connection], object]) -> bytes:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / _FILE
        path.write_bytes(database)
        connection = sqlite3.connect(path, isolation_level=None)
        change(connection)
        connection.close()
        return path.read_bytes()


def _bytes(base: Base, chance: random.Random) -> bytes:
    return _packed(damaged(_database(base.archive, base.store), chance, keep_size=bool(chance.randrange(4))))


def _schema(base: Base, chance: random.Random) -> bytes:
    def change(connection: sqlite3.Connection) -> None:
        for statement in chance.sample(_STATEMENTS, chance.choice((1, 1, 2, 3))):
            try:
                connection.execute(statement)
            except sqlite3.Error:
                continue  # one of those before it was in the way

    return _packed(_changed(_database(base.archive, base.store), change))


def _values(base: Base, chance: random.Random) -> bytes:
    """Put values into the records that no writer would, or damage them."""

    def change(connection: sqlite3.Connection) -> None:
        rows = connection.execute("SELECT key, value FROM entries ORDER BY rowid").fetchall()
        records = {key.encode(): value for key, value in rows}
        for key in chance.sample(sorted(records), chance.choice((1, 1, 2, 4))):
            if chance.randrange(3) == 0:
                value = damaged(records[key], chance)
            elif len(key) == 16:
                value = encode_aci(odd_aci(decode_aci(records[key]), chance))
            else:
                value = encode_directory(odd_directory(decode_directory(records[key]), records, chance))
            connection.execute("UPDATE entries SET value = ? WHERE key = ?", (value, key.decode()))

    return _packed(_changed(_database(base.archive, base.store), change))


SQLITE_KINDS: Final[Mapping[str, Callable[[Base, random.Random], bytes]]] = {
    "sqlite": _bytes,
    "sqlite-schema": _schema,
    "sqlite-values": _values,
}
"""Kinds of damage to packages of generation 2, by name."""
