"""The seal of a session: drain, check the store, write the flist, unmount, publish."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict

import trio

from flistfs.authoring.parts import Parts
from flistfs.authoring.request import SealRequest
from flistfs.authoring.sealing.accounts import accounts_of
from flistfs.authoring.sealing.package import ChangedError, build_package
from flistfs.authoring.sealing.store_check import StoreCheck
from flistfs.authoring.sealing.survey import Survey
from flistfs.authoring.state.settings import PartialAdd
from flistfs.authoring.state.view import FrozenView
from flistfs.authoring.summaries import SealSummary
from flistfs.authoring.upload.draining import drain
from flistfs.authoring.upload.store_timeout import StoreTimeout
from flistfs.errors import (
    BlockMissingError,
    BusyError,
    FlistfsError,
    OutputError,
    SessionError,
    StoreUnavailableError,
)
from flistfs.format.router import Router, parse_router
from flistfs.reading.named import check_named
from flistfs.sources.excludes import excluding
from flistfs.stores.readers import notes_for_readers, router_to_store
from flistfs.util.output_file import OutputFile
from flistfs.util.progress import Progress, Report

log = logging.getLogger(__name__)

# How often a seal starts again because files changed while it ran, before it reports that the mount is busy.
_TRIES = 5

# Why a seal gives up after starting again several times.
_FILES_CHANGING = "files are still being written; wait until that is done, or stop it, and seal again"
_STORE_LOSING = (
    "the store keeps losing blocks that it has acknowledged; make sure that it keeps all data "
    "(Redis: maxmemory-policy noeviction), and seal again"
)

# Sources named in a message.
_NAMED_SOURCES = 5


class Sealing:
    """Seals a session."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._check = StoreCheck(parts)

    async def seal(
        self,
        request: SealRequest,
        metadata: Mapping[str, bytes],
        unmount: Callable[[], Awaitable[None]] | None,
        progress: Progress,
    ) -> SealSummary:
        """Seal the tree into a package.

        The mount stays writable meanwhile: if anything changes before `unmount` returns, the changes are
        stored and packaged again, now undisturbed. An error before `unmount` leaves the mount in use.

        Args:
            request: The output, and how.
            metadata: What the package says besides the tree.
            unmount: Ends the mount; raises BusyError, with the mount as it was, if it is in use. None if
                nothing is mounted.
            progress: Called with a `Report` as the work goes on.

        Raises:
            FormatError: the router is invalid.
            OutputError: the output exists or cannot be written.
            BusyError: the mount is in use, or files keep changing.
            BlockMissingError: the store lost blocks.
            StoreError: the store cannot be used.
        """
        started = time.monotonic()
        partial_adds = self._parts.directory.partial_adds()
        router = await trio.to_thread.run_sync(self._router, request)
        with await trio.to_thread.run_sync(lambda: OutputFile(request.out, force=request.force)) as output:
            survey, changes = await self._build(request, router, metadata, output, progress)
            notes = await self._notes_for_readers(request, router, output, progress)
            if unmount is not None:
                progress(Report("unmount", 0, 1))
                await unmount()
            if self._parts.vfs.changes != changes:
                log.info("the tree changed before it was unmounted: packaging it again")
                survey, _ = await self._build(request, router, metadata, output, progress)
                notes = await self._notes_for_readers(request, router, output, progress)
            package_size = output.size
            await trio.to_thread.run_sync(output.publish)
        return SealSummary(
            out=str(request.out),
            format=self._parts.format.name,
            package_size=package_size,
            files=survey.files,
            directories=len(survey.directories),
            links=survey.links,
            specials=survey.specials,
            size=survey.size,
            **asdict(self._parts.content.counts),
            seconds=time.monotonic() - started,
            unrepresentable=survey.unrepresentable,
            incomplete=tuple(partial_adds),
            servers=() if router is None else router.all_urls(),
            notes=notes,
            store_trouble=self._parts.store.trouble or self._parts.uploader.status().store_trouble,
        )

    def check_complete(self, request: SealRequest) -> None:
        """Raise SessionError if something was not added whole, and the request does not take that."""
        partial_adds = self._parts.directory.partial_adds()
        if partial_adds and not request.incomplete:
            raise SessionError(_incomplete_message(partial_adds))

    def _router(self, request: SealRequest) -> Router | None:
        """Return the router for the package, which names its servers; a large one takes seconds to parse."""
        if request.router is not None:
            return parse_router(request.router.encode())
        return router_to_store(self._parts.store, self._parts.format)

    async def _notes_for_readers(
        self, request: SealRequest, router: Router | None, output: OutputFile, progress: Progress
    ) -> tuple[str, ...]:
        """Check that readers find the blocks where the user says that they are; return notes about that.

        Raises:
            BlockMissingError: servers that the user named lack blocks.
        """
        notes = notes_for_readers(self._parts.store, router, is_chosen=request.router is not None)
        if request.router is None or router is None:
            return notes
        asked = await trio.to_thread.run_sync(check_named, output.readable, router, request.timeout, progress)
        return (*asked, *notes)

    async def _build(
        self,
        request: SealRequest,
        router: Router | None,
        metadata: Mapping[str, bytes],
        output: OutputFile,
        progress: Progress,
    ) -> tuple[Survey, int]:
        """Store what is not stored yet, check the store, and package the tree as it is then.

        Also returns the number of changes that the package contains.
        """
        draining = StoreTimeout(request.timeout, progress)
        asking = StoreTimeout(request.timeout, progress)
        refusal: FlistfsError = BusyError(_FILES_CHANGING)
        tries = 0
        while tries < _TRIES:
            await drain(self._parts, draining)
            changes = self._parts.vfs.changes
            view = await trio.to_thread.run_sync(self._freeze)
            try:
                if not await self._check.all_stored(
                    view,
                    excluding(request.options.exclude),
                    progress,
                    check_content=request.check_content,
                ):
                    tries += 1
                    refusal = BlockMissingError(_STORE_LOSING)
                    continue
                accounts = await accounts_of(self._parts)
                survey = await trio.to_thread.run_sync(
                    build_package,
                    view,
                    self._parts.store,
                    self._parts.format,
                    accounts,
                    request.options,
                    router,
                    metadata,
                    output,
                    self._parts.directory.scratch,
                    progress,
                )
            except ChangedError:
                tries += 1
                refusal = BusyError(_FILES_CHANGING)
                continue
            except StoreUnavailableError as error:
                await asking.wait(str(error))
                continue
            finally:
                view.close()
            return survey, changes
        raise refusal

    def _freeze(self) -> FrozenView:
        """Take a view of the tree as it is now, while the mount may continue to change it (blocks).

        Raises:
            OutputError: the session's disk is full, or fails.
        """
        try:
            return self._parts.journal.freeze(self._parts.directory.view)
        except OSError as error:
            raise OutputError(
                f"the flist cannot be written: {self._parts.directory.path}: {error.strerror}; make room, "
                f"and seal again"
            ) from error


def _incomplete_message(adds: Sequence[PartialAdd]) -> str:
    named = ", ".join(map(str, adds[:_NAMED_SOURCES]))
    more = f" and {len(adds) - _NAMED_SOURCES} more" if len(adds) > _NAMED_SOURCES else ""
    return (
        f"the tree is incomplete: {named}{more} was not added whole; add it again, or seal what is there "
        f"with `incomplete`"
    )
