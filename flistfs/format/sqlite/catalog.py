"""The catalog of generation 2: the records of an flist in an SQLite database.

A database of strangers is opened so that it can do nothing but answer: read-only and immutable, so that
nothing is written beside it; without views, triggers and virtual tables, which would run what they say; and
with a bound on the work of every query.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

from flistfs.errors import FormatError, OutputError
from flistfs.format.faults import LostRecordError
from flistfs.format.metadata import MAX_VALUE, MAX_VALUES
from flistfs.format.sqlite.members import MEMBERS
from flistfs.format.zeroos.limits import READERS_LIMIT
from flistfs.util.closing import Closing

# The columns as zflist declares them. A key is stored as TEXT, a value as BLOB: readers find no others.
_SCHEMA: Final = (
    "CREATE TABLE entries (key VARCHAR(64) PRIMARY KEY, value BLOB)",
    "CREATE TABLE metadata (key VARCHAR(64) PRIMARY KEY, value TEXT)",
)

# The header's field of the library that wrote the file last: the only bytes that depend on the machine. This
# is 3.40.1; `integrity_check` takes any.
_VERSION_OFFSET: Final = 96
_VERSION: Final = (3040001).to_bytes(4, "big")

# Instructions of SQLite's machine after which it asks whether to continue, and how often for one row. A
# look-up takes some twenty instructions, a step of a walk fewer.
_STEP: Final = 10_000
_MAX_STEPS: Final = 1_000

_ARTICLES: Final = {"view": "a view", "trigger": "a trigger"}


class Catalog(Closing):
    """The records of an flist, by key."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.metadata: Mapping[str, bytes] = {}
        """The values of the table of metadata by their keys; none where there is no such table."""
        self._connection = connection
        self._order = "rowid"
        self._records = 0
        self._steps = 0
        connection.set_progress_handler(self._count_step, _STEP)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a database; nothing is written beside it.

        Raises:
            FormatError: it is not one, is damaged, or not what an flist has.
        """
        for suffix in ("-wal", "-journal"):
            beside = path.with_name(path.name + suffix)
            if beside.exists() and beside.stat().st_size:
                raise FormatError(
                    f"there is a {beside.name} beside it: it was not closed, and may lack records"
                )
        # Whatever the path has in it must not be read as a part of the URI.
        uri = f"file:{quote(bytes(path.resolve()))}?mode=ro&immutable=1"
        with _readable():
            connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
        catalog = cls(connection)
        try:
            catalog._prepare()
            catalog.metadata = catalog._metadata()
        except BaseException:
            catalog.close()
            raise
        return catalog

    def get(self, key: bytes) -> bytes | None:
        """Return a record; None if there is none.

        Raises:
            FormatError: it is not stored as a record, or the database is damaged.
        """
        row = self._row("SELECT value FROM entries WHERE key = ?", key)
        if row is None:
            return None
        (value,) = row
        if not isinstance(value, bytes):
            raise LostRecordError(
                "its record is lost (it was too large for the program that wrote the flist)"
            )
        return value

    def has(self, key: bytes) -> bool:
        """Return whether there is a record."""
        return self._row("SELECT 1 FROM entries WHERE key = ?", key) is not None

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Walk all records with their keys, in the order in which they were written.

        Raises:
            FormatError: the database is damaged, or a record is lost.
        """
        for key, value in self.rows():
            if not isinstance(value, bytes):
                raise FormatError("a record is lost: it was too large for the program that wrote the flist")
            yield key, value

    def rows(self) -> Iterator[tuple[bytes, object]]:
        """Walk all keys as `items` does, with what is there of their records: that of a lost one is no bytes.

        Raises:
            FormatError: the database is damaged.
        """
        with _readable():
            rows = self._connection.execute(f"SELECT key, value FROM entries ORDER BY {self._order}")  # noqa: S608  one of our own
        while True:
            with _readable():
                self._steps = 0
                row = rows.fetchone()
            if row is None:
                return
            key, value = row
            if not isinstance(key, str):
                raise FormatError("a record has a key that readers do not find: it is not a text")
            yield key.encode(errors="surrogateescape"), value

    @property
    def estimated_records(self) -> int:
        """About how many records there are."""
        return self._records

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def _metadata(self) -> Mapping[str, bytes]:
        if self._row("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'metadata'") is None:
            return {}
        if self._number("SELECT max(length(value)) FROM metadata") > MAX_VALUE:
            raise FormatError(f"its metadata has a value of more than {MAX_VALUE >> 20} MiB")
        with _readable():
            self._steps = 0
            rows = self._connection.execute(
                "SELECT key, CAST(value AS BLOB) FROM metadata WHERE key IS NOT NULL ORDER BY key LIMIT ?",
                [MAX_VALUES + 1],
            ).fetchall()
        if len(rows) > MAX_VALUES:
            raise FormatError(f"its metadata has more than {MAX_VALUES:,} values")
        return {str(key): value or b"" for key, value in rows}

    def _prepare(self) -> None:
        with _readable():
            self._connection.text_factory = _text
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, READERS_LIMIT + (1 << 20))
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            for pragma in (
                "trusted_schema = OFF",
                "query_only = ON",
                "cell_size_check = ON",
                "mmap_size = 0",
            ):
                self._connection.execute(f"PRAGMA {pragma}")
        kinds: dict[str, str] = {}
        with _readable():
            self._steps = 0
            for kind, name, page in self._connection.execute(
                "SELECT type, name, rootpage FROM sqlite_master LIMIT 100"
            ):
                if kind not in {"table", "index"} or not page:  # a virtual table has no page
                    raise FormatError(f"it has {_ARTICLES.get(kind, 'a virtual table')}, which no flist has")
                kinds[name] = kind
        if kinds.get("entries") != "table":
            raise FormatError("it has no table of entries")
        try:
            self._records = self._number("SELECT max(rowid) FROM entries")
        except FormatError:  # a table without them, which 0-fs and zflist read
            self._order = "key"
            self._records = self._number("SELECT count(*) FROM entries")

    def _row(self, query: str, key: bytes | None = None) -> tuple[object, ...] | None:
        with _readable():
            self._steps = 0
            parameters = [] if key is None else [key.decode("latin-1")]  # digits; nothing else is ever found
            row: tuple[object, ...] | None = self._connection.execute(query, parameters).fetchone()
            return row

    def _number(self, query: str) -> int:
        row = self._row(query)
        return row[0] if row is not None and isinstance(row[0], int) else 0

    def _count_step(self) -> int:
        self._steps += 1
        return self._steps > _MAX_STEPS


