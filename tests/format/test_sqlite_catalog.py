"""The SQLite catalog: what is written, by its own library, and databases of strangers."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from flistfs.errors import FormatError, OutputError
from flistfs.format.sqlite import catalog as module
from flistfs.format.sqlite.catalog import Catalog, CatalogWriter
from flistfs.format.sqlite.members import MEMBERS

FILE = MEMBERS.needed
RECORDS = [(b"cae66941d9efbd404e4d88758ea67670", b"root"), (b"d7683de000c13689", b"\0an ACI\xff")]


def written(directory: Path) -> Path:
    """A catalog with records and metadata."""
    with CatalogWriter(directory) as writer:
        for key, record in RECORDS:
            writer.add(key, record)
        writer.add_metadata({"backend": b'{"host": "h", "port": 1}'})
        writer.finish()
    return directory / FILE


def changed(path: Path, *statements: str) -> Path:
    """A database that somebody else has changed."""
    connection = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    return path


def test_what_was_written_is_read(tmp_path: Path) -> None:
    with Catalog.open(written(tmp_path)) as catalog:
        assert list(catalog.items()) == RECORDS
        assert [catalog.get(key) for key, _ in RECORDS] == [record for _, record in RECORDS]
        assert catalog.has(RECORDS[0][0])
        for key in (b"none", b"", b"\xff", b"a\0b"):
            assert catalog.get(key) is None
            assert not catalog.has(key)
        assert catalog.estimated_records == 2
        assert catalog.metadata == {"backend": b'{"host": "h", "port": 1}'}


def test_readers_find_what_they_need(tmp_path: Path) -> None:
    path = written(tmp_path)
    header = path.read_bytes()[:100]
    assert header[:16] == b"SQLite format 3\0"
    assert header[16:18] == (4096).to_bytes(2)  # the page size
    assert header[18:20] == b"\x01\x01"  # a rollback journal, no WAL
    assert header[96:100] == (3040001).to_bytes(4)
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    tables = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
    assert dict(tables) == {
        "entries": "CREATE TABLE entries (key VARCHAR(64) PRIMARY KEY, value BLOB)",
        "metadata": "CREATE TABLE metadata (key VARCHAR(64) PRIMARY KEY, value TEXT)",
    }
    types = "SELECT DISTINCT typeof(key), typeof(value) FROM "
    assert connection.execute(f"{types} entries").fetchall() == [("text", "blob")]
    assert connection.execute(f"{types} metadata").fetchall() == [("text", "text")]
    assert connection.execute(
        "SELECT rowid FROM entries WHERE key = ?", [RECORDS[0][0].decode()]
    ).fetchone() == (1,)
    connection.close()
    assert [each.name for each in tmp_path.iterdir()] == [FILE]


def test_equal_records_make_equal_bytes(tmp_path: Path) -> None:
    assert written(tmp_path / "one").read_bytes() == written(tmp_path / "two").read_bytes()


def test_a_key_twice_is_refused(tmp_path: Path) -> None:
    with CatalogWriter(tmp_path) as writer:
        writer.add(*RECORDS[0])
        with pytest.raises(FormatError, match="a key twice"):
            writer.add(*RECORDS[0])


def test_nothing_is_written_beside_it(tmp_path: Path) -> None:
    path = written(tmp_path)
    before = path.stat()
    with Catalog.open(path) as catalog:
        list(catalog.items())
    assert [each.name for each in tmp_path.iterdir()] == [FILE]
    assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a#b", "ä", "a b"])
def test_a_path_is_not_taken_for_a_uri(tmp_path: Path, name: str) -> None:
    with Catalog.open(written(tmp_path / name)) as catalog:
        assert catalog.get(RECORDS[0][0]) == b"root"


HOSTILE = {
    "a view": ["DROP TABLE entries", "CREATE VIEW entries AS SELECT 'x' AS key, x'00' AS value"],
    "a trigger": ["CREATE TRIGGER t AFTER INSERT ON entries BEGIN SELECT 1; END"],
    "a virtual table": ["CREATE VIRTUAL TABLE t USING fts5(x)"],
    "no table of entries": ["DROP TABLE entries"],
}


@pytest.mark.parametrize("why", HOSTILE)
def test_what_would_run_something_is_refused(tmp_path: Path, why: str) -> None:
    with pytest.raises(FormatError, match=why):
        Catalog.open(changed(written(tmp_path), *HOSTILE[why]))


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_database_that_was_not_closed_is_refused(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path)
    path.with_name(FILE + suffix).write_bytes(b"")
    Catalog.open(path).close()
    path.with_name(FILE + suffix).write_bytes(b"x")
    with pytest.raises(FormatError, match=f"{FILE}{suffix} beside it"):
        Catalog.open(path)


def without_rowid(table: str) -> list[str]:
    return [
        "CREATE TABLE other (key VARCHAR(64) PRIMARY KEY, value) WITHOUT ROWID",
        f"INSERT INTO other SELECT * FROM {table}",
        f"DROP TABLE {table}",
        f"ALTER TABLE other RENAME TO {table}",
    ]


def test_what_other_writers_leave_out_is_not_missed(tmp_path: Path) -> None:
    for number, statements in enumerate(
        (
            ["DROP TABLE metadata"],
            ["PRAGMA page_size = 512", "VACUUM"],
            ["PRAGMA journal_mode = WAL", "PRAGMA wal_checkpoint(TRUNCATE)"],
            ["CREATE INDEX entries_index ON entries (key)"],
            without_rowid("entries"),
            without_rowid("metadata"),
        )
    ):
        with Catalog.open(changed(written(tmp_path / str(number)), *statements)) as catalog:
            assert catalog.get(RECORDS[0][0]) == b"root"
            assert len(list(catalog.items())) == 2
            assert len(catalog.metadata) == (number > 0)


def test_a_lost_record_is_named(tmp_path: Path) -> None:
    """As zflist leaves it of a directory that is too large for it."""
    path = changed(
        written(tmp_path), f"UPDATE entries SET value = 'ab' WHERE key = '{RECORDS[0][0].decode()}'"
    )
    with Catalog.open(path) as catalog:
        with pytest.raises(FormatError, match="its record is lost"):
            catalog.get(RECORDS[0][0])
        assert catalog.has(RECORDS[0][0])
        with pytest.raises(FormatError, match="a record is lost"):
            list(catalog.items())


def test_a_key_that_is_no_text_is_never_found(tmp_path: Path) -> None:
    path = changed(written(tmp_path), "UPDATE entries SET key = CAST(key AS BLOB)")
    with Catalog.open(path) as catalog:
        assert catalog.get(RECORDS[0][0]) is None
        with pytest.raises(FormatError, match="not a text"):
            list(catalog.items())


def test_metadata_is_bounded(tmp_path: Path) -> None:
    large = changed(
        written(tmp_path / "large"), f"INSERT INTO metadata VALUES ('x', zeroblob({(1 << 20) + 1}))"
    )
    with pytest.raises(FormatError, match="a value of more than 1 MiB"):
        Catalog.open(large)
    counting = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1001)"
    many = changed(written(tmp_path / "many"), f"{counting} INSERT INTO metadata SELECT i, i FROM n")
    with pytest.raises(FormatError, match="more than 1,000 values"):
        Catalog.open(many)


def test_the_work_of_a_query_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STEP", 1)
    monkeypatch.setattr(module, "_MAX_STEPS", 5)
    with pytest.raises(FormatError, match="interrupted"):
        Catalog.open(written(tmp_path))


def damages(data: bytes) -> dict[str, bytes]:
    return {
        "empty": b"",
        "no database": b"x" * len(data),
        "cut off": data[: len(data) // 2],
        "zeros": data[:100] + bytes(len(data) - 100),
        "a header alone": data[:100],
    }


@pytest.mark.parametrize("kind", damages(bytes(200)))
def test_a_damaged_database_is_refused(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path)
    path.write_bytes(damages(path.read_bytes())[kind])
    with pytest.raises(FormatError), Catalog.open(path) as catalog:
        list(catalog.items())


def test_damage_anywhere_is_an_error_or_harmless(tmp_path: Path) -> None:
    data = written(tmp_path).read_bytes()
    path = tmp_path / "damaged"
    for position in range(0, len(data), 97):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :])
        try:
            with Catalog.open(path) as catalog:
                list(catalog.items())
                catalog.get(RECORDS[1][0])
        except FormatError:
            continue


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    writer = CatalogWriter(tmp_path)
    writer.close()
    execute: Callable[..., object] = full
    monkeypatch.setattr(writer, "_connection", type("Full", (), {"execute": execute, "close": full}))
    with pytest.raises(OutputError, match="cannot be written: database or disk is full"):
        writer.add(b"key", b"record")
