"""A hub: its repositories, accounts, blocks, and what it is told by who runs it."""

from __future__ import annotations

import fcntl
import ipaddress
import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from flistfs.errors import BusyError, OutputError
from flistfs.format.base import Codec
from flistfs.format.router import Router, router_to
from flistfs.hub.accounts import Accounts
from flistfs.hub.checksums import Checksums
from flistfs.hub.lists import Lists
from flistfs.hub.repositories import Repositories
from flistfs.hub.tries import Tries
from flistfs.stores import Store, open_store
from flistfs.util.closing import Closing

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

USUAL_TIMEOUT: Final = 30.0
"""Seconds that an upload waits while the store takes nothing: its client waits, too."""

_TRIES_OF_AN_ADDRESS: Final = 50
_TRIES_FOR: Final = 300.0  # seconds

NOBODY: Final = "Administrator"
"""Who everybody is on a hub where nobody logs in, as on 0-hub."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a hub is run.

    Attributes:
        data: The directory with all of it.
        store: The URL of the store of its blocks, without a password.
        format: The name of the format that it makes flists in.
        public_url: The hub's own address, where that differs from the one that is asked; None if not.
        public_store: What flists name as the place of their blocks; None if they name the store.
        is_open: Whether everybody may do everything, without a token.
        max_upload: Bytes of the largest upload, as it arrives and as it is unpacked.
        max_entries: How many entries an archive may have.
        max_jobs: How many uploads are packed at the same time.
        timeout: Seconds to wait while the store takes nothing.
        max_rate: How many blocks one address may ask for in a second.
        proxies: Whose word counts of who asks (X-Forwarded-For, -Proto and -Host).
    """

    data: Path
    store: str
    format: str
    public_url: str | None = None
    public_store: str | None = None
    is_open: bool = False
    max_upload: int = 1 << 40
    max_entries: int = 10_000_000
    max_jobs: int = 2
    timeout: float = USUAL_TIMEOUT
    max_rate: int = 20_000
    proxies: tuple[Network, ...] = ()

    @property
    def named_router(self) -> Router | None:
        """The router that flists get; None leaves what they say."""
        return None if self.public_store is None else router_to(self.public_store)


class Hub(Closing):
    """An open hub. Only one process has it, while it serves it."""

    def __init__(self, settings: Settings, password: str | None = None) -> None:
        """Open the hub in a directory, which is completed.

        Raises:
            BusyError: another process serves it.
            OutputError: the directory cannot be written.
        """
        self.settings = settings
        self.password = password
        data = settings.data
        with ExitStack() as opened:
            prepare(data)
            try:
                _lock(data / "lock", opened)
                self.repositories = Repositories(data)
                self.lists = Lists(self.repositories)
                self.checksums = opened.enter_context(Checksums(data / "index.sqlite3"))
            except OSError as error:
                raise OutputError(f"{data} cannot be written: {error.strerror}") from error
            self.accounts = opened.enter_context(Accounts(accounts_in(data)))
            self.tries = Tries(_TRIES_OF_AN_ADDRESS, _TRIES_FOR)
            self._opened = opened.pop_all()

    def open_store(self, codec: Codec, *, reading: bool = False) -> Store:
        """Open the store of its blocks, for what a codec makes; raises as `stores.open_store`."""
        return open_store(self.settings.store, codec, self.password, reading=reading)

    def close(self) -> None:
        """Close it."""
        self._opened.close()


def prepare(data: Path) -> None:
    """Make the directory of a hub, if need be.

    Raises:
        OutputError: it cannot be made.
    """
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{data} cannot be written: {error.strerror}") from error


def accounts_in(data: Path) -> Path:
    """Return the file of a hub's accounts, which commands may change while it is served."""
    return data / "accounts.sqlite3"


def _lock(path: Path, opened: ExitStack) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    opened.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BusyError(f"another process serves the hub in {path.parent}") from None
