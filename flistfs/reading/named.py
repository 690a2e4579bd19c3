"""Whether the servers that an flist names to its readers have its blocks."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Final

from flistfs.errors import BlockMissingError, StoreError
from flistfs.reading.flist import Flist
from flistfs.reading.push import Blocks
from flistfs.stores.base import DEFAULT_TIMEOUT

if TYPE_CHECKING:
    from pathlib import Path

    from flistfs.format.router import Router
    from flistfs.progress import Progress

# Blocks that are asked for between two looks at the clock.
_BATCH: Final = 4096

_NAMED_SERVERS: Final = 3


def check_named(package: Path, router: Router, timeout: float, progress: Progress) -> str | None:
    """Ask the servers that an flist names for all of its blocks, as readers do: without a password.

    Args:
        package: The flist.
        router: What it names.
        timeout: Seconds that all of it may take; at least one.
        progress: Is told how far it is.

    Returns:
        Why they were not asked, or not for all; None if they were, and have every block.

    Raises:
        BlockMissingError: they lack some.
        FormatError: the router makes no sense.
    """
    from flistfs.stores.routed import RoutedStore  # noqa: PLC0415  few seals ask other servers

    timeout = max(timeout, 1.0)
    deadline = time.monotonic() + timeout
    names = _listed(router)
    store = RoutedStore.of_package(router, timeout=min(timeout, DEFAULT_TIMEOUT))
    with closing(store), Flist.open(package) as flist, Blocks.of(flist, progress) as blocks:
        done = lacking = 0
        for batch in blocks.batches(_BATCH):
            if time.monotonic() > deadline:
                return f"{names} could not be asked for all blocks in {timeout:.0f} s"
            try:
                lacking += len(store.missing([ref.hash for ref in batch]))
            except StoreError as error:
                return f"{names} could not be asked whether they have the blocks: {error}"
            done += len(batch)
            progress("named", done, len(blocks))
        if lacking:
            raise BlockMissingError(
                f"{names}, which the flist is to name to its readers, lack {lacking} of its {len(blocks)} "
                f"blocks; correct --public-url or --router, or bring them there first: seal without it, and "
                f"flistfs push"
            )
    return None


def _listed(router: Router) -> str:
    urls = router.all_urls()
    more = f" and {len(urls) - _NAMED_SERVERS} more" if len(urls) > _NAMED_SERVERS else ""
    return ", ".join(urls[:_NAMED_SERVERS]) + more
