"""The catalog of generation 1: the records of a flist in a RocksDB database.

It is written without opening a database: the sorted records stream into one table, and a MANIFEST that
names it is written beside it. So nothing is logged, flushed or compacted, no lock or options file comes to
be, and equal records make equal bytes. RocksDB 5.2.1 and everything newer opens the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Self

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    ChecksumType,
    DbClosedError,
    DBCompressionType,
    Options,
    Rdict,
    SstFileWriter,
)

from flistfs.closing import Closing
from flistfs.errors import FormatError
from flistfs.format.manifest import TableFile, write_manifest
from flistfs.format.sst import remove_identity

_TABLE_NUMBER: Final = 9
_TABLE_FORMAT: Final = 2  # the newest that RocksDB 5.2.1 reads


def write_catalog(folder: Path, records: Iterable[tuple[bytes, bytes]]) -> None:
    """Write `records`, pairs of key and value in ascending order of keys, as a catalog into `folder`.

    Memory stays flat: records are taken one by one. The folder is made if need be; CURRENT is written last.

    Raises:
        FormatError: there are no records, their keys do not ascend, or RocksDB fails.
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_TABLE_NUMBER:06}.sst"
    writer = SstFileWriter(options=_table_options())
    try:
        writer.open(str(path))
    except Exception as error:
        raise _rocksdb_error("cannot write the catalog", error) from error
    smallest, largest = _add_all(writer, records)
    try:
        writer.finish()
    except Exception as error:
        raise _rocksdb_error("cannot write the catalog", error) from error
    remove_identity(path)
    write_manifest(folder, TableFile(_TABLE_NUMBER, path.stat().st_size, smallest, largest))


class Catalog(Closing):
    """A catalog open for reading. May be used from several threads at once."""

    def __init__(self, database: Rdict) -> None:
        self._database = database

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the catalog in `folder`, which may be one that an old RocksDB left with data in its log.

        The records are not changed, but rocksdict puts a small file of its own into the folder.

        Raises:
            FormatError: there is no catalog there, or RocksDB cannot open it.
        """
        # RocksDB would make the folder and say something about a missing file.
        if not (folder / "CURRENT").is_file():
            raise FormatError(f"there is no catalog in {folder}")
        try:
            options = Options(raw_mode=True)
            options.create_if_missing(False)
            return cls(Rdict(str(folder), options=options, access_type=AccessType.read_only()))
        except Exception as error:
            raise _rocksdb_error(f"cannot open the catalog in {folder}", error) from error

    def get(self, key: bytes) -> bytes | None:
        """Return the value of `key`, or None where there is none.

        Raises:
            FormatError: the catalog is damaged there.
        """
        try:
            value: bytes | None = self._database.get(key)
        except DbClosedError:
            raise
        except Exception as error:
            raise _rocksdb_error("cannot read the catalog", error) from error
        return value

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield all pairs of key and value, in ascending order of keys.

        Raises:
            FormatError: the catalog is damaged; what was yielded before is sound.
        """
        try:
            cursor = self._database.iter()
            cursor.seek_to_first()
            while cursor.valid():
                yield cursor.key(), cursor.value()
                cursor.next()
            cursor.status()
        except DbClosedError:
            raise
        except Exception as error:
            raise _rocksdb_error("cannot read the catalog", error) from error

    @property
    def estimated_records(self) -> int:
        """About how many records there are, for showing progress."""
        return int(self._database.property_int_value("rocksdb.estimate-num-keys") or 0)

    def close(self) -> None:
        """Close the database. May be called twice."""
        self._database.close()


def _table_options() -> Options:
    table = BlockBasedOptions()
    table.set_format_version(_TABLE_FORMAT)
    table.set_checksum_type(ChecksumType.crc32c())
    options = Options(raw_mode=True)
    options.set_block_based_table_factory(table)
    # Compressed tables make larger packages, for gzip finds less in them: the real flist of 2017 comes to
    # 1,215 kB without and 1,383 kB with snappy. Nor do the bytes then hang on the version of a library.
    options.set_compression_type(DBCompressionType.none())
    return options


def _add_all(writer: SstFileWriter, records: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    smallest: bytes | None = None
    previous = b""
    for key, value in records:
        if smallest is None:
            smallest = key
        elif key <= previous:
            raise FormatError(f"catalog records out of order: {key!r} after {previous!r}")
        previous = key
        try:
            writer[key] = value
        except Exception as error:
            raise _rocksdb_error("cannot write the catalog", error) from error
    if smallest is None:
        raise FormatError("a catalog needs at least one record")
    return smallest, previous


def _rocksdb_error(what: str, error: Exception) -> FormatError:
    # rocksdict has no class of its own for RocksDB's errors: it raises plain Exception.
    return FormatError(f"{what}: {' '.join(str(error).split())}")
