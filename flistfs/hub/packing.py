"""Making flists, each by a process of its own: of an archive that is fed through a pipe, or of an flist.

What a stranger's archive does to that process is the end of that upload alone.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from flistfs.errors import BlockCorruptError, BlockMissingError, FormatError, SourceError
from flistfs.hub.errors import HubError, without
from flistfs.hub.hub import Hub
from flistfs.hub.packer import COUNTS
from flistfs.stores.url import PASSWORD_VARIABLE
from flistfs.util.nurseries import unwrapped

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
_SENDERS_FAULT: Final = frozenset(
    each.exit_code for each in (FormatError, SourceError, BlockMissingError, BlockCorruptError)
)

_MAX_LINE: Final = 64 << 10  # bytes of what the process prints at once
_ENDING: Final = 10.0  # seconds that it has to end once it is told to


Telling: TypeAlias = Callable[[str, int], object]
"""Called with what is being done, and how much of that is, in percent."""


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
        return cls(*(int(summary[name]) for name in COUNTS))

    @property
    def counts(self) -> dict[str, int]:
        """Return them by their names in answers."""
        return {
            "regular": self.regular,
            "symlink": self.symlink,
            "directory": self.directory,
            "special": self.special,
            "failure": 0,
            "fullsize": self.fullsize,
        }

    def as_stats(self) -> dict[str, Any]:
        """Return them as zflist's answer has them, and as older answers had them."""
        counts = self.counts
        return {"success": True, "error": None, "response": counts, "status": 0, **counts}


class Packing:
    """A process that makes an flist, of an archive that it is given with `write`."""

    def __init__(self, process: trio.Process, telling: Telling, hidden: Mapping[str, str]) -> None:
        self._process = process
        self._hidden = hidden
        self._telling = telling
        self._has_ended = False
        self._last: Mapping[str, Any] = {}
        self._is_silent = trio.Event()

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

    async def listen(self) -> None:
        """Take what the process says, until it ends."""
        assert self._process.stdout is not None  # noqa: S101  the type checker's
        said = b""
        try:
            async for part in self._process.stdout:
                *lines, said = (said + part).split(b"\n")
                for line in lines:
                    self._take(line)
                said = said[:_MAX_LINE]  # what is longer is no JSON, nor will be
        except (ValueError, KeyError, TypeError):
            log.warning("a process that packs said what makes no sense")
            self._last = {}
            self._process.kill()
        finally:
            self._is_silent.set()

    def _take(self, line: bytes) -> None:
        told = json.loads(line)
        if "phase" not in told:
            self._last = told
        elif told["total"]:
            self._telling(str(told["phase"]), min(100, 100 * int(told["done"]) // int(told["total"])))

    async def finish(self) -> Packed:
        """Wait until all is packed.

        Raises:
            HubError: the archive is damaged or cannot be an flist, or the hub could not store it.
        """
        assert self._process.stdin is not None  # noqa: S101  the type checker's
        await self._process.stdin.aclose()
        await self._is_silent.wait()
        code = await self._process.wait()
        if code == 0 and "packed" in self._last:
            return Packed.of(self._last["packed"])
        message = str(self._last.get("error", "it ended unexpectedly"))
        log.warning("an flist was not made (exit code %d): %s", code, message)
        if code in _SENDERS_FAULT:
            raise HubError(without(message, self._hidden).removeprefix("standard input cannot be read: "))
        raise BackendError("the flist could not be stored; try again later")


@asynccontextmanager
async def packing(
    hub: Hub, out: Path, format_: str, telling: Telling, package: Path | None = None
) -> AsyncIterator[Packing]:
    """Start a process that makes an flist; it does not outlive the block, nor does what is not published.

    Args:
        hub: Has the store of its blocks.
        out: Where it goes.
        format_: Its format.
        telling: Is told how far it is.
        package: Of which flist; None for the archive that is written to the process.
    """
    settings = hub.settings
    places = {f"XDG_{kind.upper()}_HOME": str(settings.data / kind) for kind in ("state", "cache", "data")}
    env = {**_own_environment(), **places, "TMPDIR": str(out.parent)}  # where there is room for uploads
    if hub.password is not None:
        env[PASSWORD_VARIABLE] = hub.password
    config: dict[str, object] = {"out": str(out), "store": settings.store, "format": format_}
    config |= {"entries": settings.max_entries, "size": settings.max_upload, "timeout": settings.timeout}
    hidden = {settings.store: "the hub's store"}
    if package is not None:
        config["package"] = str(package)
        hidden[str(package)] = "it"
    command = [sys.executable, "-m", "flistfs.hub.packer", json.dumps(config)]
    process = await trio.lowlevel.open_process(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
    )
    try:
        with unwrapped():
            async with trio.open_nursery() as nursery:
                made = Packing(process, telling, hidden)
                nursery.start_soon(made.listen)
                yield made
                nursery.cancel_scope.cancel()
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
