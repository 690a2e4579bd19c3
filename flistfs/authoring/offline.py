"""What the daemon would do, for a session that has none; and whole flists without a session of the user's.

Commands and `api` call it. Where the log goes is their business.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from flistfs.authoring.base import opened_base
from flistfs.authoring.filesystem.values import Caller
from flistfs.authoring.importing.opening import open_directories, open_tree
from flistfs.authoring.importing.resuming import Present
from flistfs.authoring.passing import kept_directory, packing_directory
from flistfs.authoring.request import AddRequest, BaseRequest, Passwords, SealRequest
from flistfs.authoring.sealing.metadata import metadata_of
from flistfs.authoring.session import Session, keep_failure, open_session, seal_session
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.settings import Settings, partial_adds_of
from flistfs.authoring.summaries import AddSummary, BaseSummary, SealSummary
from flistfs.authoring.upload.encoder_process import Settings as EncoderSettings
from flistfs.authoring.upload.encoder_process import SpareProcesses, make_encoders
from flistfs.authoring.upload.known_blocks import known_blocks_path
from flistfs.authoring.upload.store_timeout import connect
from flistfs.errors import FlistfsError, SessionError
from flistfs.format.opening import format_named
from flistfs.images.config import metadata_of as image_metadata
from flistfs.images.image import Image
from flistfs.images.source import LayeredSource
from flistfs.sources.decoded import DecodedSource
from flistfs.sources.excludes import excluding
from flistfs.sources.item import TreeSource
from flistfs.sources.limited import LimitedSource, Limits
from flistfs.stores import open_store
from flistfs.stores.base import STORE_TIMEOUT
from flistfs.util.loop_thread import run_in_thread
from flistfs.util.nurseries import unwrapped
from flistfs.util.progress import Progress

log = logging.getLogger(__name__)

T = TypeVar("T")


def seal(
    directory: SessionDirectory,
    passwords: Passwords,
    request: SealRequest,
    progress: Progress,
    spares: SpareProcesses | None = None,
) -> SealSummary:
    """Seal a session that this process has taken, with `spares` for its encoders.

    Raises:
        FlistfsError: as a seal of a mounted session does. The session is kept.
    """

    async def work(session: Session) -> SealSummary:
        return await seal_session(session, directory, request, None, progress)

    try:
        summary = _run(directory, passwords, work, timeout=request.timeout, spares=spares)
    except FlistfsError as error:
        keep_failure(directory, error)
        raise
    directory.end()
    return summary


def add(
    directory: SessionDirectory,
    passwords: Passwords,
    request: AddRequest,
    progress: Progress,
    spares: SpareProcesses | None = None,
) -> AddSummary:
    """Put directories and files into a session that this process has taken, with `spares` for its encoders.

    Raises:
        FlistfsError: as `Session.add` does. The session is kept.
    """

    new = directory.begin_adds(
        partial_adds_of(request)
    )  # so that one which the store keeps out is noted, too

    async def work(session: Session) -> AddSummary:
        try:
            source = open_directories(request, session.store.url, [directory.path])
            return await session.add(source, request, progress, owner=_caller())
        except FlistfsError:
            if not session.has_begun_adding:
                directory.withdraw_adds(new)
            raise

    return _run(directory, passwords, work, timeout=request.timeout, spares=spares)


def create(
    directory: SessionDirectory,
    passwords: Passwords,
    settings: Settings,
    progress: Progress,
    *,
    offline: bool,
    base: BaseRequest | None = None,
) -> BaseSummary | None:
    """Make a session that is not mounted; returns what it started from.

    Raises:
        SessionError: there is one already, or the directory cannot be written.
        StoreError: the store cannot be reached, and `offline` is not set.
        FormatError: a base is damaged, or holds what a session cannot.
    """

    async def work(session: Session) -> BaseSummary | None:
        log.info("a session without a mount; blocks go to %s", session.store.url)
        return await session.start(progress)

    lock = directory.lock("flistfs new")
    try:
        if directory.is_open():
            raise SessionError(
                f"{settings.mountpoint} has an open session already: add to it, seal it or abort it"
            )
        directory.create(settings, unfinished=base is not None)
        try:
            summary = _run(directory, passwords, work, offline=offline, base=base)
        except (FlistfsError, KeyboardInterrupt):
            directory.discard()
            raise
        directory.forget_result()
    finally:
        lock.release()
    return summary


def pack(
    source: str,
    store: str,
    format_: str,
    passwords: Passwords,
    request: SealRequest,
    options: AddRequest,
    progress: Progress,
    spares: SpareProcesses | None = None,
    *,
    limits: Limits | None = None,
    image: Image | None = None,
    start: bytes = b"",
) -> tuple[AddSummary, SealSummary]:
    """Make an flist of a directory or an archive, in one go; nothing is left of the session.

    Args:
        source: A directory, or a tar archive; `-` is an archive on standard input.
        store: Where blocks go: a URL without a password.
        format_: The name of the flist's format.
        passwords: The store's.
        request: The output, and how to seal.
        options: How to read the source.
        progress: Called with a `Report` as the work goes on.
        spares: For its encoders.
        limits: How much of the source is taken; more of it is an error. Default: all.
        image: The container image that the source is; None if it is none.
        start: What was read of standard input already.

    Raises:
        FlistfsError: as `Session.add` and a seal do; nothing was sealed then.
    """
    excluded = excluding(options.exclude)
    says = {} if image is None else image_metadata(image).applied({})
    metadata_of(format_named(format_), request, says)  # what has no place is refused before all is read
    with packing_directory(store, format_) as directory:
        directory.keep_base_metadata(says)

        async def work(session: Session) -> tuple[AddSummary, SealSummary]:
            tree: TreeSource
            if image is None:
                tree = open_tree(source, excluded, store, [directory.path], start)
            else:
                tree = LayeredSource(image, source, excluded=excluded)
            if limits is not None:
                tree = LimitedSource(tree, limits)
            added = await _add_all(session, tree, request, options, progress)
            return added, await _seal_at_once(session, directory, request, progress)

        return _run(directory, passwords, work, timeout=request.timeout, spares=spares)


def convert(
    source: DecodedSource,
    name: str,
    metadata: Mapping[str, bytes],
    store: str,
    format_: str,
    passwords: Passwords,
    request: SealRequest,
    options: AddRequest,
    progress: Progress,
    spares: SpareProcesses | None = None,
) -> tuple[AddSummary, SealSummary]:
    """Make an flist of a sealed one, in one go. After an interruption the same goes on where it stopped.

    Args:
        source: The sealed flist, with the content of its files.
        name: What stands for that, and for how it is converted: its session is kept by it for a week.
        metadata: What that says, for the new one as far as its format has a place.
        store: Where blocks go: a URL without a password.
        format_: The name of the new flist's format.
        passwords: The store's.
        request: The output, and how to seal.
        options: How to read the source.
        progress: Called with a `Report` as the work goes on.
        spares: For its encoders.

    Raises:
        FlistfsError: as reading an flist, `Session.add` and a seal do; nothing was sealed then.
    """
    metadata_of(format_named(format_), request, metadata)  # what has no place is refused before all is read
    with kept_directory(name, store, format_) as (directory, is_resumed):
        directory.keep_base_metadata(metadata)

        async def work(session: Session) -> tuple[AddSummary, SealSummary]:
            if is_resumed:
                source.skip(Present(session.parts.journal).has)
            added = await _add_all(session, source, request, options, progress)
            session.note_accounts(source.base)
            return added, await _seal_at_once(session, directory, request, progress)

        return _run(directory, passwords, work, timeout=request.timeout, spares=spares)


async def _add_all(
    session: Session, source: TreeSource, request: SealRequest, options: AddRequest, progress: Progress
) -> AddSummary:
    """Put into the tree of a session all that it is to have."""
    reading = replace(options, check_content=request.check_content)
    return await session.add(source, reading, progress, owner=_caller(), unique=True)


async def _seal_at_once(
    session: Session, directory: SessionDirectory, request: SealRequest, progress: Progress
) -> SealSummary:
    """Seal what was just added: what was compared, or put, then need not be fetched once more."""
    return await seal_session(session, directory, replace(request, check_content=False), None, progress)


@contextmanager
def taken(directory: SessionDirectory, command: str) -> Iterator[None]:
    """Have an open session for this process alone, as the command that it is (see `Holder`).

    Raises:
        SessionError: another process has it, or it has ended.
    """
    lock = directory.lock(command)
    try:
        if not directory.is_open():
            raise SessionError(f"the session in {directory.path} has ended meanwhile")
        yield
    finally:
        lock.release()


def _run(
    directory: SessionDirectory,
    passwords: Passwords,
    work: Callable[[Session], Awaitable[T]],
    *,
    timeout: float = STORE_TIMEOUT,
    offline: bool = False,
    base: BaseRequest | None = None,
    spares: SpareProcesses | None = None,
) -> T:
    """Open a session and do something with it; `timeout` is how many seconds connecting may take.

    Raises:
        SessionError: the session cannot be used; its log says more.
    """
    try:
        with unwrapped():
            opened = None if offline else timeout
            spares = spares or SpareProcesses()
            return run_in_thread(partial(_in_session, directory, passwords, work, opened, base, spares))
    except OSError as error:
        log.exception("the session cannot be used")
        raise SessionError(f"the session in {directory.path} cannot be used: {error.strerror}") from error


async def _in_session(
    directory: SessionDirectory,
    passwords: Passwords,
    work: Callable[[Session], Awaitable[T]],
    timeout: float | None,
    request: BaseRequest | None,
    spares: SpareProcesses,
) -> T:
    """Do something with an open session; without a timeout its stores need not be there."""
    url, format_ = directory.settings().store, directory.format()
    store = open_store(url, format_.codec, passwords.store)
    settings = EncoderSettings(url, format_.name, passwords.store, known_blocks_path(), directory.log)
    try:
        if timeout is not None:
            await connect(store.check, store.url, timeout)
        with opened_base(directory, store, passwords.base, request) as base:
            if timeout is not None and base.store is not None:
                await connect(base.check, base.store.url, timeout)
            async with open_session(
                directory,
                format_,
                store,
                _caller(),
                make_encoders=partial(make_encoders, settings, spares),
                base=base,
            ) as session:
                return await work(session)
    finally:
        store.close()


def _caller() -> Caller:
    return Caller(os.geteuid(), os.getegid())
