"""The router that an flist gives its readers, so that they find its blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flistfs.errors import FormatError, UsageError
from flistfs.format.router import (
    MAX_SIZE,
    SCHEMES,
    Router,
    format_router,
    has_passwords,
    namespace_of,
    only_server,
    parse_router,
    router_to,
    with_servers,
    without_passwords,
)
from flistfs.stores.base import DEFAULT_TIMEOUT
from flistfs.stores.url import for_readers, local_servers, parse_store_url

if TYPE_CHECKING:
    from pathlib import Path

    from flistfs.format.base import Format
    from flistfs.stores.base import Store

_IGNORED = "readers ignore the path of a URL, and read from the first database or the namespace default"


def read_router(file: Path) -> Router:
    """Read a router that the user named.

    Raises:
        UsageError: it cannot be read, or is not a router.
    """
    try:
        with file.open("rb") as opened:
            return parse_router(opened.read(MAX_SIZE + 1))
    except OSError as error:
        raise UsageError(f"the router {file} cannot be read: {error.strerror}") from None
    except FormatError as error:
        raise UsageError(f"{file} cannot be used: {error}") from None


def router_for_readers(file: Path | None, public_url: str | None) -> str | None:
    """Return the router.yaml that the user wants in a package; None if the user named no servers.

    Args:
        file: A router to copy.
        public_url: The only server for readers.

    Raises:
        UsageError: both are given, readers cannot use it, or it has a password, which packages never hold.
    """
    if public_url is not None:
        if file is not None:
            raise UsageError(
                "`public_url` and `router` exclude each other: a router names the servers itself"
            )
        return format_router(router_to(_public_url(public_url))).decode()
    if file is None:
        return None
    router = read_router(file)
    _check_complete(router, file)
    if has_passwords(router):
        raise UsageError(f"{file} contains passwords, which a package would give to others: remove them")
    only = only_server(router)
    for url in (rule.url for pool in router.pools for rule in pool.rules):
        is_named = url == only and namespace_of(url) is not None
        if for_readers(parse_store_url(url)) is None and not is_named:
            raise UsageError(f"{file} names {url}: {_IGNORED}; name servers without a path")
    return format_router(router).decode()


def check_readable(router: Router, format_: Format) -> None:
    """Check that an flist can name the servers of a router to the readers of its format.

    Raises:
        UsageError: it cannot name a namespace.
    """
    named = [] if format_.names_namespaces else [url for url in router.all_urls() if namespace_of(url)]
    if named:
        raise UsageError(
            f"{named[0]} cannot be named to readers of the format {format_.name}: {_IGNORED}; "
            "give the server without a path"
        )


def router_to_store(store: Store, format_: Format) -> Router | None:
    """Return the router to a store that the readers of a format can use; None if there is none."""
    if format_.names_namespaces and namespace_of(store.url) is not None:
        return router_to(store.url)
    return store.readers_router


def _check_complete(router: Router, file: Path) -> None:
    """Raise `UsageError` if the router has no server for some hashes."""
    from flistfs.format.opening import formats  # noqa: PLC0415  few commands need it
    from flistfs.stores.combined.routed import RoutedStore  # noqa: PLC0415  it imports this module

    any_codec = formats()[0].codec  # nothing is stored

    try:
        RoutedStore(router, str(file), any_codec, timeout=DEFAULT_TIMEOUT).close()
    except UsageError as error:
        raise UsageError(f"the router {file} cannot be used: {error}") from None


def check_public(text: str, argument: str) -> str:
    """Return the URL of a server that readers can use, as flists name it.

    Args:
        text: What the user named.
        argument: What it is called.

    Raises:
        UsageError: they cannot use it, or it has a password.
    """
    try:
        return _public_url(text)
    except UsageError as error:
        raise UsageError(f"`{argument}`: {error}") from None


def _public_url(text: str) -> str:
    url = parse_store_url(text)
    if url.scheme not in SCHEMES:
        raise UsageError(f"readers fetch from {', '.join(sorted(SCHEMES))} servers, not from {url.scheme}://")
    if url.password is not None:
        raise UsageError("the public URL has a password, which a package would give to others: omit it")
    readable = for_readers(url)
    if readable is None and namespace_of(str(url)) is None:
        raise UsageError(f"{url} cannot be the public URL: {_IGNORED}; give the server without a path")
    return str(readable or url)


def usable_router(router: Router) -> Router | None:
    """Return the part of a router that readers can use, without passwords; None if there is none."""
    return with_servers(without_passwords(router), lambda url: for_readers(parse_store_url(url)) is not None)


def notes_for_readers(store: Store, router: Router | None, *, is_chosen: bool) -> tuple[str, ...]:
    """Return notes about the servers that an flist in a store names to its readers.

    Args:
        store: The store of its blocks.
        router: The router in it.
        is_chosen: Whether the user chose that router.
    """
    notes: list[str] = []
    option = "`router`" if parse_store_url(store.url).scheme == "router" else "`public_url`"
    is_named = router is not None and store.url in router.all_urls()
    if not is_chosen and not is_named and store.unreadable is not None:
        brought = (
            f"; flistfs push copies the blocks to a server, {option} names one" if router is None else ""
        )
        notes.append(f"{store.unreadable}, so the flist does not name it{brought}")
    if router is not None:
        notes += notes_for_servers(router, None if is_chosen else f"use {option}")
    return tuple(notes)


def notes_for_servers(router: Router, advice: str | None = None) -> list[str]:
    """Return notes about servers that an flist names, with an advice, or else the one to name others."""
    urls = router.all_urls()
    notes = [
        f"0-fs ignores the namespace in {url}, so only readers that know of namespaces are told of it "
        "(rfs 1.x, zflist)"
        for url in urls
        if namespace_of(url) is not None
    ]
    if local := local_servers(urls):
        notes.append(f"readers elsewhere cannot reach {local[0]}; {advice or _other_servers(router)}")
    return notes


def _other_servers(router: Router) -> str:
    """Return how to name other servers than those chosen: one URL makes a router of a known form."""
    return "name another URL" if router == router_to(router.all_urls()[0]) else "name others in `router`"
