"""What the daemon would do, for a session that has none."""

from __future__ import annotations

import logging
import os
from typing import Any

import trio

from flistfs.authoring.folder import SessionFolder
from flistfs.authoring.request import Progress, SealRequest
from flistfs.authoring.session import keep_failure, open_session, seal_session, unwrapped
from flistfs.authoring.vfs import Caller
from flistfs.errors import FlistfsError, SessionError
from flistfs.stores import open_store

log = logging.getLogger(__name__)


def seal(
    folder: SessionFolder, password: str | None, request: SealRequest, progress: Progress
) -> dict[str, Any]:
    """Seal a session that is not mounted, in this process; returns the summary as plain data.

    Raises:
        SessionError: another process has the session.
        FlistfsError: as a seal of a mounted session does. The session is kept.
    """
    lock = folder.lock()
    # What a daemon would write into its log; without this the last-resort handler would say it on stderr.
    logging.basicConfig(
        filename=folder.log,
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        if not folder.is_open():
            raise SessionError(f"the session in {folder.path} has ended meanwhile")
        with unwrapped():
            summary = trio.run(_seal, folder, password, request, progress)
        folder.end()
    except FlistfsError as error:
        keep_failure(folder, error)
        raise
    except OSError as error:
        log.exception("the session cannot be used")
        raise SessionError(f"the session in {folder.path} cannot be used: {error.strerror}") from error
    finally:
        lock.release()
    return summary


async def _seal(
    folder: SessionFolder, password: str | None, request: SealRequest, progress: Progress
) -> dict[str, Any]:
    store = open_store(folder.settings().store, password)
    try:
        await trio.to_thread.run_sync(store.check)
        async with open_session(folder, store, Caller(os.geteuid(), os.getegid())) as session:
            return await seal_session(session, folder, request, None, progress)
    finally:
        store.close()
