"""Copy the blocks of a sealed flist to another store.

Only what the target lacks is sent, so an interrupted push continues where it stopped.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from flistfs.errors import BlockCorruptError, BlockMissingError, FlistfsError, FormatError, OutputError
from flistfs.format.base import Fault
from flistfs.reading.flist import Flist
from flistfs.stores import Store
from flistfs.stores.copying import BATCH, Copier
from flistfs.stores.url import shown_store
from flistfs.tree.chunks import BlockRef
from flistfs.tree.names import printable
from flistfs.util.progress import Progress, Report, counting

# Hashes per query while checking that the target has every block.
_CHECK_BATCH = 4096

# Files between two progress reports.
_REPORT_EVERY = 1024

# How many unavailable blocks are kept, to name the files that need them, and how many files are named.
_KEPT_FAULTS = 10_000
_NAMED_FILES = 5


@dataclass(frozen=True, slots=True)
class PushSummary:
    """What was pushed: of all `blocks`, each counted once, `sent` were missing or corrupt in the target.

    `replaced` counts the latter. `store` is the URL of the target. `servers` are those that the flist names
    to its readers from then on, if it was told to, and `notes` say what is to be known of that. `faults` are
    what the program that wrote the flist lost or mixed up, up to 10,000 of `fault_count`.
    """

    store: str
    blocks: int
    sent: int
    sent_bytes: int
    replaced: int = 0
    servers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    fault_count: int = 0


def push(
    flist: Flist, source: Store, target: Store, progress: Progress, *, check_content: bool = False
) -> PushSummary:
    """Copy the blocks of an flist that are missing or corrupt in the target from the source to the target.

    Blocks in the target are compared if they may have changed unnoticed; with `check_content` all are.

    Blocks that the source cannot provide do not prevent the rest from being pushed.

    Raises:
        BlockMissingError: the source lacks blocks that the target lacks too, or the target lost some.
        BlockCorruptError: blocks in the source are corrupt.
        FormatError: the flist is damaged.
        StoreError: a store cannot be used. What has been pushed so far stays.
        OutputError: the disk for temporary files is full.
    """
    faults = _Faults()
    with (
        Blocks.of(flist, progress) as blocks,
        Copier(
            source,
            target,
            len(blocks),
            counting(progress, "push"),
            faults.note,
            check_content=check_content,
        ) as copier,
    ):
        for batch in blocks.batches(BATCH):
            copier.submit(batch)
        copier.finish()
        target.sync()
        lost = _check(blocks, target, progress) - faults.count
        if faults.count:
            raise faults.error(flist, source)
        if lost > 0:
            raise BlockMissingError(
                f"{shown_store(target.url)} has lost {lost} blocks after acknowledging them; make sure "
                f"that it keeps all data (Redis: maxmemory-policy noeviction), and push again"
            )
        return PushSummary(target.url, len(blocks), copier.sent, copier.sent_bytes, copier.replaced)


class Blocks:
    """The blocks of an flist, each once, in a temporary file: there may be more than memory holds."""

    def __init__(self, table: sqlite3.Connection) -> None:
        self._table = table

    @classmethod
    def of(cls, flist: Flist, progress: Progress) -> Self:
        """Collect the blocks of all files."""
        table = sqlite3.connect("")  # a file without a name, gone when it is closed
        try:
            table.execute("CREATE TABLE blocks (hash BLOB, key BLOB, PRIMARY KEY (hash, key)) WITHOUT ROWID")
            table.executemany("INSERT OR IGNORE INTO blocks VALUES (?, ?)", _refs(flist, progress))
            table.commit()
        except BaseException as error:
            table.close()
            if isinstance(error, sqlite3.Error):
                raise OutputError(
                    f"the list of blocks cannot be kept in a temporary file: {error}"
                ) from error
            raise
        return cls(table)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._table.close()

    def __len__(self) -> int:
        (count,) = self._table.execute("SELECT count(*) FROM blocks").fetchone()
        assert isinstance(count, int)  # noqa: S101  the type checker's
        return count

    def batches(self, size: int) -> Iterator[list[BlockRef]]:
        """Yield the blocks, in the order of their hashes."""
        rows = self._table.execute("SELECT hash, key FROM blocks ORDER BY hash, key")
        while batch := rows.fetchmany(size):
            yield [BlockRef(block_hash, key) for block_hash, key in batch]


def _refs(flist: Flist, progress: Progress) -> Iterator[tuple[bytes, bytes]]:
    for count, node in enumerate(flist.files()):
        if not count % _REPORT_EVERY:
            progress(Report("list", count, 0))
        for ref in node.blocks:
            if not flist.codec.is_ref(ref):
                raise FormatError(
                    f"{printable(node.path)} has a block with an invalid hash or key; nothing was pushed"
                )
            yield ref.hash, ref.key


def _check(blocks: Blocks, target: Store, progress: Progress) -> int:
    """Count the blocks that the target does not hold."""
    done = lacking = 0
    total = len(blocks)
    for batch in blocks.batches(_CHECK_BATCH):
        absent = target.missing([ref.hash for ref in batch])
        lacking += sum(ref.hash in absent for ref in batch)
        done += len(batch)
        progress(Report("check", done, total))
    return lacking


class _Faults:
    """The blocks that the source could not provide."""

    def __init__(self) -> None:
        self._missing = 0
        self._corrupt = 0
        self._kept: set[BlockRef] = set()

    @property
    def count(self) -> int:
        return self._missing + self._corrupt

    def note(self, ref: BlockRef, error: FlistfsError) -> None:
        if isinstance(error, BlockMissingError):
            self._missing += 1
        else:
            self._corrupt += 1
        if len(self._kept) < _KEPT_FAULTS:
            self._kept.add(ref)

    def error(self, flist: Flist, source: Store) -> FlistfsError:
        """Return an error that names the affected files."""
        kind = BlockMissingError if self._missing else BlockCorruptError
        lacks = f"lacks {self._missing} of the blocks" if self._missing else ""
        holds = f"holds {self._corrupt} that are corrupt" if self._corrupt else ""
        files = _files_with(flist, self._kept)
        names = [*map(printable, files[:_NAMED_FILES])]
        more = f" and {len(files) - _NAMED_FILES} more" if len(files) > _NAMED_FILES else ""
        return kind(
            f"{shown_store(source.url)} {' and '.join(filter(None, (lacks, holds)))}, in "
            f"{', '.join(names)}{more}; everything else was pushed",
            paths=[*map(os.fsdecode, files)],
        )


def _files_with(flist: Flist, refs: set[BlockRef]) -> list[bytes]:
    return sorted(node.path for node in flist.files() if not refs.isdisjoint(node.blocks))
