"""The catalog of generation 1: the records of an flist in a RocksDB database.

It is written without opening a database: the sorted records are streamed into one table, and a MANIFEST that
names it is written next to it. So nothing is logged, flushed or compacted, no lock or options file is
created, and equal records give equal bytes. RocksDB 5.2.1 and everything newer opens the result.

Such a catalog, and any other database of a single table of that kind with a small log, is read without
RocksDB; other databases are first converted by it (`isolated`).
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from flistfs.errors import FormatError, OutputError
from flistfs.format.rocksdb.block import UnsupportedTableError
from flistfs.format.rocksdb.isolated import rewrite_catalog
from flistfs.format.rocksdb.manifest import TableFile, read_manifest, write_manifest
from flistfs.format.rocksdb.sst import remove_identity
from flistfs.format.rocksdb.table import Table
from flistfs.format.rocksdb.wal import Changes, read_logs
from flistfs.util.closing import Closing
from flistfs.util.scratch import Scratch

if TYPE_CHECKING:
    from rocksdict import Options

# Files with a database's records; some of the others would take effect.
_DATABASE_FILE: Final = re.compile(r"CURRENT|MANIFEST-\d+|\d+\.sst|\d+\.log")
_LOG: Final = re.compile(r"\d{6,20}\.log")
_TABLE_NUMBER: Final = 9
_TABLE_FORMAT: Final = 2  # the newest that RocksDB 5.2.1 reads


class CatalogWriter(Closing):
    """A catalog being written: takes records in ascending order of keys. Memory use is constant."""

    def __init__(self, directory: Path) -> None:
        """Write into `directory`, which is created if needed.

        Raises:
            FormatError: RocksDB fails.
            OSError: the directory cannot be written.
        """
        from rocksdict import SstFileWriter  # noqa: PLC0415  not needed for reading, which starts faster

        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._path = directory / table_name(_TABLE_NUMBER)
        self._smallest: bytes | None = None
        self._previous = b""
        self._writer = SstFileWriter(options=_table_options())
        try:
            self._writer.open(str(self._path))
        except Exception as error:
            raise _rocksdb_error("cannot write the catalog", error) from error

    def add(self, key: bytes, record: bytes) -> None:
        """Add a record.

        Raises:
            FormatError: its key does not come after the last one, or RocksDB fails.
        """
        if self._smallest is None:
            self._smallest = key
        elif key <= self._previous:
            raise FormatError(f"catalog records out of order: {key!r} after {self._previous!r}")
        self._previous = key
        try:
            self._writer[key] = record
        except Exception as error:
            raise _rocksdb_error("cannot write the catalog", error) from error

    def finish(self) -> None:
        """Complete the files; CURRENT is written last.

        Raises:
            FormatError: there are no records, or RocksDB fails.
            OSError: the directory cannot be written.
        """
        if self._smallest is None:
            raise FormatError("a catalog needs at least one record")
        try:
            self._writer.finish()
        except Exception as error:
            raise _rocksdb_error("cannot write the catalog", error) from error
        remove_identity(self._path)
        size = self._path.stat().st_size
        write_manifest(self._directory, TableFile(_TABLE_NUMBER, size, self._smallest, self._previous))

    def close(self) -> None:
        """Release the table. Its file is removed with its directory."""
        del self._writer


def write_catalog(directory: Path, records: Iterable[tuple[bytes, bytes]]) -> None:
    """Write `records`, pairs of key and value in ascending order of keys, as a catalog into `directory`.

    Raises:
        FormatError: there are no records, their keys do not ascend, or RocksDB fails.
        OSError: the directory cannot be written.
    """
    with CatalogWriter(directory) as writer:
        for key, record in records:
            writer.add(key, record)
        writer.finish()


class Catalog(Closing):
    """A catalog open for reading. May be used from several threads at once."""

    def __init__(self, table: Table, changes: Changes) -> None:
        """Read `table`, and `changes` made after it was written."""
        self._table = table
        self._changes = changes

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open the catalog in `directory` (blocks), even one that an old RocksDB left with data in its log.

        Nothing in the directory is changed.

        Raises:
            FormatError: there is no catalog there, or it cannot be opened.
            OutputError: the disk for temporary files is full.
        """
        # RocksDB would create the directory and complain about a missing file.
        if not (directory / "CURRENT").is_file():
            raise FormatError(f"there is no catalog in {directory}")
        try:
            return cls(*_open(directory))
        except FormatError as error:
            raise FormatError(f"the catalog cannot be opened: {error}") from error

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None if there is none.

        Raises:
            FormatError: the catalog is damaged there.
        """
        if key in self._changes:
            return self._changes[key]
        try:
            return self._table.get(key)
        except FormatError as error:
            raise FormatError(f"cannot read the catalog: {error}") from error

    def has(self, key: bytes) -> bool:
        """Return whether `key` exists, in a time that does not depend on its value.

        Raises:
            FormatError: the catalog is damaged there.
        """
        if key in self._changes:
            return self._changes[key] is not None
        try:
            return self._table.has(key)
        except FormatError as error:
            raise FormatError(f"cannot read the catalog: {error}") from error

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all pairs of key and value, in ascending order of keys.

        Raises:
            FormatError: the catalog is damaged; what was yielded before is valid.
        """
        try:
            unchanged = (item for item in self._table.items() if item[0] not in self._changes)
            yield from heapq.merge(unchanged, self._last_changes()) if self._changes else unchanged
        except FormatError as error:
            raise FormatError(f"cannot read the catalog: {error}") from error

    @property
    def estimated_records(self) -> int:
        """The approximate number of records, for progress reports."""
        return self._table.estimated_records + len(self._changes)

    def close(self) -> None:
        """Close it. May be called twice."""
        self._table.close()

    def _last_changes(self) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(self._changes):
            if (value := self._changes[key]) is not None:
                yield key, value


