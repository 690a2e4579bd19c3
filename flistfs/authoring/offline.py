"""What the daemon would do, for a session that has none; and whole flists without a session of the user's.

Commands and `api` call it. Where the log goes is their business.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from flistfs.authoring.base import opened_base
from flistfs.authoring.filesystem.values import Caller
from flistfs.authoring.importing.opening import open_directories, open_tree
from flistfs.authoring.new_session import new_settings
from flistfs.authoring.request import AddRequest, BaseRequest, Passwords, SealRequest
from flistfs.authoring.sealing.metadata import metadata_of
from flistfs.authoring.session import Session, keep_failure, open_session, seal_session
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import packing_root
from flistfs.authoring.state.settings import Settings, partial_adds_of
from flistfs.authoring.summaries import AddSummary, BaseSummary, SealSummary
from flistfs.authoring.upload.encoder_process import Settings as EncoderSettings
from flistfs.authoring.upload.encoder_process import SpareProcesses, make_encoders
from flistfs.authoring.upload.known_blocks import known_blocks_path
from flistfs.authoring.upload.store_timeout import connect
from flistfs.errors import FlistfsError, SessionError
from flistfs.format.opening import format_named
from flistfs.sources.decoded import DecodedSource
from flistfs.sources.excludes import excluding
from flistfs.sources.item import TreeSource
from flistfs.sources.sealed import BaseSource
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

    Raises:
        FlistfsError: as `Session.add` and a seal do; nothing was sealed then.
    """

    def opened(directory: SessionDirectory) -> TreeSource:
        return open_tree(source, excluding(options.exclude), store, [directory.path])

    return _make_at_once(opened, store, format_, passwords, request, options, progress, spares)


def convert(
    source: DecodedSource,
    metadata: Mapping[str, bytes],
    store: str,
    format_: str,
    passwords: Passwords,
    request: SealRequest,
    options: AddRequest,
    progress: Progress,
    spares: SpareProcesses | None = None,
) -> tuple[AddSummary, SealSummary]:
    """Make an flist of a sealed one, in one go; nothing is left of the session.

    Args:
        source: The sealed flist, with the content of its files.
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
    return _make_at_once(
        lambda _: source,
        store,
        format_,
        passwords,
        request,
        options,
        progress,
        spares,
        metadata=metadata,
        accounts=source.base,
    )


def _make_at_once(
    opened: Callable[[SessionDirectory], TreeSource],
    store: str,
    format_: str,
    passwords: Passwords,
    request: SealRequest,
    options: AddRequest,
    progress: Progress,
    spares: SpareProcesses | None,
    *,
    metadata: Mapping[str, bytes] | None = None,
    accounts: BaseSource | None = None,
) -> tuple[AddSummary, SealSummary]:
    """Make an flist of the source that is opened once there is a session, which nothing is left of.

    `metadata` is what the flist has of another, and `accounts` knows that one's by name.
    """
    metadata = metadata or {}
    metadata_of(format_named(format_), request, metadata)  # what has no place is refused before all is read
    with _packing_directory(store, format_) as directory:
        directory.keep_base_metadata(metadata)

        async def work(session: Session) -> tuple[AddSummary, SealSummary]:
            reading = replace(options, check_content=request.check_content)
            added = await session.add(opened(directory), reading, progress, owner=_caller(), unique=True)
            if accounts is not None:
                session.note_accounts(accounts)
            # What was compared, or put, when it was met need not be fetched once more.
            final = replace(request, check_content=False)
            return added, await seal_session(session, directory, final, None, progress)

        return _run(directory, passwords, work, timeout=request.timeout, spares=spares)


@contextmanager
def _packing_directory(store: str, format_: str) -> Iterator[SessionDirectory]:
    """Make a session's directory for as long as it is used; those that a crash left behind are removed.

    Raises:
        SessionError: it cannot be made.
    """
    root = packing_root()
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone_in(root):
            for left in root.iterdir():
                if not SessionDirectory(left).is_locked():
                    shutil.rmtree(left, ignore_errors=True)
            directory = SessionDirectory(Path(tempfile.mkdtemp(dir=root)))
            lock = directory.lock("flistfs pack")
    except OSError as error:
        raise SessionError(f"{root} cannot be written: {error.strerror}") from error
    try:
        directory.create(new_settings(None, store, format_))
        yield directory
    finally:
        shutil.rmtree(directory.path, ignore_errors=True)
        lock.release()


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Keep others out who ask for the same: a directory that is new must not be taken for one left behind."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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
