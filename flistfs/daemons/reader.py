"""The process that serves a sealed flist, read-only, until it is unmounted. `launch` starts it."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import pyfuse3
import trio

from flistfs.authoring.request import PASSWORD_VARIABLE
from flistfs.daemons.launch import ReaderConfig, heed_interrupts, read_config
from flistfs.errors import FlistfsError, InternalError, InterruptedByUserError
from flistfs.fuse import loop, mounts
from flistfs.fuse.serving import Ready, init_fuse, log_tasks_on_demand
from flistfs.reading.chunks import DEFAULT_LIMIT, Chunks
from flistfs.reading.content import store_of
from flistfs.reading.flist import Flist
from flistfs.reading.mount import Operations
from flistfs.util.logs import log_to_standard_error
from flistfs.util.nurseries import unwrapped

log = logging.getLogger("flistfs.daemons.reader")  # __name__ is __main__ here

# Requests that are served at the same time; those for content wait for the store.
_MAX_REQUESTS = 100


def main() -> NoReturn:
    """Run it, told by a config on standard input."""
    config = ReaderConfig(**read_config())
    log_to_standard_error(foreground=config.foreground)
    sys.exit(_run(config))


def _run(config: ReaderConfig) -> int:
    ready = Ready(config.foreground)
    try:
        with unwrapped():
            heed_interrupts()
            trio.run(_Reader(config, ready).run)
    except FlistfsError as error:
        return _refuse(ready, error)
    except KeyboardInterrupt:  # from before there was a mount, which would be unmounted first
        return _refuse(ready, InterruptedByUserError("interrupted before anything was mounted"))
    except Exception as error:
        log.exception("the reader fails")
        ready.say({"error": InternalError(f"the reader failed: {error} (log: {config.log})").as_dict()})
        return 1
    if not config.foreground:
        Path(config.log).unlink(missing_ok=True)  # there is nothing more to tell
    return 0


def _refuse(ready: Ready, error: FlistfsError) -> int:
    log.error("%s", error)
    ready.say({"error": error.as_dict()})
    return error.exit_code


class _Reader:
    """One flist, mounted."""

    def __init__(self, config: ReaderConfig, ready: Ready) -> None:
        self._config = config
        self._ready = ready
        self._mountpoint = Path(config.mountpoint)
        self._answering = trio.Event()
        self._serving = trio.CancelScope()

    async def run(self) -> None:
        """Mount, and serve until the mount has ended."""
        config = self._config
        password = os.environ.pop(PASSWORD_VARIABLE, None)
        with (
            Flist.open(Path(config.package)) as flist,
            closing(store_of(flist, config.store, password, config.usual_store)) as store,
        ):
            if not config.offline:
                # Makes no directory, as `check` would. A server that hangs must not keep Ctrl-C waiting.
                await trio.to_thread.run_sync(store.missing, [store.codec.no_block], abandon_on_cancel=True)
            chunks = Chunks(store, config.cache_size or DEFAULT_LIMIT)
            # From before there is a mount: the first requests are served before any other task has its turn.
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                await self._serve(flist, chunks, signals)

    async def _serve(self, flist: Flist, chunks: Chunks, signals: AsyncIterator[int]) -> None:
        cores = loop.install(low_latency=self._config.low_latency)
        async with trio.open_nursery() as nursery:
            operations = Operations(flist, chunks, nursery, self._answering.set)
            init_fuse(operations, self._mountpoint, self._config.options)
            try:
                nursery.start_soon(self._handle_signals, signals)
                nursery.start_soon(log_tasks_on_demand)
                nursery.start_soon(cores.watch)
                nursery.start_soon(self._announce)
                with self._serving:
                    await pyfuse3.main(max_tasks=_MAX_REQUESTS)
                log.info("%s is unmounted", self._mountpoint)
                nursery.cancel_scope.cancel()
            finally:
                pyfuse3.close(unmount=False)

    async def _announce(self) -> None:
        """Say that the file system answers, when it does."""
        await self._answering.wait()
        await trio.to_thread.run_sync(self._mountpoint.stat, abandon_on_cancel=True)
        log.info("%s is mounted", self._mountpoint)
        self._ready.say({"ready": True})

    async def _handle_signals(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            log.info("%s: unmounting", signal.Signals(number).name)
            try:
                await trio.to_thread.run_sync(mounts.unmount, self._mountpoint)
            except FlistfsError as error:
                # Who still uses it sees errors, and no empty directory; the next mount there takes it away.
                log.warning("%s; leaving a dead mount", error)
                self._serving.cancel()


if __name__ == "__main__":
    main()
