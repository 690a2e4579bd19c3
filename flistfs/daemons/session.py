"""The process that serves a mount, and answers commands on the session's control socket.

`launch` starts it. It ends when the file system is unmounted, by whomever, and has then sealed the session
if it was asked to.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import trio

from flistfs.authoring.base import Base, opened_base
from flistfs.authoring.filesystem.fuse import Operations, invalidate
from flistfs.authoring.filesystem.values import Caller
from flistfs.authoring.importing.opening import open_directories
from flistfs.authoring.request import AddRequest, BaseRequest, SealOptions, SealRequest
from flistfs.authoring.session import Session, keep_failure, open_session, seal_session
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.finding import keep_failed_start
from flistfs.authoring.state.lock import Lock
from flistfs.authoring.summaries import AddSummary, SealSummary
from flistfs.authoring.upload import encoder_process
from flistfs.authoring.upload.encoder_process import Settings, SpareProcesses, make_encoders
from flistfs.authoring.upload.known_blocks import known_blocks_path
from flistfs.daemons.command_server import CommandServer, while_wanted
from flistfs.daemons.config import Config
from flistfs.daemons.process import Ready, read_config, run_daemon
from flistfs.errors import (
    BusyError,
    FlistfsError,
    OutputError,
    SessionError,
)
from flistfs.format.metadata import NO_CHANGE, MetadataChange
from flistfs.fuse import mounts
from flistfs.fuse.serving import MountServer
from flistfs.stores import Store, open_store
from flistfs.stores.url import BASE_PASSWORD_VARIABLE, PASSWORD_VARIABLE
from flistfs.util.logs import log_to_standard_error
from flistfs.util.nurseries import unwrapped
from flistfs.util.progress import Progress, quiet

log = logging.getLogger("flistfs.daemons.session")  # __name__ is __main__ here

# Requests that are served at the same time. A writer that waits for the store holds one, with up to 1 MiB of
# memory, and those that look around must find another.
_MAX_REQUESTS = 300

_Command = Literal["seal", "add", "abort"]
"""What changes a session as a whole."""


def main() -> NoReturn:
    """Run the daemon with the config on standard input."""
    config = Config(**read_config())
    # In the background stderr is the session's log already, so that libfuse's own messages get there too.
    log_to_standard_error(foreground=config.foreground)
    sys.exit(_run(config))


def _run(config: Config) -> int:
    directory = SessionDirectory(Path(config.state))
    ready = Ready(config.foreground)
    lock = Lock(config.lock)
    daemon = _Daemon(config, directory, ready)

    def clean_up(error: FlistfsError | None) -> None:
        """Leave no session that was never mounted."""
        if daemon.is_unused:
            directory.end()
        lock.release()
        if daemon.is_unused and error is not None:
            keep_failed_start(Path(config.mountpoint), error)

    def work() -> int:
        code = _run_session(config.store, daemon)
        log.info("ends with code %d", code)
        lock.release()
        return code

    return run_daemon(work, ready, clean_up, directory.log)


def _run_session(store: str, daemon: _Daemon) -> int:
    directory = daemon.directory
    try:
        with unwrapped():
            spares = encoder_process.prepare(store, directory.format().codec)
            return trio.run(daemon.run, spares)
    except OSError as error:
        log.exception("the session cannot be used")
        reason = f"the session in {directory.path} cannot be used: {error.strerror or error}"
        raise SessionError(reason) from None


class _Daemon:
    """One session, mounted."""

    def __init__(self, config: Config, directory: SessionDirectory, ready: Ready) -> None:
        self._config = config
        self.directory = directory
        self.ready = ready
        self.is_unused = config.is_new
        self._mountpoint = Path(config.mountpoint)
        self._started = time.time()
        self._progress: Progress = quiet  # nobody can ask before there is a mount
        self._requests: Mapping[str, int] = {}
        self._at_work: list[_Command] = []
        self._adds: set[trio.CancelScope] = set()
        self._ended: Literal["sealed", "aborted"] | None = None
        self._mount = MountServer(
            self._mountpoint, max_requests=_MAX_REQUESTS, low_latency=config.low_latency
        )
        self._ready_answer: dict[str, Any] = {"ready": True}

    async def run(self, spares: SpareProcesses) -> int:
        """Serve until the mount ends, seal if told to, and return the exit code. Encoders take `spares`."""
        password = os.environ.pop(PASSWORD_VARIABLE, None)
        base_password = os.environ.pop(BASE_PASSWORD_VARIABLE, None)
        store = open_store(self._config.store, self.directory.format().codec, password)
        try:
            if not self._config.offline:
                # A server that hangs must not keep Ctrl-C waiting; closing the store ends the thread.
                await trio.to_thread.run_sync(store.check, abandon_on_cancel=True)
            with opened_base(self.directory, store, base_password, self._base_request()) as base:
                if not self._config.offline:
                    await trio.to_thread.run_sync(base.check, abandon_on_cancel=True)
                return await self._run_session(store, password, base, spares)
        finally:
            store.close()

    def _base_request(self) -> BaseRequest | None:
        config = self._config
        if not config.bases:
            return None
        return BaseRequest(
            tuple(config.bases),
            config.base_store,
            config.usual_store,
            config.replace_links,
            config.accept_faults,
        )

    async def _run_session(
        self, store: Store, password: str | None, base: Base, spares: SpareProcesses
    ) -> int:
        code = 0
        settings = Settings(self._config.store, self.directory.format().name, password, known_blocks_path())
        async with open_session(
            self.directory,
            self.directory.format(),
            store,
            Caller(os.geteuid(), os.getegid()),
            keep_xattrs=self._config.keep_xattrs,
            spool_limit=self._config.spool_limit,
            make_encoders=partial(make_encoders, settings, spares),
            base=base,
        ) as session:
            started = await session.start(self.ready.report)
            if started is not None:
                log.info("started from %s: %s", ", ".join(self._config.bases), started)
                self._ready_answer["base"] = started.as_dict()
            if self._config.seal_to:
                request = self._request_at_end(Path(self._config.seal_to))
                await trio.to_thread.run_sync(session.check_sayable, request)
            await self._serve(session)
            if not self._ended:
                await session.store_rest()
            if self._config.seal_to and not self._ended and not self._mount.is_stopping:
                code = await self._seal_at_end(session, Path(self._config.seal_to))
        if self._ended == "sealed":
            self.directory.end()
        elif self._ended == "aborted":
            self.directory.discard()
        return code

    # The mount

    async def _serve(self, session: Session) -> None:
        """Mount, and serve until the mount has ended and every command has its answer."""
        operations = Operations(
            session.vfs,
            self.directory.path,
            answering=self._mount.answering.set,
            keep_xattrs=self._config.keep_xattrs,
        )
        self._requests = operations.requests
        server = CommandServer(self.directory.control, partial(self._perform, session), self.directory.log)
        self._progress = server.report
        # Before there is a mount: commands that see one connect at once.
        listener = await server.listen()
        resumed = None if self._config.is_new else self.directory.path
        with self._mount.mounted(operations, self._config.options, resumed) as signals:
            self.is_unused = False
            self.directory.forget_result()
            # A command that asked for a seal gets its answer after the mount has ended.
            async with trio.open_nursery() as commands:
                answer = partial(server.serve, listener, commands)
                await self._mount.serve(signals, answer, announce=partial(self._announce, session))
                for scope in self._adds:
                    scope.cancel()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what is written is safe whenever this ends
        if self._mount.is_stopping and not self._ended:
            log.info("ended by a signal; the session is kept")

    def _announce(self, session: Session) -> None:
        log.info("%s is mounted; blocks go to %s", self._mountpoint, session.store.url)
        self.ready.say(self._ready_answer)

    # Sealing

    async def _seal(self, session: Session, request: SealRequest, stream: trio.SocketStream) -> SealSummary:
        """Seal while mounted. From the unmount on it continues, even if the command that asked has gone."""
        if request.out.is_relative_to(self._mountpoint):
            raise OutputError(f"{request.out} is inside the mount that is to be sealed; choose another place")
        with self._only("seal"):
            await trio.to_thread.run_sync(mounts.check_unused, self._mountpoint)

            async def work(finish: Callable[[], None]) -> SealSummary:
                async def unmount() -> None:
                    finish()
                    await self._mount.unmount()

                return await seal_session(
                    session, self.directory, request, unmount, self._progress, invalidate
                )

            try:
                result = await while_wanted(stream, work)
            except FlistfsError as error:
                if self._mount.unmounted.is_set():  # else there still is a mount to try again from
                    keep_failure(self.directory, error)
                raise
            self._ended = "sealed"
        return result

    @contextmanager
    def _only(self, command: _Command) -> Iterator[None]:
        """Let no other command change the session as a whole meanwhile; adds go along with each other.

        Raises:
            BusyError: one is at work.
            SessionError: the mount has ended.
        """
        others = [other for other in self._at_work if not command == other == "add"]
        if others:
            raise BusyError(f"flistfs {others[0]} is still at work in this session; wait for it, or end it")
        if self._mount.unmounted.is_set():
            raise SessionError("the mount has just ended; the session is kept: seal it, or mount it again")
        self._at_work.append(command)
        try:
            yield
        finally:
            self._at_work.remove(command)

    async def _abort(self, session: Session) -> dict[str, Any]:
        """Unmount and forget the session."""
        with self._only("abort"):
            await trio.to_thread.run_sync(mounts.check_unused, self._mountpoint)
            await self._mount.unmount()
            self._ended = "aborted"
        return session.status()

    async def _add(self, session: Session, request: AddRequest, stream: trio.SocketStream) -> AddSummary:
        """Put directories and files of this machine into the mounted tree.

        It ends when the command that asked for it does, or the mount: it may take hours, and what was put
        into the tree until then stands by itself.
        """

        async def work(_: Callable[[], None]) -> AddSummary:
            # In a thread: the mount point is asked about, and that is for this process to answer.
            source = await trio.to_thread.run_sync(
                open_directories, request, session.store.url, [self.directory.path, self._mountpoint]
            )
            caller = Caller(os.geteuid(), os.getegid())
            return await session.add(source, request, self._progress, owner=caller, invalidate=invalidate)

        with self._only("add"), trio.CancelScope() as scope:
            self._adds.add(scope)
            try:
                return await while_wanted(stream, work)
            finally:
                self._adds.remove(scope)
        raise SessionError("the mount has ended; what was put into the tree before stays")

    async def _seal_at_end(self, session: Session, out: Path) -> int:
        """Seal because the mount has ended; the exit code is kept as the session's result too."""
        try:
            await seal_session(session, self.directory, self._request_at_end(out), None, self._progress)
        except FlistfsError as error:
            keep_failure(self.directory, error)
            return error.exit_code
        self._ended = "sealed"
        return 0

    def _request_at_end(self, out: Path) -> SealRequest:
        """Return how to seal when the mount ends."""
        config = self._config
        return SealRequest(
            out,
            options=SealOptions(epoch=config.epoch),
            router=config.router,
            metadata=MetadataChange.from_dict(config.metadata) if config.metadata else NO_CHANGE,
            startup=config.startup,
        )

    # Commands

    async def _perform(self, session: Session, request: object, stream: trio.SocketStream) -> dict[str, Any]:
        match request:
            case {"op": "status"}:
                return {
                    "sealing": "seal" in self._at_work,
                    "since": self._started,
                    "seal_to": self._config.seal_to,
                    "requests": dict(self._requests),
                    **session.status(),
                }
            case {"op": "seal", "request": raw}:
                return (await self._seal(session, SealRequest.from_dict(raw), stream)).as_dict()
            case {"op": "sync", "timeout": float(timeout)}:
                await while_wanted(stream, lambda _: session.sync(timeout, self._progress))
                return session.status()
            case {"op": "add", "request": raw}:
                return (await self._add(session, AddRequest.from_dict(raw), stream)).as_dict()
            case {"op": "abort"}:
                return await self._abort(session)
            case _:
                raise SessionError("the daemon does not know this request; it is of another version")


if __name__ == "__main__":
    main()
