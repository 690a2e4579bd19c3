"""Bringing the blocks of an flist to another store."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

from flistfs.api.arguments import (
    AnyPath,
    StoreName,
    chosen_store,
    flist_path,
    output_path,
    target_store,
)
from flistfs.errors import UsageError
from flistfs.format.metadata import NO_CHANGE
from flistfs.hub.copies import is_copy
from flistfs.reading import push as pushing
from flistfs.reading.config import rewrite
from flistfs.reading.content import store_of
from flistfs.reading.flist import Faults, Flist
from flistfs.reading.push import PushSummary
from flistfs.stores import open_store
from flistfs.stores.readers import notes_for_servers, router_to_store
from flistfs.stores.url import FROM_PASSWORD_VARIABLE
from flistfs.util.progress import Progress, quiet

__all__ = ["PushSummary", "push"]


def push(
    package: AnyPath,
    to: StoreName,
    *,
    password: str | None = None,
    min_replicas: int | None = None,
    source: StoreName | None = None,
    source_password: str | None = None,
    fallback_store: StoreName | None = None,
    check_content: bool = False,
    update: bool = False,
    progress: Progress | None = None,
) -> PushSummary:
    """Bring the blocks of an flist to another store: those that it lacks, each checked on the way.

    Of an flist in which another program lost something, all that is there is brought; the result says what
    is not, as `open` describes it.

    Args:
        package: The flist.
        to: The store to bring them to.
        password: Its password, if its URL has none.
        min_replicas: With a router: how many servers must take a block. Default: all that it belongs to.
        source: Where they are taken from. Default: where the flist says that they are.
        source_password: The password of `source`, if its URL has none.
        fallback_store: Where they are if it does not say. Default: the user's directory of blocks.
        check_content: Fetch every block that is there already, and put right ones over wrong ones.
        update: Let the flist say from then on that its blocks are there.
        progress: Called with a `Report` as the work goes on.

    Raises:
        BlockMissingError: the source lacks blocks that the other store lacks too.
        BlockCorruptError: blocks in the source are corrupt.
        StoreError: a store cannot be used. What was pushed until then stays.
        FormatError: the flist is not there, or damaged.
        OutputError: the changed flist cannot be written.
        UsageError: an argument is invalid, or readers cannot use the store that the flist is to name.
    """
    place = flist_path(package)
    if update and is_copy(place):
        raise UsageError(
            f"{place.name} is a copy of what lies elsewhere, which `update` does not change: download it"
        )
    if update and place.is_dir():
        raise UsageError(
            f"{place} is an unpacked flist, which `update` does not change; flistfs route makes another of it"
        )
    url, secret = target_store(to, password, min_replicas)
    origin, origin_secret = chosen_store(source, source_password)
    fallback, _ = chosen_store(fallback_store, None)
    with (
        Flist.open(place, Faults.READ_PAST) as flist,
        closing(
            store_of(flist, origin, origin_secret, fallback, password_variable=FROM_PASSWORD_VARIABLE)
        ) as from_store,
        closing(open_store(url, flist.codec, secret)) as target,
    ):
        router = router_to_store(target, flist.format)
        if update and router is None:
            raise UsageError(f"{target.unreadable}: `update` cannot let the flist name it")
        target.check()
        summary = pushing.push(flist, from_store, target, progress or quiet, check_content=check_content)
        summary = replace(summary, faults=tuple(flist.faults_met), fault_count=flist.accepted_faults)
    if update and router is not None:
        rewrite(place, output_path(place), router, NO_CHANGE, force=False)
        notes = tuple(notes_for_servers(router))
        summary = replace(summary, servers=router.all_urls(), notes=notes)
    return summary
