"""Hubs: serving one, and who may use it. What it needs is the extra `hub` of the package."""

# ruff: noqa: PLC0414  types that belong to these answers are named here

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal
from urllib.parse import urlsplit

import platformdirs

from flistfs.api.arguments import AnyPath, StoreName, absolute_path, target_store
from flistfs.api.format_names import FORMATS, FormatName
from flistfs.api.requests import checked_format
from flistfs.errors import UsageError
from flistfs.stores.readers import check_public
from flistfs.stores.url import StoreUrl
from flistfs.util.progress import Progress, quiet

if TYPE_CHECKING:
    from flistfs.hub.accounts import Accounts as Accounts
    from flistfs.hub.accounts import Token as Token
    from flistfs.hub.accounts import User as User
    from flistfs.hub.checking import Checked as Checked
    from flistfs.hub.serving import Addresses as Addresses

ScopeName = Literal["read", "write", "admin"]
"""What a token is good for: reading, changing repositories, running the hub."""

SCOPES: Final[tuple[ScopeName, ...]] = ("read", "write", "admin")

_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")


def serve_hub(
    data: AnyPath | None = None,
    *,
    listen: str = "127.0.0.1:8080",
    blocks: str | None = None,
    store: StoreName | None = None,
    password: str | None = None,
    public_url: str | None = None,
    public_store: str | None = None,
    format: FormatName = "sqlite",  # noqa: A002  as the option is called
    is_open: bool = False,
    certificate: AnyPath | None = None,
    key: AnyPath | None = None,
    max_upload: int = 1 << 40,
    max_entries: int = 10_000_000,
    max_jobs: int = 2,
    timeout: float = 30.0,
    max_rate: int = 20_000,
    proxies: Sequence[str] = (),
    announce: Callable[[Addresses], object] = lambda _: None,
) -> None:
    """Serve a hub, until this process gets SIGINT or SIGTERM.

    Args:
        data: Its directory. Default: one in the user's data directory.
        listen: HOST:PORT; port 0 is any that is free.
        blocks: HOST:PORT at which its blocks are served, as a 0-db serves them.
        store: Where its blocks go. Default: its own directory.
        password: The password of that, if its URL has none.
        public_url: Its own address, such as https://hub.example, where a proxy stands before it.
        public_store: Where flists say that their blocks are. Default: they say nothing.
        format: The format that it makes flists in.
        is_open: Let everybody on this machine do everything, for trying it out.
        certificate: A certificate for TLS; goes with `key`.
        key: Its key.
        max_upload: Bytes of the largest upload, as it arrives and as it is unpacked.
        max_entries: How many entries an archive may have.
        max_jobs: How many uploads are packed at the same time.
        timeout: Seconds that an upload waits while the store takes nothing.
        max_rate: How many blocks one address may ask for in a second.
        proxies: Addresses or networks of proxies: what they say of who asks is believed.
        announce: Called with the addresses once it can be reached.

    Raises:
        BusyError: another process serves it.
        OutputError: its directory cannot be written, or an address cannot be listened on.
        StoreError: the store of its blocks cannot be used.
        UsageError: an argument is invalid, or the extra is not installed.
    """
    if is_open and not all(map(_is_loopback, filter(None, (listen, blocks)))):
        raise UsageError("a hub that is `open` is for this machine alone: let it listen on 127.0.0.1")
    if (certificate is None) != (key is None):
        raise UsageError("`tls_cert` and `tls_key` belong together")
    for address in filter(None, (listen, blocks)):
        _checked_address(address)
    named = None if public_store is None else check_public(public_store, "public_store")
    with _extra():
        from flistfs.hub.hub import Hub, Settings  # noqa: PLC0415  few need it
        from flistfs.hub.serving import Listening, serve  # noqa: PLC0415
    place = _place(data)
    url, secret = _blocks_in(place, store, password)
    settings = Settings(
        place,
        url,
        checked_format(format) or FORMATS[0],
        public_url=None if public_url is None else _checked_url(public_url),
        public_store=named,
        is_open=is_open,
        max_upload=max_upload,
        max_entries=max_entries,
        max_jobs=max_jobs,
        timeout=timeout,
        max_rate=max_rate,
        proxies=tuple(map(_network, proxies)),
    )
    files = None if certificate is None or key is None else (os.fspath(certificate), os.fspath(key))
    with closing(Hub(settings, secret)) as hub:
        serve(hub, Listening(listen, blocks, files and (str(files[0]), str(files[1]))), announce)


