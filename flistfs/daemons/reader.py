"""The process that serves a sealed flist, read-only, until it is unmounted. `launch` starts it."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import trio

from flistfs.authoring.request import PASSWORD_VARIABLE
from flistfs.daemons.config import ReaderConfig
from flistfs.daemons.process import Ready, heed_interrupts, read_config
from flistfs.errors import FlistfsError, InterruptedByUserError
from flistfs.fuse.serving import MountServer
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
        ready.say({"error": f"the reader failed: {error} (log: {config.log})", "exit_code": 1})
        return 1
    if not config.foreground:
        Path(config.log).unlink(missing_ok=True)  # there is nothing more to tell
    return 0


def _refuse(ready: Ready, error: FlistfsError) -> int:
    log.error("%s", error)
    ready.say({"error": str(error), "exit_code": error.exit_code, "code": error.code})
    return error.exit_code


class _Reader:
    """One flist, mounted."""

    def __init__(self, config: ReaderConfig, ready: Ready) -> None:
        self._config = config
        self._ready = ready
        self._mount = MountServer(
            Path(config.mountpoint), max_requests=_MAX_REQUESTS, low_latency=config.low_latency
        )

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
            await self._serve(flist, Chunks(store, config.cache_size or DEFAULT_LIMIT))

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
