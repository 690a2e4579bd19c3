"""The life of a session: opened, used, sealed.

A `Session` is the parts of an open session wired together; it lives in an event loop. The daemon opens one
and mounts its `vfs`; a seal of a session whose daemon is gone opens one without a mount.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any, cast

import trio

from flistfs.authoring.base import Base
from flistfs.authoring.filesystem.chunks import Chunk
from flistfs.authoring.filesystem.content import Content
from flistfs.authoring.filesystem.values import Caller
from flistfs.authoring.filesystem.vfs import Vfs
from flistfs.authoring.importing.ingest import MAX_PROBLEMS, Piece
from flistfs.authoring.importing.run import Adding, Invalidate
from flistfs.authoring.parts import Parts
from flistfs.authoring.request import AddRequest, SealRequest
from flistfs.authoring.sealing.accounts import note_named
from flistfs.authoring.sealing.metadata import Startup, metadata_of
from flistfs.authoring.sealing.run import Sealing
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.disk import Disk
from flistfs.authoring.state.journal import Journal
from flistfs.authoring.state.records import ROOT_INO
from flistfs.authoring.state.spool import Spool
from flistfs.authoring.summaries import AddSummary, BaseSummary, Result, SealSummary
from flistfs.authoring.upload.draining import drain
from flistfs.authoring.upload.encoder import Encoder, LocalEncoder
from flistfs.authoring.upload.known_blocks import KnownBlocks
from flistfs.authoring.upload.store_timeout import QUIET, StoreTimeout
from flistfs.authoring.upload.uploader import Finished, Outcome, Uploader
from flistfs.errors import (
    FlistfsError,
)
from flistfs.format.base import Format
from flistfs.sources.item import Item, TreeSource
from flistfs.sources.sealed import BaseSource
from flistfs.sources.startup import StartupSource
from flistfs.stores import Store
from flistfs.stores.combined.fallback import FallbackStore
from flistfs.util.durable import sync_directory
from flistfs.util.nurseries import unwrapped
from flistfs.util.progress import Progress, Report, quiet

log = logging.getLogger(__name__)

# Seconds that storing the rest may take when a mount has ended: what stops services kills after ten.
_AT_END = 8.0


class Session:
    """An open session. Made by `open_session`."""

    def __init__(self, parts: Parts) -> None:
        self.vfs = parts.vfs
        self.store = parts.store
        self.parts = parts
        self._adding = Adding(parts)
        self._sealing = Sealing(parts)

    @property
    def has_begun_adding(self) -> bool:
        """Whether anything was added that changed the tree."""
        return self._adding.has_begun

    def status(self) -> dict[str, Any]:
        """Return the status of the session: what it holds, what waits, what was stored, and any trouble."""
        totals, content, uploads = (
            self.parts.vfs.totals,
            self.parts.content.status(),
            self.parts.uploader.status(),
        )
        return {
            **asdict(totals),
            **asdict(self.parts.content.counts),
            **asdict(content),
            **asdict(uploads),
            "store_trouble": self.parts.store.trouble or uploads.store_trouble,
        }

    async def seal(
        self,
        request: SealRequest,
        unmount: Callable[[], Awaitable[None]] | None,
        progress: Progress,
        invalidate: Invalidate | None = None,
    ) -> SealSummary:
        """Seal the tree into an flist; see `Sealing.seal`.

        Raises also:
            SessionError: something was not added whole, and the request does not take that.
            UsageError: the format has no place for what is to be said, or there is nothing to start.
        """
        parts = self.parts
        metadata, startup = await trio.to_thread.run_sync(self.check_sayable, request)
        self._sealing.check_complete(request)
        if startup is not None:
            top = _top(parts.journal)
            source = StartupSource(startup.entrypoint, startup.environ, top, startup.directory)
            adding = AddRequest((), timeout=request.timeout)
            await self.add(source, adding, quiet, owner=Caller(0, 0), invalidate=invalidate)
        return await self._sealing.seal(request, metadata, unmount, progress)

    def check_sayable(self, request: SealRequest) -> tuple[dict[str, bytes], Startup | None]:
        """Check that the format has a place for what a seal is to say; return it (blocks): see `metadata_of`.

        Raises:
            UsageError: it has none.
        """
        return metadata_of(self.parts.format, request, self.parts.directory.base_metadata())

    async def sync(self, timeout: float, progress: Progress) -> None:
        """Return when everything written before is in the store.

        Raises:
            StoreUnavailableError: the store took nothing for `timeout` seconds.
        """
        await drain(self.parts, StoreTimeout(timeout, progress))
        await trio.to_thread.run_sync(self.parts.uploader.sync_store)

    async def store_rest(self) -> None:
        """Store what is there now, as long as the store takes it without delay; the rest stays spooled."""
        self.parts.content.settle_all()
        queued, moved, end = -1, time.monotonic(), time.monotonic() + _AT_END
        while (status := self.parts.uploader.status()).queued and status.trouble is None:
            now = time.monotonic()
            if status.queued != queued:
                queued, moved = status.queued, now
            if now > end or now - moved > QUIET:
                return
            await trio.sleep(0.02)

    async def add(
        self,
        source: TreeSource,
        request: AddRequest,
        progress: Progress,
        *,
        owner: Caller,
        unique: bool = False,
        invalidate: Invalidate | None = None,
    ) -> AddSummary:
        """Put what a source has into the tree; see `Adding.add`."""
        return await self._adding.add(
            source, request, progress, owner=owner, unique=unique, invalidate=invalidate
        )

    def note_accounts(self, source: BaseSource) -> None:
        """Record the accounts that a sealed flist, which was added, knows by name only.

        Raises:
            SessionError: the journal cannot be written.
        """
        with self.parts.journal.change() as change:
            note_named(change, source.named_users, source.named_groups)

    async def start(self, progress: Progress) -> BaseSummary | None:
        """Let a new session have the tree of its base, if it has one, and be kept from then on.

        Raises:
            FormatError: they are at fault, or hold what a session cannot.
            SessionError: the journal cannot be written.
        """
        base = self.parts.base.source
        if base is None:
            return None

        def tell(report: Report) -> None:
            progress(Report("base", report.done, report.total, report.trouble))

        owner = Caller(os.geteuid(), os.getegid())
        added = await self.add(base, AddRequest(()), tell, owner=owner, unique=True)
        self.note_accounts(base)
        await trio.to_thread.run_sync(self.parts.journal.sync)
        await trio.to_thread.run_sync(self.parts.directory.finish)
        progress(Report("base", 1, 1))
        return BaseSummary(
            added.entries,
            added.size,
            base.unknown_owners,
            added.seconds,
            {name: list(map(os.fsdecode, paths[:MAX_PROBLEMS])) for name, paths in base.hidden.items()},
            {name: len(paths) for name, paths in base.hidden.items()},
            base.accepted_faults,
        )


def _top(journal: Journal) -> Item:
    """Return the directory at the top of the tree as it is."""
    inode = journal.inode(ROOT_INO)
    assert inode is not None  # noqa: S101  every tree has one
    mode, uid, gid, mtime, atime = inode.mode, inode.uid, inode.gid, inode.mtime_ns, inode.atime_ns
    return Item(b"", mode, uid, gid, mtime, atime, ctime_ns=inode.ctime_ns)


@asynccontextmanager
async def open_session(
    directory: SessionDirectory,
    format_: Format,
    store: Store,
    owner: Caller,
    *,
    keep_xattrs: bool = False,
    spool_limit: int | None = None,
    make_encoders: Callable[[int], Sequence[Encoder]] | None = None,
    base: Base | None = None,
) -> AsyncIterator[Session]:
    """Open the session in a directory that this process has locked; what was left over is sent again.

    Args:
        directory: Where the session lies.
        store: Where its blocks go.
        format_: How it is to be sealed, and its blocks made.
        owner: Who owns the root directory of a new one.
        keep_xattrs: Whether extended attributes live as long as the session.
        spool_limit: Bytes that may wait to be stored; by default what suits the disk.
        make_encoders: Makes what stores chunks, given the spool file's descriptor; by default one that works
            in a thread of this process.
        base: What it has of sealed flists that it starts or started from.

    Raises:
        JournalError: the journal is damaged.
    """
    base = base or Base()
    token = trio.lowlevel.current_trio_token()
    disk = Disk(directory.path)
    journal = Journal(directory.journal)
    try:
        spool = Spool(directory.spool, (spooled.slot for spooled in journal.spooled()))
        # An fsync in the mount is of no use if the file that it wrote to has no name after a power cut.
        sync_directory(directory.path)
        sync_directory(directory.path.parent)

        is_open = True

        def note(reports: list[Finished[Chunk | Piece]]) -> None:
            if is_open:  # else they are asked for again when the session resumes
                _distribute(reports, content)

        def report(reports: list[Finished[Chunk | Piece]]) -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(note, reports)

        if make_encoders is None:
            encoders: Sequence[Encoder] = [LocalEncoder(store, spool.fileno(), KnownBlocks())]
        else:
            encoders = make_encoders(spool.fileno())
        uploader: Uploader[Chunk | Piece] = Uploader(encoders, store.sync, report)
        try:
            content = Content(
                journal,
                spool,
                store if base.store is None else FallbackStore([store, base.store]),
                uploader.submit,
                uploader.sync_store,
                max_size=format_.limits.file_size,
                disk=disk,
                spool_limit=disk.default_spool_limit() if spool_limit is None else spool_limit,
                is_stuck=lambda: uploader.status().trouble is not None,
            )
            vfs = Vfs(journal, content, owner=owner, keep_xattrs=keep_xattrs)
            with unwrapped():
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_settle_idle, content)
                    yield Session(Parts(directory, format_, journal, store, uploader, content, vfs, base))
                    nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(uploader.close)
            is_open = False
            spool.close()
    finally:
        journal.close()


def _distribute(reports: list[Finished[Chunk | Piece]], content: Content) -> None:
    """Report to all submitters what became of their chunks."""
    stored: list[Outcome[Chunk]] = []
    for report in reports:
        owner = report.job.owner
        if isinstance(owner, Piece):
            owner.ingest.report(owner, cast("Finished[Piece]", report))
        elif isinstance(report, Outcome):
            stored.append(cast("Outcome[Chunk]", report))
    if stored:
        content.stored(stored)


async def seal_session(
    session: Session,
    directory: SessionDirectory,
    request: SealRequest,
    unmount: Callable[[], Awaitable[None]] | None,
    progress: Progress,
    invalidate: Invalidate | None = None,
) -> SealSummary:
    """Seal, and keep the summary as the session's result, even if nobody waits for it.

    Raises what `Session.seal` does.
    """
    try:
        summary = await session.seal(request, unmount, progress, invalidate)
    except FlistfsError as error:
        log.error("sealing failed: %s", error)  # noqa: TRY400  the user's matter, no bug
        raise
    log.info("sealed %s", summary)
    directory.write_result(Result(0, f"sealed {request.out}", time.time(), summary))
    return summary


def keep_failure(directory: SessionDirectory, error: FlistfsError) -> None:
    """Keep why a session that is not mounted any more could not be sealed."""
    with suppress(OSError):  # a full disk, say, must not hide the reason itself
        directory.write_result(Result(error.exit_code, str(error), time.time(), code=error.code))


async def _settle_idle(content: Content) -> None:
    while True:
        await trio.sleep(0.5)
        content.settle_idle()
