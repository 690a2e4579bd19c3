"""The handlers answer whatever happens behind them."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import cast

import pyfuse3
import pytest
import trio

from flistfs.authoring.filesystem.fuse import Operations
from flistfs.authoring.filesystem.vfs import Vfs
from flistfs.errors import JournalError


class BrokenVfs:
    """Fails as no real one should."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def inode(self, _: int) -> None:
        raise self._error

    def forget(self, _: int) -> None:
        raise self._error


def operations(error: Exception) -> Operations:
    return Operations(cast("Vfs", BrokenVfs(error)), Path(), answering=lambda: None)


@pytest.mark.parametrize(
    ("error", "number", "logged"),
    [
        (ZeroDivisionError("a mistake"), errno.EIO, "getattr failed"),
        (JournalError("the journal is damaged"), errno.EIO, "getattr failed: the journal is damaged"),
        (OSError(errno.ENOSPC, "full"), errno.ENOSPC, ""),
        (FileNotFoundError(errno.ENOENT, "not there"), errno.ENOENT, ""),
    ],
)
def test_an_error_is_the_answer_to_its_own_request(
    error: Exception, number: int, logged: str, caplog: pytest.LogCaptureFixture
) -> None:
    handlers = operations(error)
    context = cast("pyfuse3.RequestContext", None)
    with caplog.at_level(logging.ERROR), pytest.raises(pyfuse3.FUSEError) as caught:
        trio.run(handlers.getattr, pyfuse3.InodeT(1), context)
    assert caught.value.errno == number
    assert logged in caplog.text
    assert bool(caplog.text) == bool(logged)
    assert handlers.requests["getattr"] == 1


def test_forgetting_never_fails(caplog: pytest.LogCaptureFixture) -> None:
    trio.run(operations(ZeroDivisionError()).forget, [(pyfuse3.InodeT(7), 1), (pyfuse3.InodeT(8), 1)])
    assert caplog.text.count("forgetting inode") == 2
