"""Bringing the blocks of an flist to another store."""

from __future__ import annotations

from contextlib import closing

from flistfs.api.arguments import AnyPath, StoreName, chosen_store, target_store, typed_path
from flistfs.reading import push as pushing
from flistfs.reading.content import store_of
from flistfs.reading.flist import Flist
from flistfs.reading.push import PushSummary
from flistfs.stores import open_store
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
    progress: Progress | None = None,
) -> PushSummary:
    """Bring the blocks of an flist to another store: those that it lacks, each checked on the way.

    Args:
        package: The flist.
        to: The store to bring them to.
        password: Its password, if its URL has none.
        min_replicas: With a router: how many servers must take a block. Default: all that it belongs to.
        source: Where they are taken from. Default: where the flist says that they are.
        source_password: The password of `source`, if its URL has none.
        fallback_store: Where they are if it does not say. Default: the user's directory of blocks.
        check_content: Fetch every block that is there already, and put right ones over wrong ones.
        progress: Is told how far it is.

    Raises:
        BlockMissingError: the source lacks blocks that the other store lacks too.
        BlockCorruptError: blocks in the source are corrupt.
        StoreError: a store cannot be used. What was pushed until then stays.
        FormatError: the flist is not there, or damaged.
        UsageError: an argument is invalid.
    """
    url, secret = target_store(to, password, min_replicas)
    origin, origin_secret = chosen_store(source, source_password)
    fallback, _ = chosen_store(fallback_store, None)
    with (
        Flist.open(typed_path(package)) as flist,
        closing(
            store_of(flist, origin, origin_secret, fallback, password_variable=FROM_PASSWORD_VARIABLE)
        ) as from_store,
        closing(open_store(url, flist.codec, secret)) as target,
    ):
        target.check()
        return pushing.push(flist, from_store, target, progress or quiet, check_content=check_content)
