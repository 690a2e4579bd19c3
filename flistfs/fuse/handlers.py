"""What the request handlers of both file systems have in common: pyfuse3's side of answers and errors."""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

import pyfuse3
from pyfuse3 import EntryAttributes, FUSEError, InodeT

from flistfs.errors import FlistfsError

log = logging.getLogger(__name__)

TIMEOUT: Final = 365 * 86400.0
"""Seconds for which the kernel may cache names and attributes: a year, which is for ever."""

H = TypeVar("H", bound="Handlers")
P = ParamSpec("P")
T = TypeVar("T")
Method = Callable[Concatenate[H, P], Coroutine[Any, Any, T]]


class Handlers(pyfuse3.Operations):
    """Request handlers that `answered` decorates; `requests` counts the kernel's requests by kind."""

    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, answering: Callable[[], None]) -> None:
        """Serve nothing yet.

        Args:
            answering: Called when the kernel has initialised the mount, so that requests are served.
        """
        super().__init__()
        self.init = answering  # type: ignore[method-assign]
        self.requests: Counter[str] = Counter()

    def errno_of(self, error: Exception, request: str) -> int:
        """Return the errno that answers a request whose handler raised an error, and log the error."""
        if isinstance(error, FlistfsError):  # the store's, the flist's or the journal's: no bug
            log.error("%s failed: %s", request, error)
        else:
            log.error("%s failed", request, exc_info=error)
        return errno.EIO


def answered(method: Method[H, P, T]) -> Method[H, P, T]:
    """Count a handler's requests, and answer its errors to the kernel: they must not end the mount."""
    request = method.__name__

    @functools.wraps(method)
    async def answer(self: H, *args: P.args, **kwargs: P.kwargs) -> T:
        self.requests[request] += 1
        try:
            return await method(self, *args, **kwargs)
        except FUSEError:
            raise
        except Exception as error:  # noqa: BLE001  errno_of logs it
            raise FUSEError(self.errno_of(error, request)) from None

    return cast("Method[H, P, T]", answer)


def no_such_name() -> EntryAttributes:
    """Return the answer "no such name" in a form that the kernel caches, unlike ENOENT."""
    entry = EntryAttributes()
    entry.st_ino = InodeT(0)
    entry.entry_timeout = TIMEOUT
    return entry


def may_access(mode: int, wanted: int) -> bool:
    """Return whether access(2) of an inode with this st_mode succeeds in a mount without default_permissions.

    Only the user who mounted it can enter, and may do there what root may anywhere (CAP_DAC_OVERRIDE in
    capabilities(7)): read, write and search everything, but execute only what has an x bit for somebody.
    That is how the kernel decides execve there, and it refuses writing to a read-only mount without asking.

    Args:
        mode: The inode's.
        wanted: os.R_OK, W_OK and X_OK, or 0 for the question whether it exists.
    """
    return not wanted & os.X_OK or stat.S_ISDIR(mode) or bool(mode & 0o111)
