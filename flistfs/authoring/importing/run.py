"""Add a source to the tree of a session."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import trio

from flistfs.authoring.filesystem.values import Caller
from flistfs.authoring.importing.fitting import JournalTree, real_target
from flistfs.authoring.importing.importer import Imported, Importer
from flistfs.authoring.importing.ingest import MAX_PROBLEMS, Ingest
from flistfs.authoring.parts import Parts
from flistfs.authoring.request import AddRequest
from flistfs.authoring.state.settings import PartialAdd, partial_adds_of
from flistfs.authoring.summaries import AddSummary
from flistfs.authoring.upload.store_timeout import Standstill, StoreTimeout
from flistfs.errors import (
    NoPlaceError,
    SessionError,
)
from flistfs.sources.directory import DirectorySource
from flistfs.sources.fitting import DEAD_LINK
from flistfs.sources.item import TreeSource
from flistfs.util.nurseries import unwrapped
from flistfs.util.progress import Progress, Report

# Entries that do not fit named in a message.
_NAMED_PROBLEMS = 20

Invalidate = Callable[[Sequence[tuple[int, bytes]], Iterable[int]], None]
"""Makes the kernel forget names (of parent inodes) and inodes; blocks, and must not run in the event loop."""


class Adding:
    """Adds to one session; several may run concurrently. `has_begun`: whether any has changed the session."""

    def __init__(self, parts: Parts) -> None:
        self.has_begun = False
        self._parts = parts
        self._marking = trio.Lock()
        self._at_work: Counter[PartialAdd] = Counter()

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
        """Put a source into the tree; return when it is there, with all its blocks stored.

        Args:
            source: Where it comes from.
            request: Where it goes, and how.
            progress: Called with a `Report` as the work goes on.
            owner: Who owns directories that are made for it to go to.
            unique: Whether an entry that comes twice is a problem.
            invalidate: For a tree that is mounted.

        Raises:
            NoPlaceError: something does not fit into the tree, and nothing was added.
            SourceError: `to` does not lead to a directory; or something could not be imported, and what was
                imported before stays.
            StoreError: the store does not accept blocks.
            SessionError: the journal cannot be written.
        """
        started, before = time.monotonic(), replace(self._parts.content.counts)

        async def changed(done: Imported) -> None:
            if invalidate is not None:
                await trio.to_thread.run_sync(invalidate, done.names, done.inodes)
                return
            for ino in done.nameless:  # the kernel does not hold them
                self._parts.vfs.forget(ino)

        to = real_target(self._parts.journal, os.fsencode(request.to))
        if isinstance(source, DirectorySource):
            await self._fit(source, to, keep_going=request.keep_going)
        top, made = self._parts.vfs.make_directories(to, owner)
        if invalidate is not None:
            await trio.to_thread.run_sync(invalidate, made, [parent for parent, _ in made])
        partial_adds = partial_adds_of(request)
        if partial_adds:  # a base has none, and is recorded in another way
            await self._mark(self._parts.directory.begin_adds, partial_adds)
        self.has_begun = True
        self._at_work.update(partial_adds)
        importer = Importer(self._parts.journal, self._parts.content, self._parts.vfs, top, unique=unique)
        ingest = Ingest(
            source,
            importer,
            self._parts.uploader.submit,
            changed,
            max_size=self._parts.content.max_size,
            keep_going=request.keep_going,
            check_content=request.check_content,
        )
        try:
            with unwrapped():
                async with trio.open_nursery() as nursery:
                    if request.measure:
                        nursery.start_soon(
                            partial(trio.to_thread.run_sync, abandon_on_cancel=True), source.measure
                        )
                    nursery.start_soon(
                        self._report_progress, source, ingest, StoreTimeout(request.timeout, progress)
                    )
                    await ingest.run()
                    nursery.cancel_scope.cancel()
        except OSError as error:
            raise SessionError(f"the session cannot be written: {error.strerror or error}") from error
        finally:
            source.close()
            self._at_work.subtract(partial_adds)
        # Another call may be adding the same at this time, and may fail later.
        if whole := [add for add in partial_adds if not self._at_work[add]]:
            await trio.to_thread.run_sync(
                self._parts.journal.sync
            )  # what is recorded as complete must survive a power cut
            await self._mark(self._parts.directory.finish_adds, whole)
        after = self._parts.content.counts
        return AddSummary(
            entries=ingest.counts.entries,
            size=ingest.counts.size,
            new_blocks=after.new_blocks - before.new_blocks,
            new_bytes=after.new_bytes - before.new_bytes,
            shared_blocks=after.shared_blocks - before.shared_blocks,
            seconds=time.monotonic() - started,
            left_out=ingest.left_out,
            left_out_count=ingest.left_out_count,
            replaced=[os.fsdecode(path) for path in ingest.replaced],
            replaced_count=ingest.replaced_count,
            notes=ingest.notes,
            replaced_blocks=after.replaced_blocks - before.replaced_blocks,
        )

    async def _fit(self, source: DirectorySource, to: bytes, *, keep_going: bool) -> None:
        """Determine how a source fits into the tree.

        Raises:
            NoPlaceError: something does not fit, and `keep_going` is not set.
        """
        tree = JournalTree(self._parts.journal)
        problems = await trio.to_thread.run_sync(source.fit, tree, to, abandon_on_cancel=True)
        if problems and not keep_going:
            no_place = [(source.named(each.path), each.reason) for each in problems[:MAX_PROBLEMS]]
            raise NoPlaceError(_no_place_message(no_place, len(problems)), no_place, len(problems))

    async def _mark(self, mark: Callable[[Sequence[PartialAdd]], object], adds: Sequence[PartialAdd]) -> None:
        """Update the record of incomplete adds, which concurrent adds share."""
        async with self._marking:
            await trio.to_thread.run_sync(mark, adds)

    async def _report_progress(self, source: TreeSource, ingest: Ingest, timeout: StoreTimeout) -> None:
        standstill = Standstill(self._parts.store.url)
        while True:
            counts = self._parts.content.counts
            done, total = source.extent(ingest.counts.size)
            figures = {
                "entries": ingest.counts.entries,
                "size": ingest.counts.size,
                "new_blocks": counts.new_blocks,
                "shared_blocks": counts.shared_blocks,
            }
            trouble = standstill.trouble(self._parts.uploader.status())
            timeout.report(Report("add", done, total, trouble, figures))
            await trio.sleep(0.1)


def _no_place_message(no_place: Sequence[tuple[str, str]], count: int) -> str:
    named = ", ".join(f"{name}: {why}" for name, why in no_place[:_NAMED_PROBLEMS])
    more = ""
    if count > _NAMED_PROBLEMS:
        listed = "all" if len(no_place) == count else f"{len(no_place):,}"
        more = f", and {count - _NAMED_PROBLEMS:,} more (`no_place` lists {listed})"
    advice = "`keep_going` skips what does not fit"
    if any(why == DEAD_LINK for _, why in no_place):
        advice += ", `replace_links` lets a directory replace a link"
    return f"{named}{more}; nothing was added: {advice}"
