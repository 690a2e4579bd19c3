"""Time limits for a store that accepts nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

import trio

from flistfs.authoring.upload.uploader import UploadStatus
from flistfs.errors import StoreUnavailableError
from flistfs.util.progress import Progress, Report

# Seconds until a store that did not answer is tried again.
_RETRY_INTERVAL = 2.0

# Seconds after which a store that accepts nothing counts as being in trouble, though it may only be slow.
QUIET = 2.0

# The least seconds allowed for connecting to a store, however short the timeout.
_MIN_CONNECT_TIMEOUT = 1.0


async def connect(work: Callable[[], None], url: str, timeout: float) -> None:
    """Run `work`, which connects to a store (blocks), for `timeout` seconds at most.

    Raises:
        StoreUnavailableError: it took longer; the work continues until the store is closed.
        StoreError: the store cannot be used.
    """
    from flistfs.stores.redis.server import refuse_plain_for_tls  # noqa: PLC0415  other stores do not need it

    with trio.move_on_after(max(timeout, _MIN_CONNECT_TIMEOUT)) as scope:
        await trio.to_thread.run_sync(work, abandon_on_cancel=True)
    if scope.cancelled_caught:
        await trio.to_thread.run_sync(refuse_plain_for_tls, url)  # a handshake may take longer than that
        raise StoreUnavailableError(
            f"gave up after {max(timeout, _MIN_CONNECT_TIMEOUT):.0f} s: {url} does not answer; check the "
            f"server and the network, or give a longer `timeout`"
        )


class Standstill:
    """Detects that nothing is uploaded although chunks are waiting."""

    def __init__(self, url: str) -> None:
        """Watch the uploads to the store at `url`."""
        self._url = url
        self._queued = 0
        self._moved = time.monotonic()

    def trouble(self, status: UploadStatus) -> str | None:
        """Return what is blocking the uploads; None if nothing is."""
        if status.queued != self._queued:
            self._queued, self._moved = status.queued, time.monotonic()
        is_quiet = self._queued and time.monotonic() - self._moved > QUIET
        return status.trouble or (f"{self._url} accepts nothing" if is_quiet else None)


class StoreTimeout:
    """A limit on waiting for a store in trouble: `timeout` seconds from the start of the wait."""

    def __init__(self, timeout: float, progress: Progress) -> None:
        """Wait for `timeout` seconds at most, and report to `progress` meanwhile."""
        self._timeout = timeout
        self._progress = progress
        self._troubled_since: float | None = None

    def report(self, report: Report) -> None:
        """Report progress; give up on trouble that lasts too long.

        Raises:
            StoreUnavailableError: it lasted longer than the timeout.
        """
        self._progress(report)
        if report.trouble is None:
            self._troubled_since = None
            return
        now = time.monotonic()
        self._troubled_since = self._troubled_since or now
        if now - self._troubled_since >= self._timeout:
            raise StoreUnavailableError(
                f"gave up after {self._timeout:.0f} s: {report.trouble}. Everything is kept; try again "
                f"later, or with a longer `timeout`"
            )

    async def wait(self, trouble: str) -> None:
        """Wait a moment before the store is tried again."""
        self.report(Report("check", 0, 1, trouble))
        await trio.sleep(_RETRY_INTERVAL)
