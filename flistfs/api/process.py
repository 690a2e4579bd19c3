"""What may be done with the process that `flistfs.api` runs in.

A Python program keeps its signals, its logging, its threads and its working directory as they are. The
command line owns its process, says so once, and is quicker and safer for it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from flistfs.util.logs import log_to, with_format

if TYPE_CHECKING:
    from flistfs.authoring.state.directory import SessionDirectory
    from flistfs.authoring.upload.encoder_process import SpareProcesses

_loading: list[Callable[[], AbstractContextManager[None]]] = []


def own(loading: Callable[[], AbstractContextManager[None]]) -> None:
    """Let the process be the command line's; `loading` says what signals do while modules are imported."""
    _loading.append(loading)


def loading() -> AbstractContextManager[None]:
    """Import modules in this block, with nothing yet made that would have to be removed."""
    return _loading[-1]() if _loading else nullcontext()


def prepare_encoders(store: str, format_: str) -> SpareProcesses | None:
    """Fork processes for encoders, which is quicker than to start them: where no thread can be in the way.

    Raises:
        UsageError: the store's URL is invalid.
        StoreUnavailableError: the system takes no more processes or files.
    """
    if _loading:
        from flistfs.authoring.upload import encoder_process  # noqa: PLC0415  few need it
        from flistfs.format.opening import format_named  # noqa: PLC0415

        return encoder_process.prepare(store, format_named(format_).codec)
    return None


def leave_directory() -> None:
    """Leave the working directory: a command that was called inside the mount must not keep it busy."""
    if _loading:
        os.chdir("/")


@contextmanager
def logged_into(directory: SessionDirectory) -> Iterator[None]:
    """Write what is logged of flistfs into a session's log as well; a program's logging stays as it is."""
    if _loading:
        log_to(directory.log)
        yield
        return
    handler = with_format(logging.FileHandler(directory.log, delay=True, errors="backslashreplace"))
    logger = logging.getLogger("flistfs")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
