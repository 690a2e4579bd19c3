"""Check that the servers that an flist names to its readers have its blocks."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Final

from flistfs.errors import BlockMissingError, StoreError, StoreUnavailableError
from flistfs.reading.flist import Faults, Flist
from flistfs.reading.push import Blocks
from flistfs.stores.base import DEFAULT_TIMEOUT
from flistfs.util.progress import Report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flistfs.format.router import Router
    from flistfs.stores.base import Store
    from flistfs.util.progress import Progress

# Blocks queried between two checks of the deadline.
_BATCH: Final = 4096

_NAMED_SERVERS: Final = 3


def check_named(
    package: Path, router: Router, timeout: float, progress: Progress, *, is_strict: bool = False
) -> tuple[str, ...]:
    """Query the servers that an flist names for all of its blocks, as readers do: without a password.

    Args:
        package: The flist.
        router: The servers it names.
        timeout: Seconds for the whole check; at least one.
        progress: Receives the progress.
        is_strict: Whether servers that cannot be asked are an error; else they may be out of this machine's
            reach, though not out of the readers'.

    Returns:
        Notes for the user: why they were not queried, or not for all blocks, and which of them lack blocks
        that others have.

    Raises:
        BlockMissingError: all of them lack some.
        StoreError: they could not be asked, and that is an error.
        FormatError: the router is invalid.
    """
    from flistfs.stores.combined.routed import RoutedStore  # noqa: PLC0415  few seals query other servers

    timeout = max(timeout, 1.0)
    deadline = time.monotonic() + timeout
    names, is_one = _listed(router), len(router.all_urls()) == 1
    with (
        Flist.open(package, Faults.READ_PAST) as flist,
        closing(RoutedStore.of_package(router, flist.codec, timeout=min(timeout, DEFAULT_TIMEOUT))) as store,
        Blocks.of(flist, progress) as blocks,
    ):
        done = missing = 0
        lacking: Counter[str] = Counter()
        for batch in blocks.batches(_BATCH):
            if time.monotonic() > deadline:
                late = f"{names} could not be checked for all blocks in {timeout:.0f} s"
                if is_strict:
                    raise StoreUnavailableError(f"{late}; raise `timeout`, or leave it out with `check`")
                return (late,)
            try:
                absent, by_server = store.missing_and_lacking([ref.hash for ref in batch])
            except StoreError as error:
                if is_strict:
                    raise
                have = "has" if is_one else "have"
                return (f"could not check whether {names} {have} the blocks: {error}",)
            missing += len(absent)
            lacking.update(by_server)
            done += len(batch)
            progress(Report("named", done, len(blocks)))
        of_all = f"of its {len(blocks):,} {'block' if len(blocks) == 1 else 'blocks'}"
        if missing:
            raise BlockMissingError(
                f"{names}, which the flist is to name to its readers, {'lacks' if is_one else 'lack'} "
                f"{missing:,} {of_all}; correct `public_url` or `router`, or copy them there first: "
                f"{'' if is_strict else 'seal without it, and '}flistfs push"
            )
        return (*_lacking_replicas(lacking, of_all), *_unchecked(store))


def _lacking_replicas(lacking: Counter[str], of_all: str) -> Iterator[str]:
    for url, count in (+lacking).most_common(_NAMED_SERVERS):
        yield (
            f"{url}, which the flist names to its readers, lacks {count:,} {of_all}: others have them; "
            f"flistfs push --to ROUTER.yaml copies them"
        )


def _unchecked(store: Store) -> Iterator[str]:
    if store.trouble is not None:
        yield f"servers that the flist names to its readers could not be checked: {store.trouble}"


def _listed(router: Router) -> str:
    urls = router.all_urls()
    more = f" and {len(urls) - _NAMED_SERVERS} more" if len(urls) > _NAMED_SERVERS else ""
    return ", ".join(urls[:_NAMED_SERVERS]) + more
