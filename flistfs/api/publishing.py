"""Using hubs: what lies there, and bringing something to one."""

# ruff: noqa: PLC0414  types that belong to these answers are named here

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import platformdirs

from flistfs.api.arguments import AnyPath, StoreName, chosen_store, typed_path
from flistfs.errors import OutputError, UsageError
from flistfs.hub.client import HubClient as HubClient
from flistfs.hub.client import Listed as Listed
from flistfs.hub.client import Told as Told
from flistfs.hub.publishing import Origin, Published
from flistfs.hub.publishing import publish as _publish
from flistfs.util.durable import write_text
from flistfs.util.progress import Progress, quiet

__all__ = [
    "HubClient",
    "Listed",
    "Published",
    "Told",
    "login",
    "login_with_password",
    "logout",
    "open_hub",
    "publish",
]

_NO_LOGINS: Final[Mapping[str, Any]] = {"default": None, "tokens": {}}


@contextmanager
def open_hub(
    url: str | None = None, token: str | None = None, *, acting_for: str | None = None
) -> Iterator[HubClient]:
    """Open the connection to a hub.

    Args:
        url: Its address. Default: the one of the last `login`.
        token: What it knows the user by. Default: what `login` kept for that address.
        acting_for: The repository to act for, if not the user's own.

    Raises:
        UsageError: no hub is named, or its URL is invalid.
    """
    address, kept = _chosen(url, token)
    with closing(HubClient(address, kept, acting_for=acting_for)) as client:
        yield client


def login(url: str, token: str) -> str:
    """Keep a token for a hub, in a file that only this user can read; return whom it knows the user as.

    Raises:
        HubClientError: the hub does not take it.
        OutputError: the file cannot be written.
    """
    with closing(HubClient(url, token)) as client:
        name = client.whoami()
        logins = _logins()
        tokens = {**logins["tokens"], client.url: token}
        _keep({"default": client.url, "tokens": tokens})
    return name


def login_with_password(url: str, user: str, password: str) -> str:
    """Have a hub make a token for a user, and keep that as `login` does; raises as that."""
    with closing(HubClient(url)) as client:
        token = client.new_token(user, password, f"login on {socket.gethostname()}")
    return login(url, token)


def logout(url: str | None = None, *, revoke: bool = False) -> str:
    """Forget the token of a hub, the last one by default; return the hub's address.

    With `revoke` the hub forgets it, too: it is worth nothing from then on.

    Raises:
        HubClientError: the hub cannot be asked, or makes no tokens; the token is still kept.
        UsageError: there is none.
        OutputError: the file cannot be written.
    """
    logins = _logins()
    address = logins["default"] if url is None else url.rstrip("/")
    if address not in logins["tokens"]:
        raise UsageError("there is no login to be forgotten")
    if revoke:
        with closing(HubClient(address, logins["tokens"][address])) as client:
            client.revoke_token()
    tokens = {known: token for known, token in logins["tokens"].items() if known != address}
    _keep({"default": next(iter(tokens), None), "tokens": tokens})
    return str(address)


def publish(
    source: AnyPath,
    *,
    name: str | None = None,
    url: str | None = None,
    token: str | None = None,
    acting_for: str | None = None,
    store: StoreName | None = None,
    password: str | None = None,
    fallback_store: StoreName | None = None,
    blocks: str | None = None,
    as_archive: bool = False,
    progress: Progress | None = None,
) -> Published:
    """Bring a sealed flist, a directory or an archive to a hub.

    Args:
        source: What is brought.
        name: What it is called there. Default: the name of the source.
        url: The hub's address. Default: the one of the last `login`.
        token: What it knows the user by. Default: what `login` kept for that address.
        acting_for: The repository that it goes to, if not the user's own.
        store: Where the blocks of an flist are. Default: where it says that they are.
        password: The password of that, if its URL has none.
        fallback_store: Where they are if it does not say. Default: the user's directory of blocks.
        blocks: The URL that the hub's blocks are written to. Default: what the hub tells.
        as_archive: Send an archive where an flist would do.
        progress: Called with a `Report` as it goes.

    Raises:
        HubClientError: the hub cannot be asked, or refuses.
        FormatError: the flist is damaged.
        SourceError: the source cannot be read.
        StoreError: the blocks of an flist cannot be had.
        UsageError: no hub is named.
    """
    address, kept = _chosen(url, token)
    path = typed_path(source)
    origin_url, secret = chosen_store(store, password)
    fallback, _ = chosen_store(fallback_store, None)
    called = name or os.path.basename(os.path.abspath(path))  # noqa: PTH100, PTH119  `.` has a name, too
    with closing(HubClient(address, kept, acting_for=acting_for)) as client:
        return _publish(
            client,
            path,
            _without_suffixes(called) if name is None else called,
            Origin(origin_url, secret, fallback),
            kept,
            progress or quiet,
            blocks=blocks,
            as_archive=as_archive,
        )


def _without_suffixes(name: str) -> str:
    for suffix in (".flist", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".tar"):
        name = name.removesuffix(suffix)
    return name


def _chosen(url: str | None, token: str | None) -> tuple[str, str | None]:
    """Return the address of a hub, and the token for it. A token that was named is not sent elsewhere."""
    logins = _logins()
    address = url or logins["default"]
    if address is None:
        raise UsageError("say which hub, with `hub`; flistfs hub login keeps one")
    return address, token or logins["tokens"].get(address.rstrip("/"))


def _place() -> Path:
    return platformdirs.user_config_path("flistfs") / "hubs.json"


def _logins() -> Mapping[str, Any]:
    try:
        found = json.loads(_place().read_text())
        return {"default": found["default"], "tokens": dict(found["tokens"])}
    except FileNotFoundError:
        return _NO_LOGINS
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{_place()} cannot be read; log in again after removing it") from None


def _keep(logins: Mapping[str, Any]) -> None:
    try:
        _place().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_text(_place(), json.dumps(logins), mode=0o600)
    except OSError as error:
        raise OutputError(f"{_place()} cannot be written: {error.strerror}") from error