def _text(raw: bytes) -> str:
    return raw.decode(errors="surrogateescape")


@contextmanager
def _readable() -> Iterator[None]:
    """Report what SQLite raises of a database as damage."""
    try:
        yield
    except (sqlite3.Error, UnicodeError, OverflowError) as error:
        raise FormatError(f"its database is damaged ({error})") from error


class CatalogWriter(Closing):
    """A catalog in the making, for readers of every kind: see `zeroos.dialect`."""

    def __init__(self, directory: Path) -> None:
        """Write into `directory`, which is made if need be.

        Raises:
            OSError: the directory cannot be written.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / MEMBERS.needed
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        with _writable():
            # What a process that died has begun is written anew from the start: no journal is needed.
            for statement in ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", *_SCHEMA, "BEGIN"):
                self._connection.execute(statement)

    def add(self, key: bytes, record: object) -> None:
        """Add a record, or what is there of a lost one. Equal records in equal order make equal bytes.

        Raises:
            FormatError: the key is there already.
            OutputError: the disk is full.
        """
        with _writable():
            self._connection.execute("INSERT INTO entries VALUES (?, ?)", (key.decode(), record))

    def add_metadata(self, metadata: Mapping[str, bytes]) -> None:
        """Add values of metadata, in the order of their keys; raises as `add`."""
        with _writable():
            for key, value in sorted(metadata.items()):
                self._connection.execute(
                    "INSERT INTO metadata VALUES (CAST(? AS TEXT), CAST(? AS TEXT))",
                    (key.encode(errors="surrogateescape"), value),
                )

    def finish(self) -> None:
        """Complete the file.

        Raises:
            OutputError: the disk is full.
            OSError: the same.
        """
        with _writable():
            # The journal's mode is in the file if it is WAL, which rfs would change.
            for statement in ("COMMIT", "PRAGMA journal_mode = DELETE", "VACUUM"):
                self._connection.execute(statement)
        self.close()
        with self._path.open("r+b") as file:
            file.seek(_VERSION_OFFSET)
            file.write(_VERSION)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()


@contextmanager
def _writable() -> Iterator[None]:
    try:
        yield
    except UnicodeError:
        raise FormatError("a record has a key that no reader finds: it is no text") from None
    except sqlite3.IntegrityError as error:
        raise FormatError(f"the catalog has a key twice ({error})") from error
    except sqlite3.Error as error:
        raise OutputError(f"the catalog cannot be written: {error}") from error
