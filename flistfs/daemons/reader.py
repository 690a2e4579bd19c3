"""The process that serves a sealed flist, read-only, until it is unmounted. `launch` starts it."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NoReturn

import trio

from flistfs.daemons.config import ReaderConfig
from flistfs.daemons.process import Ready, read_config, run_daemon
from flistfs.fuse.serving import MountServer
from flistfs.reading.chunks import DEFAULT_LIMIT, Chunks
from flistfs.reading.content import store_of
from flistfs.reading.flist import Faults, Flist
from flistfs.reading.mount import Operations
from flistfs.stores.url import PASSWORD_VARIABLE
from flistfs.util.logs import log_to_standard_error

log = logging.getLogger("flistfs.daemons.reader")  # __name__ is __main__ here

# Requests that are served at the same time; those for content wait for the store.
_MAX_REQUESTS = 100


def main() -> NoReturn:
    """Run it with the config on standard input."""
    config = ReaderConfig(**read_config())
    log_to_standard_error(foreground=config.foreground)
    sys.exit(_run(config))


def _run(config: ReaderConfig) -> int:
    ready = Ready(config.foreground)
    reader = _Reader(config, ready)
    code = run_daemon(partial(trio.run, reader.run), ready, lambda _: None, Path(config.log))
    if code == 0 and not config.foreground:
        Path(config.log).unlink(missing_ok=True)  # there is nothing more to tell
    return code


class _Reader:
    """One flist, mounted."""

    def __init__(self, config: ReaderConfig, ready: Ready) -> None:
        self._config = config
        self._ready = ready
        self._mount = MountServer(
            Path(config.mountpoint), max_requests=_MAX_REQUESTS, low_latency=config.low_latency
        )

    async def run(self) -> int:
        """Mount, serve until the mount has ended, and return the exit code."""
        config = self._config
        password = os.environ.pop(PASSWORD_VARIABLE, None)
        with (
            Flist.open(Path(config.package), Faults.READ_AROUND) as flist,
            closing(store_of(flist, config.store, password, config.usual_store)) as store,
        ):
            if not config.offline:
                # Makes no directory, as `check` would. A server that hangs must not keep Ctrl-C waiting.
                await trio.to_thread.run_sync(store.missing, [store.codec.no_block], abandon_on_cancel=True)
            await self._serve(flist, Chunks(store, config.cache_size or DEFAULT_LIMIT))
        return 0

    async def _serve(self, flist: Flist, chunks: Chunks) -> None:
        async with trio.open_nursery() as reading_ahead:
            operations = Operations(flist, chunks, reading_ahead, self._mount.answering.set)
            with self._mount.mounted(operations, self._config.options) as signals:
                await self._mount.serve(signals, announce=self._announce)
            reading_ahead.cancel_scope.cancel()

    def _announce(self) -> None:
        log.info("%s is mounted", self._config.mountpoint)
        self._ready.say({"ready": True})


if __name__ == "__main__":
    main()