@contextmanager
def accounts(data: AnyPath | None = None) -> Iterator[Accounts]:
    """Open the accounts of a hub, whether it is served or not.

    Raises:
        OutputError: its directory cannot be written.
        UsageError: the extra is not installed.
    """
    with _extra():
        from flistfs.hub.accounts import Accounts  # noqa: PLC0415  few need it
        from flistfs.hub.hub import accounts_in, prepare  # noqa: PLC0415
    place = _place(data)
    prepare(place)
    with closing(Accounts(accounts_in(place))) as opened:
        yield opened


def add_member(accounts: Accounts, repository: str, user: str, *, is_owner: bool = False) -> None:
    """Let a user act for a repository, and as an owner say who else does.

    Raises:
        UsageError: there is no such user.
    """
    from flistfs.hub.accounts import Role  # noqa: PLC0415  few need it

    accounts.add_member(repository, user, Role.OWNER if is_owner else Role.MEMBER)


def check_hub(
    data: AnyPath | None = None,
    *,
    store: StoreName | None = None,
    password: str | None = None,
    blocks: bool = True,
    repair: bool = False,
    progress: Progress | None = None,
) -> Checked:
    """Look at everything on a hub that is not served: flists, links, and whether it has all blocks.

    Args:
        data: Its directory. Default: one in the user's data directory.
        store: Where its blocks are. Default: its own directory.
        password: The password of that, if its URL has none.
        blocks: Whether the store is asked for the blocks of all flists.
        repair: Make the index of checksums anew.
        progress: Called with a `Report` as it goes on.

    Raises:
        BusyError: it is served.
        OutputError: its directory cannot be written.
        StoreError: the store cannot be asked.
        UsageError: the extra is not installed.
    """
    with _extra():
        from flistfs.hub.checking import check  # noqa: PLC0415  few need it
        from flistfs.hub.hub import Hub, Settings  # noqa: PLC0415
    place = _place(data)
    url, secret = _blocks_in(place, store, password)
    with closing(Hub(Settings(place, url, FORMATS[0]), secret)) as hub:
        return check(hub, blocks=blocks, repair=repair, progress=progress or quiet)


def new_token(
    user: str,
    *,
    label: str = "",
    scope: ScopeName = "write",
    expires: str | None = None,
    data: AnyPath | None = None,
) -> str:
    """Make a token of a user, and return its text, which is kept nowhere.

    Args:
        user: Whose it is.
        label: What it is for.
        scope: What it is good for.
        expires: When it ends, as in `90d` or `12h`. Default: never.
        data: The directory of the hub.

    Raises:
        UsageError: there is no such user, or an argument is invalid.
    """
    with accounts(data) as opened:
        from flistfs.hub.accounts import Scope, lifetime_of  # noqa: PLC0415

        lifetime = None if expires is None else lifetime_of(expires)
        return opened.new_token(user, label, Scope(scope), lifetime)


def _place(data: AnyPath | None) -> Path:
    return platformdirs.user_data_path("flistfs") / "hub" if data is None else absolute_path(data)


def _blocks_in(place: Path, store: StoreName | None, password: str | None) -> tuple[str, str | None]:
    """Return the URL and password of a hub's store of blocks; its own directory has them by default."""
    own = str(StoreUrl("dir", path=place / "blocks"))
    return target_store(own if store is None else store, password, None)


def _checked_address(address: str) -> tuple[str, int]:
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[2]) > 65535:
        raise UsageError(f"{address!r} is no address to listen on; it looks like 127.0.0.1:8080")
    return match[1].strip("[]"), int(match[2])


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise UsageError(f"`proxy` is {text!r}; write an address or a network, such as 10.0.0.0/24") from None


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_address = (
            parts.scheme in {"http", "https"} and parts.hostname and not (parts.username or parts.query)
        )
    except ValueError:
        is_address = False
    if not is_address:
        raise UsageError("`public_url` of a hub looks like https://hub.example")
    return url.rstrip("/")


def _is_loopback(address: str) -> bool:
    host, _ = _checked_address(address)
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _extra() -> Iterator[None]:
    """Say what is missing where the extra is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a hub needs more than flistfs itself ({error.name}): pip install 'flistfs[hub]'"
        ) from None
