"""Archives that become flists, each in a process of its own that is fed through a pipe.

What a stranger's archive does to that process is the end of that upload alone.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from flistfs.errors import FormatError, SourceError
from flistfs.hub.errors import HubError
from flistfs.hub.hub import Hub
from flistfs.stores.url import PASSWORD_VARIABLE

log = logging.getLogger(__name__)

SUFFIXES: Final = (
    ".tar.gz",
    ".tgz",
    ".tar",
    ".tar.bz2",
    ".tbz2",
    ".tar.xz",
    ".txz",
    ".tar.zst",
    ".tzst",
)
"""What the names of archives end in; what is in them decides how they are read."""

# Exit codes for which the archive is to blame.
_SENDERS_FAULT: Final = frozenset({FormatError.exit_code, SourceError.exit_code})

_MAX_ANSWER: Final = 16 << 20  # bytes of what the process prints
_ENDING: Final = 10.0  # seconds that it has to end once it is told to


class BackendError(HubError):
    """The hub could not do it, for no fault of the caller."""

    status = 500


@dataclass(frozen=True, slots=True)
class Packed:
    """What an archive became: counts as clients know them."""

    regular: int
    symlink: int
    directory: int
    special: int
    fullsize: int

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> Packed:
        """Return the counts of what the process says."""
        names = ("files", "links", "directories", "specials", "size")
        return cls(*(int(summary[name]) for name in names))

    def as_stats(self) -> dict[str, Any]:
        """Return them as zflist's answer has them, and as older answers had them."""
        counts = {
            "regular": self.regular,
            "symlink": self.symlink,
            "directory": self.directory,
            "special": self.special,
            "failure": 0,
            "fullsize": self.fullsize,
        }
        return {"success": True, "error": None, "response": counts, "status": 0, **counts}


class Packing:
    """A process that packs an archive, which it is given with `write`."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._has_ended = False

    async def write(self, data: bytes) -> None:
        """Hand the next bytes of the archive on, as fast as they are packed.

        Raises:
            HubError: the process has ended; it says why.
        """
        if self._has_ended:
            return
        assert self._process.stdin is not None  # noqa: S101  the type checker's
        try:
            await self._process.stdin.send_all(data)
        except trio.BrokenResourceError:
            self._has_ended = True  # why, `finish` says

    async def finish(self) -> Packed:
        """Wait until all is packed.

        Raises:
            HubError: the archive is damaged or cannot be an flist, or the hub could not store it.
        """
        assert self._process.stdin is not None  # noqa: S101  the type checker's
        assert self._process.stdout is not None  # noqa: S101
        await self._process.stdin.aclose()
        answer = bytearray()
        async for part in self._process.stdout:
            answer += part
            if len(answer) > _MAX_ANSWER:
                raise BackendError("the archive could not be packed")
        code = await self._process.wait()
        try:
            told = json.loads(answer)
        except ValueError:
            told = {}
        if code == 0:
            return Packed.of(told["packed"])
        message = str(told.get("error", "it ended unexpectedly"))
        log.warning("an upload was not packed (exit code %d): %s", code, message)
        if code in _SENDERS_FAULT:
            raise HubError(message.removeprefix("standard input cannot be read: "))
        raise BackendError("the archive could not be stored; try again later")


@asynccontextmanager
async def packing(hub: Hub, out: Path, format_: str) -> AsyncIterator[Packing]:
    """Start a process that packs an archive into `out`, in a format; it does not outlive the block."""
    data = hub.settings.data
    places = {f"XDG_{kind.upper()}_HOME": str(data / kind) for kind in ("state", "cache", "data")}
    env = {**_own_environment(), **places}
    if hub.password is not None:
        env[PASSWORD_VARIABLE] = hub.password
    config = {"out": str(out), "store": hub.settings.store, "format": format_}
    command = [sys.executable, "-m", "flistfs.hub.packer", json.dumps(config)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
    )
    try:
        yield Packing(process)
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)
            await trio.to_thread.run_sync(lambda: out.unlink(missing_ok=True))


async def _end(process: trio.Process) -> None:
    if process.returncode is None:
        process.terminate()
        with trio.move_on_after(_ENDING):
            await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            await pipe.aclose()


def _own_environment() -> dict[str, str]:
    """Return the environment without what would change how an upload is packed."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("FLISTFS_", "SOURCE_"))}
