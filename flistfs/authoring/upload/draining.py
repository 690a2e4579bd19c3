"""Wait until everything that was written is stored."""

from __future__ import annotations

import trio

from flistfs.authoring.parts import Parts
from flistfs.authoring.upload.store_timeout import Standstill, StoreTimeout
from flistfs.util.nurseries import unwrapped
from flistfs.util.progress import Report


async def drain(parts: Parts, timeout: StoreTimeout) -> None:
    """Wait until everything is stored; report progress and trouble meanwhile.

    Raises:
        StoreUnavailableError: the store accepted nothing for longer than the timeout.
    """
    total = parts.uploader.status().queued_bytes
    standstill = Standstill(parts.store.url)
    parts.uploader.retry_now()
    with unwrapped():
        async with trio.open_nursery() as nursery:

            async def finish() -> None:
                await parts.content.drain()
                nursery.cancel_scope.cancel()

            nursery.start_soon(finish)
            while True:
                status = parts.uploader.status()
                total = max(total, status.queued_bytes)
                stuck = standstill.trouble(status)
                trouble = status.trouble or parts.content.trouble or stuck
                timeout.report(Report("upload", total - status.queued_bytes, total, trouble))
                await trio.sleep(0.1)
