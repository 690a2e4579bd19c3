"""Open stores by their URLs and routers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flistfs.stores.base import DEFAULT_TIMEOUT
from flistfs.stores.url import PASSWORD_VARIABLE, default_store_url, parse_store_url

if TYPE_CHECKING:
    from flistfs.format.base import Codec
    from flistfs.format.router import Router
    from flistfs.stores.base import Store


def open_store(
    url: str,
    codec: Codec,
    password: str | None = None,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    reading: bool = False,
    password_variable: str | None = PASSWORD_VARIABLE,
) -> Store:
    """Return the store at a URL, for a codec's blocks, without connecting to it yet: `check()` does.

    `password` is used if the URL has none, and for all servers of a router whose URLs have none; `timeout`
    is in seconds without progress (servers only; see `reading_deadline`). A store for `reading` may be a
    router whose ranges leave gaps, and is content with one server for each block.
    `password_variable` is what messages call the place of the password; None if a server gets none.
    Raises `UsageError` for an invalid URL or router.
    """
    parsed = parse_store_url(url, password)
    # Each is imported where it is used: redis-py, needed for clusters only, takes 0.2 s.
    if parsed.scheme == "router":
        from flistfs.stores.combined.routed import open_router  # noqa: PLC0415

        return open_router(
            parsed,
            codec,
            password,
            timeout=timeout,
            reading=reading,
            password_variable=password_variable,
        )
    if parsed.path is not None:
        from flistfs.stores.directory import DirectoryStore  # noqa: PLC0415

        return DirectoryStore(parsed.path, codec)
    if parsed.scheme == "redis+cluster":
        from flistfs.stores.redis.cluster import ClusterStore  # noqa: PLC0415

        return ClusterStore(parsed, codec, timeout=timeout, password_variable=password_variable)
    from flistfs.stores.redis.server import RedisStore  # noqa: PLC0415

    return RedisStore(parsed, codec, timeout=timeout, reading=reading, password_variable=password_variable)


def open_flist_store(
    codec: Codec,
    router: Router | None,
    url: str | None = None,
    password: str | None = None,
    *,
    timeout: float = DEFAULT_TIMEOUT,
    reading: bool = True,
    password_variable: str = PASSWORD_VARIABLE,
) -> Store:
    """Return the store that holds an flist's blocks, without connecting yet; by default for reading only.

    That is the store at `url`, if the user named one; else the one of the package's own router; else the
    user's directory of blocks. The password is sent only to the store at `url`: a package, and the server
    names in it, may come from strangers.

    Raises:
        UsageError: the URL or its router is invalid.
        FormatError: the package's router does not.
    """
    if url is None and router is not None:
        from flistfs.stores.combined.routed import RoutedStore  # noqa: PLC0415

        return RoutedStore.of_package(router, codec, timeout=timeout, reading=reading)
    return open_store(
        url or default_store_url(),
        codec,
        password,
        timeout=timeout,
        reading=reading,
        password_variable=password_variable,
    )