def _open(directory: Path) -> tuple[Table, Changes]:
    try:
        return _open_directly(directory)
    except UnsupportedTableError:
        pass
    try:
        return _open_rewritten(directory)
    except OSError as error:
        raise OutputError(f"temporary files cannot be written: {error.strerror}") from error


def _open_rewritten(directory: Path) -> tuple[Table, Changes]:
    with Scratch() as scratch:
        # RocksDB leaves files next to the database, and obeys some that it finds there.
        source, target = scratch.path / "database", scratch.path / "catalog"
        source.mkdir()
        for path in directory.iterdir():
            if _DATABASE_FILE.fullmatch(path.name) and path.is_file():
                (source / path.name).symlink_to(path.resolve())
        rewrite_catalog(source, target)
        return _open_directly(target)


def _open_directly(directory: Path) -> tuple[Table, Changes]:
    contents = read_manifest(directory)
    path = directory / table_name(contents.table.number)
    if not path.is_file() or path.stat().st_size != contents.table.size:
        raise FormatError(f"table {path.name} is missing, or has the wrong size")
    numbers = sorted(int(log.stem) for log in directory.iterdir() if _LOG.fullmatch(log.name))
    changes = read_logs(directory / f"{number:06}.log" for number in numbers if number >= contents.log_number)
    return Table.open(path), changes


def table_name(number: int) -> str:
    """Return the name of a table's file."""
    return f"{number:06}.sst"


def _table_options() -> Options:
    from rocksdict import BlockBasedOptions, ChecksumType, DBCompressionType, Options  # noqa: PLC0415

    table = BlockBasedOptions()
    table.set_format_version(_TABLE_FORMAT)
    table.set_checksum_type(ChecksumType.crc32c())
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    # Compressed tables make larger packages, as gzip compresses them less: the real flist of 2017 has
    # 1,215 kB without and 1,383 kB with snappy. Uncompressed bytes also do not depend on a library's version.
    options.set_compression_type(DBCompressionType.none())
    return options


def _rocksdb_error(what: str, error: Exception) -> FormatError:
    # rocksdict has no class for RocksDB's errors: it raises plain Exception.
    return FormatError(f"{what}: {' '.join(str(error).split())}")
