"""The life of a session: opened, used, sealed.

A `Session` is the parts of an open session wired together; it lives in an event loop. The daemon opens one
and mounts its `vfs`; a seal of a session whose daemon is gone opens one without a mount.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from typing import Any, cast

import trio

from flistfs.authoring.base import Base
from flistfs.authoring.filesystem.chunks import Chunk
from flistfs.authoring.filesystem.content import Content
from flistfs.authoring.filesystem.values import Caller
from flistfs.authoring.filesystem.vfs import Vfs
from flistfs.authoring.importing.fitting import JournalTree, real_target
from flistfs.authoring.importing.import_ import Grafted, Grafter
from flistfs.authoring.importing.ingest import MAX_PROBLEMS, Ingest, Piece
from flistfs.authoring.request import AddRequest, SealRequest
from flistfs.authoring.sealing import blocks, healing
from flistfs.authoring.sealing import package as sealing
from flistfs.authoring.sealing.accounts import MAX_ACCOUNTS_SIZE, Accounts
from flistfs.authoring.sealing.package import ChangedError
from flistfs.authoring.sealing.survey import Survey
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.disk import Disk
from flistfs.authoring.state.journal import Journal
from flistfs.authoring.state.settings import PartialAdd, Result, partial_adds_of
from flistfs.authoring.state.spool import Spool
from flistfs.authoring.state.view import FrozenView, View
from flistfs.authoring.summaries import AddSummary, BaseSummary, SealSummary
from flistfs.authoring.upload.encoder import Encoder, LocalEncoder
from flistfs.authoring.upload.known_blocks import KnownBlocks
from flistfs.authoring.upload.patience import QUIET, Patience, Standstill
from flistfs.authoring.upload.uploader import Finished, Outcome, Uploader
from flistfs.errors import (
    BlockCorruptError,
    BlockMissingError,
    BusyError,
    FlistfsError,
    NoPlaceError,
    OutputError,
    SessionError,
    StoreUnavailableError,
)
from flistfs.format.base import Format
from flistfs.format.router import Router, parse_router
from flistfs.reading.named import check_named
from flistfs.sources.directory import DirectorySource
from flistfs.sources.excludes import Filter, excluding
from flistfs.sources.fitting import DEAD_LINK
from flistfs.sources.item import TreeSource
from flistfs.stores import Store
from flistfs.stores.combined.fallback import FallbackStore
from flistfs.stores.readers import notes_for_readers
from flistfs.util.durable import sync_directory
from flistfs.util.nurseries import unwrapped
from flistfs.util.output_file import OutputFile
from flistfs.util.progress import Progress, Report

log = logging.getLogger(__name__)

# How often a seal starts again because files changed while it ran, before it says that the mount is busy.
_TRIES = 5

# Seconds that storing the rest may take when a mount has ended: what stops services kills after ten.
_AT_END = 8.0

# Why a seal that started again and again gives up.
_CHANGING = "files are still being written; wait for that, or end it, and seal again"
_LOSING = (
    "the store goes on losing blocks that it has acknowledged; see that it keeps all it is given "
    "(Redis: maxmemory-policy noeviction), and seal again"
)

# The journal's setting with the accounts that the base knows by name alone: users, then groups.
_NAMED = b"named"

# How many files a message names.
_NAMED_FILES = 5

# How many entries without a place a message names.
_NAMED_PROBLEMS = 20


Invalidate = Callable[[Sequence[tuple[int, bytes]], Iterable[int]], None]
"""Lets the kernel forget names (of parent inodes) and inodes; blocks, and must not run in the event loop."""


class Session:
    """An open session. Made by `open_session`."""

    def __init__(
        self,
        directory: SessionDirectory,
        format_: Format,
        journal: Journal,
        store: Store,
        uploader: Uploader[Chunk | Piece],
        content: Content,
        vfs: Vfs,
        base: Base,
    ) -> None:
        self._base = base
        self._format = format_
        self._directory = directory
        self._journal = journal
        self.store = store
        self.uploader = uploader
        self.content = content
        self.vfs = vfs
        self._marking = trio.Lock()
        self._adds_at_work: Counter[PartialAdd] = Counter()
        self.has_begun_adding = False

    def status(self) -> dict[str, Any]:
        """Say how the session is: what it holds, what waits, what was stored, and any trouble."""
        totals, content, uploads = self.vfs.totals, self.content.status(), self.uploader.status()
        return {
            **asdict(totals),
            **asdict(self.content.counts),
            **asdict(content),
            **asdict(uploads),
            "store_trouble": self.store.trouble or uploads.store_trouble,
        }

    async def seal(
        self, request: SealRequest, unmount: Callable[[], Awaitable[None]] | None, progress: Progress
    ) -> SealSummary:
        """Seal the tree into a package.

        Nothing is frozen meanwhile: if anything changes before `unmount` returns, what changed is stored and
        packaged again, now undisturbed. Until `unmount` is called the mount stays in use whatever fails.

        Args:
            request: The output, and how.
            unmount: Ends the mount; raises BusyError, with the mount as it was, if it is in use. None if
                nothing is mounted.
            progress: Is told how far it is.

        Raises:
            FormatError: the router is none.
            OutputError: the output exists or cannot be written.
            BusyError: the mount is in use, or files go on changing.
            SessionError: something was not added whole, and the request does not take that.
            BlockMissingError: the store lost blocks.
            StoreError: the store can't be asked.
        """
        started = time.monotonic()
        partial_adds = self._directory.partial_adds()
        if partial_adds and not request.incomplete:
            raise SessionError(_incomplete_message(partial_adds))
        router = await trio.to_thread.run_sync(self._router, request)
        with await trio.to_thread.run_sync(lambda: OutputFile(request.out, force=request.force)) as output:
            survey, changes = await self._build(request, router, output, progress)
            notes = await self._notes_for_readers(request, router, output, progress)
            if unmount is not None:
                progress(Report("unmount", 0, 1))
                await unmount()
            if self.vfs.changes != changes:
                log.info("the tree changed until it was unmounted: packaging it again")
                survey, _ = await self._build(request, router, output, progress)
                notes = await self._notes_for_readers(request, router, output, progress)
            package_size = output.size
            await trio.to_thread.run_sync(output.publish)
        return SealSummary(
            out=str(request.out),
            package_size=package_size,
            files=survey.files,
            directories=len(survey.directories),
            links=survey.links,
            specials=survey.specials,
            size=survey.size,
            **asdict(self.content.counts),
            seconds=time.monotonic() - started,
            losses=survey.losses,
            incomplete=[str(add) for add in partial_adds],
            servers=() if router is None else router.all_urls(),
            notes=notes,
            store_trouble=self.store.trouble or self.uploader.status().store_trouble,
        )

    def _router(self, request: SealRequest) -> Router | None:
        """Return what the package is to say of where its blocks are; a large one takes seconds to parse."""
        return self.store.readers_router if request.router is None else parse_router(request.router.encode())

    async def _notes_for_readers(
        self, request: SealRequest, router: Router | None, output: OutputFile, progress: Progress
    ) -> tuple[str, ...]:
        """See that readers find the blocks where the user says that they do; say what is to be known of that.

        Raises:
            BlockMissingError: servers that the user named lack some.
        """
        notes = notes_for_readers(self.store, router, is_chosen=request.router is not None)
        if request.router is None or router is None:
            return notes
        asked = await trio.to_thread.run_sync(check_named, output.readable, router, request.timeout, progress)
        return (*asked, *notes)

    async def _build(
        self, request: SealRequest, router: Router | None, output: OutputFile, progress: Progress
    ) -> tuple[Survey, int]:
        """Store what is not stored, check the store, and package the tree as it is then.

        Also returns the count of changes that the package has in it.
        """
        patience = Patience(request.timeout, progress)
        asking = Patience(request.timeout, progress)
        refusal: FlistfsError = BusyError(_CHANGING)
        tries = 0
        while tries < _TRIES:
            await self._drain(patience)
            changes = self.vfs.changes
            view = await trio.to_thread.run_sync(self._freeze)
            try:
                if not await self._all_stored(
                    view,
                    excluding(request.options.exclude),
                    progress,
                    check_content=request.check_content,
                ):
                    tries += 1
                    refusal = BlockMissingError(_LOSING)
                    continue
                accounts = await self._accounts()
                survey = await trio.to_thread.run_sync(
                    sealing.build_package,
                    view,
                    self.store,
                    self._format,
                    accounts,
                    request.options,
                    router,
                    output,
                    self._directory.scratch,
                    progress,
                )
            except ChangedError:
                tries += 1
                refusal = BusyError(_CHANGING)
                continue
            except StoreUnavailableError as error:
                await asking.wait(str(error))
                continue
            finally:
                view.close()
            return survey, changes
        raise refusal

    def _freeze(self) -> FrozenView:
        """Take a view of the tree as it is now, which the mount may go on changing meanwhile (blocks).

        Raises:
            OutputError: the disk with the session is full, or broken.
        """
        try:
            return self._journal.freeze(self._directory.view)
        except OSError as error:
            raise OutputError(
                f"the flist cannot be written: {self._directory.path}: {error.strerror}; make room, and "
                f"seal again"
            ) from error

    async def _drain(self, patience: Patience) -> None:
        """Wait until everything is stored, telling how far it is and what is wrong.

        Raises:
            StoreUnavailableError: the store took nothing for longer than the patience lasts.
        """
        total = self.uploader.status().queued_bytes
        standstill = Standstill(self.store.url)
        self.uploader.retry_now()
        with unwrapped():
            async with trio.open_nursery() as nursery:

                async def drain() -> None:
                    await self.content.drain()
                    nursery.cancel_scope.cancel()

                nursery.start_soon(drain)
                while True:
                    status = self.uploader.status()
                    total = max(total, status.queued_bytes)
                    stuck = standstill.trouble(status)
                    trouble = status.trouble or self.content.trouble or stuck
                    patience.tell(Report("upload", total - status.queued_bytes, total, trouble))
                    await trio.sleep(0.1)

    async def sync(self, timeout: float, progress: Progress) -> None:
        """Return when everything written before is in the store.

        Raises:
            StoreUnavailableError: the store took nothing for `timeout` seconds.
        """
        await self._drain(Patience(timeout, progress))
        await trio.to_thread.run_sync(self.uploader.sync_store)

    async def store_rest(self) -> None:
        """Store what is there now, as long as the store takes it without delay; the rest stays spooled."""
        self.content.settle_all()
        queued, moved, end = -1, time.monotonic(), time.monotonic() + _AT_END
        while (status := self.uploader.status()).queued and status.trouble is None:
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
        """Put what a source has into the tree; returns when it is there, with all its blocks stored.

        Args:
            source: Where it comes from.
            request: Where it goes, and how.
            progress: Is told how far it is.
            owner: Who owns directories that are made for it to go to.
            unique: Whether an entry that comes twice is a problem.
            invalidate: For a tree that is mounted.

        Raises:
            NoPlaceError: something has no place in the tree, and nothing was put into it.
            SourceError: `to` leads to no directory; or something could not be taken, and what was put before
                stays.
            StoreError: the store takes nothing.
            SessionError: the journal cannot be written.
        """
        started, before = time.monotonic(), replace(self.content.counts)

        async def changed(done: Grafted) -> None:
            if invalidate is not None:
                await trio.to_thread.run_sync(invalidate, done.names, done.inodes)
                return
            for ino in done.nameless:  # no kernel holds them
                self.vfs.forget(ino)

        to = real_target(self._journal, os.fsencode(request.to))
        if isinstance(source, DirectorySource):
            await self._fit(source, to, keep_going=request.keep_going)
        top, made = self.vfs.make_directories(to, owner)
        if invalidate is not None:
            await trio.to_thread.run_sync(invalidate, made, [parent for parent, _ in made])
        partial_adds = partial_adds_of(request)
        if partial_adds:  # a base has none, and is noted in another way
            await self._mark(self._directory.begin_adds, partial_adds)
        self.has_begun_adding = True
        self._adds_at_work.update(partial_adds)
        grafter = Grafter(self._journal, self.content, self.vfs, top, unique=unique)
        ingest = Ingest(
            source,
            grafter,
            self.uploader.submit,
            changed,
            max_size=self.content.max_size,
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
                    nursery.start_soon(self._tell_adding, source, ingest, Patience(request.timeout, progress))
                    await ingest.run()
                    nursery.cancel_scope.cancel()
        except OSError as error:
            raise SessionError(f"the session cannot be written: {error.strerror or error}") from error
        finally:
            source.close()
            self._adds_at_work.subtract(partial_adds)
        # The same may be added by another call that is still at work, and then may fail.
        if whole := [add for add in partial_adds if not self._adds_at_work[add]]:
            await trio.to_thread.run_sync(self._journal.sync)  # what is whole must be, after a power cut too
            await self._mark(self._directory.finish_adds, whole)
        after = self.content.counts
        return AddSummary(
            entries=ingest.counts.entries,
            size=ingest.counts.size,
            new_blocks=after.new_blocks - before.new_blocks,
            new_bytes=after.new_bytes - before.new_bytes,
            shared_blocks=after.shared_blocks - before.shared_blocks,
            seconds=time.monotonic() - started,
            left_out=ingest.problems,
            left_out_count=ingest.problem_count,
            replaced=[os.fsdecode(path) for path in ingest.replaced],
            replaced_count=ingest.replaced_count,
            notes=ingest.notes,
            replaced_blocks=after.replaced_blocks - before.replaced_blocks,
        )

    async def _fit(self, source: DirectorySource, to: bytes, *, keep_going: bool) -> None:
        """Find out how a source fits into the tree.

        Raises:
            NoPlaceError: something has no place, and is not to be left out.
        """
        tree = JournalTree(self._journal)
        problems = await trio.to_thread.run_sync(source.fit, tree, to, abandon_on_cancel=True)
        if problems and not keep_going:
            no_place = [(source.named(each.path), each.reason) for each in problems[:MAX_PROBLEMS]]
            raise NoPlaceError(_no_place_message(no_place, len(problems)), no_place, len(problems))

    async def _mark(self, mark: Callable[[Sequence[PartialAdd]], object], adds: Sequence[PartialAdd]) -> None:
        """Change the note of what was not added whole; adds that run side by side share it."""
        async with self._marking:
            await trio.to_thread.run_sync(mark, adds)

    async def start(self, progress: Progress) -> BaseSummary | None:
        """Let a new session have the tree of its base, if it has one, and be kept from then on.

        Raises:
            FormatError: they are at fault, or hold what a session cannot.
            SessionError: the journal cannot be written.
        """
        base = self._base.source
        if base is None:
            return None

        def tell(report: Report) -> None:
            progress(Report("base", report.done, report.total, report.trouble))

        owner = Caller(os.geteuid(), os.getegid())
        added = await self.add(base, AddRequest(()), tell, owner=owner, unique=True)
        named = [_as_pairs(base.named_users), _as_pairs(base.named_groups)]
        with self._journal.change() as change:
            change.put_setting(_NAMED, json.dumps(named).encode())
        await trio.to_thread.run_sync(self._journal.sync)
        await trio.to_thread.run_sync(self._directory.finish)
        progress(Report("base", 1, 1))
        return BaseSummary(
            added.entries,
            added.size,
            base.unknown_owners,
            added.seconds,
            {name: list(map(os.fsdecode, paths[:MAX_PROBLEMS])) for name, paths in base.hidden.items()},
            {name: len(paths) for name, paths in base.hidden.items()},
        )

    async def _tell_adding(self, source: TreeSource, ingest: Ingest, patience: Patience) -> None:
        standstill = Standstill(self.store.url)
        while True:
            counts = self.content.counts
            done, total = source.extent(ingest.counts.size)
            figures = {
                "entries": ingest.counts.entries,
                "size": ingest.counts.size,
                "new_blocks": counts.new_blocks,
                "shared_blocks": counts.shared_blocks,
            }
            trouble = standstill.trouble(self.uploader.status())
            patience.tell(Report("add", done, total, trouble, figures))
            await trio.sleep(0.1)

    async def _all_stored(
        self, view: View, excluded: Filter, progress: Progress, *, check_content: bool
    ) -> bool:
        """Check that the store has every block; False means that some are on their way once more.

        What it lacks of a base is copied, of which nobody said that it has it. With `check_content` every
        block is fetched, and wrong ones are replaced.

        Raises:
            BlockMissingError: the store lost blocks, or holds wrong ones, that cannot be sent again.
        """
        await trio.to_thread.run_sync(self.uploader.sync_store)
        if self._base.store is not None:
            await trio.to_thread.run_sync(
                blocks.copy_base_blocks, view, self._base.store, self.store, excluded, progress
            )
        lost = await trio.to_thread.run_sync(blocks.lost_blocks, view, self.store, excluded, progress)
        if check_content:
            await self._heal(view, excluded, progress)
        if not lost:
            return True
        log.warning("the store lost %d blocks", len(lost))
        with self._journal.change() as change:
            for key in lost.values():
                change.drop_block(key)
        saved = self.content.store_again(set(lost))
        gone = await trio.to_thread.run_sync(
            blocks.copy_replicas,
            self.store,
            {block_hash: key for block_hash, key in lost.items() if block_hash not in saved},
        )
        files = await trio.to_thread.run_sync(blocks.files_lacking, view, gone, excluded)
        for name, hashes in files.items():
            log.warning("the store lost of %s: %s", os.fsdecode(name), _listed(self.store, hashes))
        if files:
            raise BlockMissingError(_lost_message(len(gone), files, self._remedy(view)))
        return gone == lost.keys()  # no file needs those

    async def _heal(self, view: View, excluded: Filter, progress: Progress) -> None:
        """Put the right block over each wrong one in the store.

        Raises:
            BlockMissingError: files need some that are not at hand.
        """
        wrong = await trio.to_thread.run_sync(healing.wrong_blocks, view, self.store, excluded, progress)
        self.content.note_wrong(set(wrong))
        if not wrong:
            return
        log.warning("the store holds %d wrong blocks", len(wrong))
        healed: set[bytes] = set()
        for stored, chunk in self.content.at_hand(set(wrong)):
            block = await trio.to_thread.run_sync(self.store.codec.encode, chunk)
            if block.hash == stored.hash and block.hash not in healed:
                await trio.to_thread.run_sync(self.store.put, [block])
                healed.add(block.hash)
        left = {block_hash: key for block_hash, key in wrong.items() if block_hash not in healed}
        sources = [self.store] if self._base.store is None else [self.store, self._base.store]
        healed |= await trio.to_thread.run_sync(healing.heal, self.store, left, sources)
        await trio.to_thread.run_sync(self.store.sync)
        counts = self.content.counts
        self.content.counts = replace(counts, replaced_blocks=counts.replaced_blocks + len(healed))
        gone = wrong.keys() - healed
        self.content.note_wrong(gone)
        files = await trio.to_thread.run_sync(blocks.files_lacking, view, gone, excluded)
        for name, hashes in files.items():
            log.warning("wrong in the store, of %s: %s", os.fsdecode(name), _listed(self.store, hashes))
        if files:
            raise BlockMissingError(
                f"the store holds {_of_files(len(gone), 'wrong block', files)}. {self._cure(view)}, and seal "
                f"again with --check-content; the session's log names the blocks"
            )

    def _cure(self, view: View) -> str:
        """Say what to do about wrong blocks."""
        again = "Add them again with --check-content, or write them again"
        return (
            f"{again}, or mend those of the base with flistfs verify --repair" if view.has_base() else again
        )

    def _remedy(self, view: View) -> str:
        """Say what to do about lost blocks."""
        if not view.has_base():
            return "Write them again"
        searched = f", which {self._base.store.url} lacks too," if self._base.store else ""
        return f"Write them again, or bring those of the base{searched} with flistfs push"

    async def _accounts(self) -> Accounts:
        """Read the accounts from the tree that is being sealed and from its base, never from this host."""
        accounts = Accounts.parse(await self._small_file(b"etc/passwd"), await self._small_file(b"etc/group"))
        users, groups = map(_of_pairs, json.loads(self._journal.setting(_NAMED) or b"[[], []]"))
        return replace(accounts, named_users=users, named_groups=groups)

    async def _small_file(self, path: bytes) -> bytes:
        inode = sealing.find_inode(self._journal, path)
        if inode is None or not stat.S_ISREG(inode.mode):
            return b""
        try:
            return await self.content.read(inode.ino, 0, MAX_ACCOUNTS_SIZE)
        except OSError as error:
            failed = f"{os.fsdecode(path)} of the tree cannot be read"
            if isinstance(error.__cause__, BlockCorruptError):  # which waiting does not mend
                raise BlockCorruptError(f"{failed}: {error.__cause__}; write it again") from error
            raise StoreUnavailableError(f"{failed}: {error.__cause__ or error.strerror}") from error


def _as_pairs(names: Mapping[int, bytes]) -> list[tuple[int, str]]:
    return [(number, os.fsdecode(name)) for number, name in names.items()]


def _of_pairs(pairs: Iterable[tuple[int, str]]) -> dict[int, bytes]:
    return {number: os.fsencode(name) for number, name in pairs}


def _incomplete_message(adds: Sequence[PartialAdd]) -> str:
    named = ", ".join(map(str, adds[:_NAMED_FILES]))
    more = f" and {len(adds) - _NAMED_FILES} more" if len(adds) > _NAMED_FILES else ""
    return (
        f"the tree is incomplete: {named}{more} was not added whole; add it again, or seal what is there "
        f"with --incomplete"
    )


def _no_place_message(no_place: Sequence[tuple[str, str]], count: int) -> str:
    named = ", ".join(f"{name}: {why}" for name, why in no_place[:_NAMED_PROBLEMS])
    more = ""
    if count > _NAMED_PROBLEMS:
        listed = "all" if len(no_place) == count else f"{len(no_place):,}"
        more = f", and {count - _NAMED_PROBLEMS:,} more (--json lists {listed})"
    advice = "--keep-going leaves out what has no place"
    if any(why == DEAD_LINK for _, why in no_place):
        advice += ", --replace-links lets a directory replace a link"
    return f"{named}{more}; nothing was added: {advice}"


def _lost_message(blocks: int, files: Iterable[bytes], remedy: str) -> str:
    return (
        f"the store has lost {_of_files(blocks, 'block', files)}. {remedy} and seal again; the session's log "
        f"names the blocks"
    )


def _of_files(blocks: int, word: str, files: Iterable[bytes]) -> str:
    """Say how many blocks of which files: "2 blocks of 1 file: name"."""
    names = [os.fsdecode(name) for name in files]
    more = f" and {len(names) - _NAMED_FILES} more" if len(names) > _NAMED_FILES else ""
    counted = f"{blocks} {word if blocks == 1 else f'{word}s'}"
    of = f"{len(names)} {'file' if len(names) == 1 else 'files'}"
    return f"{counted} of {of}: {', '.join(names[:_NAMED_FILES])}{more}"


def _listed(store: Store, hashes: Iterable[bytes]) -> str:
    return ", ".join(map(store.codec.show, hashes))


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
                    yield Session(directory, format_, journal, store, uploader, content, vfs, base)
                    nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(uploader.close)
            is_open = False
            spool.close()
    finally:
        journal.close()


def _distribute(reports: list[Finished[Chunk | Piece]], content: Content) -> None:
    """Tell everybody what became of their chunks."""
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
) -> dict[str, Any]:
    """Seal, and keep what was sealed as the session's result, whoever is there to see it.

    Returns the summary as plain data. Raises what `Session.seal` does.
    """
    try:
        summary = await session.seal(request, unmount, progress)
    except FlistfsError as error:
        log.error("sealing failed: %s", error)  # noqa: TRY400  the user's matter, no bug
        raise
    log.info("sealed %s", summary)
    plain = asdict(summary)
    directory.write_result(Result(0, f"sealed {request.out}", time.time(), plain))
    return plain


def keep_failure(directory: SessionDirectory, error: FlistfsError) -> None:
    """Keep why a session that is not mounted any more could not be sealed."""
    with suppress(OSError):  # a full disk, say, must not hide the reason itself
        directory.write_result(Result(error.exit_code, str(error), time.time()))


async def _settle_idle(content: Content) -> None:
    while True:
        await trio.sleep(0.5)
        content.settle_idle()
