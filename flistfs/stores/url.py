"""Store URLs: how users name the place of blocks.

| URL | store |
| --- | --- |
| `ardb://[:password@]host[:port][/name]` | ARDB, or any server that speaks the Redis protocol |
| `redis://[:password@]host[:port][/number]` | Redis, Valkey |
| `rediss://[:password@]host[:port][/number]` | the same over TLS, with the system's certificates |
| `zdb://[:password@]host[:port][/namespace]` | 0-db |
| `redis+cluster://[:password@]host[:port]` | a Redis Cluster, named by any of its servers |
| `dir:///absolute/path` | a directory, one file a block |
| `router:///absolute/router.yaml[?min-replicas=N]` | the servers of a router |

`ardb://password@host`, as routers spell it, works for all servers. Reserved characters are percent-encoded
in passwords, names and paths.

Text of a URL is never repeated in an error: where the URL is wrong, any part of it may be the password.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote

import platformdirs

from flistfs.errors import UsageError

# ARDB's and Redis' own defaults; 9900 is 0-db's.
_DEFAULT_PORTS: Final = {"ardb": 16379, "redis": 6379, "rediss": 6379, "redis+cluster": 6379, "zdb": 9900}
PASSWORD_VARIABLE: Final = "FLISTFS_STORE_PASSWORD"  # noqa: S105  a variable's name
"""The environment variable with the password of the store that blocks go to."""

BASE_PASSWORD_VARIABLE: Final = "FLISTFS_BASE_PASSWORD"  # noqa: S105  a variable's name
"""The variable with the password of the store that holds a base's blocks; a daemon inherits it."""

FROM_PASSWORD_VARIABLE: Final = "FLISTFS_FROM_PASSWORD"  # noqa: S105  a variable's name
"""The variable with the password of a store that blocks are copied from."""

_FILES: Final = frozenset({"dir", "router"})
# The schemes that readers know, and the database or namespace they read from.
_FIRST_NAMES: Final = {"ardb": "0", "redis": "0", "zdb": "default"}
_NUMBERED: Final = frozenset({"redis", "rediss"})  # SELECT takes a number; elsewhere it takes a name
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_MIN_REPLICAS: Final = re.compile(r"min-replicas=([1-9][0-9]{0,3})")


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """A store URL taken apart. `str()` of it has no password."""

    scheme: str
    host: str = ""
    port: int = 0
    password: str | None = field(default=None, repr=False)
    name: str | None = None
    """The argument of SELECT: a database number, or a namespace."""
    path: Path | None = None
    """The directory of a `dir` store, the file of a `router`."""
    min_replicas: int | None = None
    """How many servers must hold a block of a `router` store; None: all that its hash belongs to."""

    def __str__(self) -> str:
        if self.path is not None:
            query = "" if self.min_replicas is None else f"?min-replicas={self.min_replicas}"
            return f"{self.scheme}://{quote(self.path.as_posix(), errors='surrogateescape')}{query}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        name = "" if self.name is None else "/" + quote(self.name, safe="", errors="surrogateescape")
        return f"{self.scheme}://{host}:{self.port}{name}"

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme == "rediss"


def parse_store_url(url: str, password: str | None = None) -> StoreUrl:
    """Take a store URL apart.

    `password` is used if the URL has none. Raises `UsageError`, which never repeats any of the URL.
    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in {*_DEFAULT_PORTS, *_FILES}:
        raise UsageError(
            "a store URL looks like ardb://host:16379, redis://host:6379 or dir:///absolute/path"
        )
    if not url.isprintable() or " " in url:
        # isprintable() is false for lone surrogates as well: a command line that is not UTF-8.
        raise UsageError(f"the {scheme}:// URL contains characters that must be percent-encoded")
    min_replicas = None
    if scheme == "router":
        rest, mark, query = rest.partition("?")
        min_replicas = _min_replicas(query) if mark else None
    if "?" in rest or "#" in rest:
        raise UsageError(
            f"a URL of {scheme}:// takes neither a query nor a fragment: write ? as %3F and # as %23"
        )
    if scheme in _FILES:
        return StoreUrl(scheme, path=_path(scheme, rest), min_replicas=min_replicas)
    authority, _, path = rest.partition("/")
    userinfo, _, address = authority.rpartition("@")
    host, port = _address(scheme, address)
    secret = _password(scheme, userinfo) or password or None
    if secret is not None:
        _check_encodable(scheme, secret)
    return StoreUrl(scheme, host, port, secret, _name(scheme, path))


def named_store(text: str) -> str:
    """Return the URL of what a user calls a store: a URL, or the path of a router.yaml.

    Raises:
        UsageError: it is neither; the message does not repeat the text.
    """
    if "://" in text:
        return text
    if not os.path.isfile(text):  # noqa: PTH113  absolute() below would keep `..`, as would all of pathlib
        raise UsageError(
            "the store is neither the path of a router.yaml nor a URL; those look like ardb://host:16379, "
            "redis://host:6379 or dir:///absolute/path"
        )
    return str(StoreUrl("router", path=Path(os.path.abspath(text))))  # noqa: PTH100


def with_min_replicas(url: StoreUrl, number: int | None) -> StoreUrl:
    """Return the URL of a router with another minimum of replicas; None leaves it as it is.

    Raises:
        UsageError: it is not the path of a router.
    """
    if number is None:
        return url
    if url.scheme != "router":
        raise UsageError("`min_replicas` needs a store of several servers, that is, a router.yaml")
    return replace(url, min_replicas=number)


def for_readers(url: StoreUrl) -> StoreUrl | None:
    """Return the URL by which readers can use a server; None if they cannot.

    They support neither TLS nor clusters, and ignore the path of a URL: they read from the first database
    or the namespace `default`, and hang or crash on a block that is not there.
    """
    first = _FIRST_NAMES.get(url.scheme)
    if first is None or url.name not in {None, first}:
        return None
    return replace(url, password=None, name=None)


def why_unreadable(url: StoreUrl) -> str | None:
    """Return why readers cannot use a server; None if they can."""
    if for_readers(url) is not None:
        return None
    if url.tls:
        return f"readers do not support TLS, and cannot use {url}"
    return f"readers ignore the path in {url}"


def default_store_url() -> str:
    """Return the URL of the default store: a directory in the user's data directory."""
    return str(StoreUrl("dir", path=Path(platformdirs.user_data_dir("flistfs")) / "blocks"))


def without_password(url: str) -> str:
    """Return a URL in a form that may be shown. Never raises: of a malformed URL nothing is shown at all."""
    try:
        return str(parse_store_url(url))
    except UsageError:
        return "(malformed store URL)"


def local_servers(urls: Iterable[str]) -> list[str]:
    """Return those of the readers' URLs that mean the local machine wherever they are read."""
    return [url for url in urls if _is_local(url)]


def _is_local(url: str) -> bool:
    try:
        host = parse_store_url(url).host
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except (UsageError, ValueError):
        return False


def _path(scheme: str, rest: str) -> Path:
    path = unquote(rest, errors="surrogateescape")
    if not rest.startswith("/"):
        raise UsageError(
            f"a URL of {scheme}:// needs an absolute path: {scheme}:///absolute/path, with three slashes"
        )
    if "\0" in path:
        raise UsageError(f"the path of a URL of {scheme}:// contains a NUL byte")
    # pathlib keeps two leading slashes, which mean the same as one.
    return Path("/" + path.lstrip("/"))


def _min_replicas(query: str) -> int:
    match = _MIN_REPLICAS.fullmatch(query)
    if match is None:
        raise UsageError("the query of a router:// URL must be a number of servers: ?min-replicas=2")
    return int(match[1])


def _password(scheme: str, userinfo: str) -> str | None:
    user, colon, secret = userinfo.partition(":")
    if not colon:
        user, secret = "", user
    if user:
        raise UsageError(
            f"a URL of {scheme}:// takes a password but not a user name: write {scheme}://:password@host "
            "(a : inside the password is written %3A)"
        )
    return unquote(secret, errors="surrogateescape") or None


def _check_encodable(scheme: str, secret: str) -> None:
    try:
        secret.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UsageError(f"the password for {scheme}:// is not text") from None


def _address(scheme: str, address: str) -> tuple[str, int]:
    if address.startswith("["):
        host, bracket, after = address[1:].partition("]")
        if not bracket or not _is_ipv6(host) or (after and not after.startswith(":")):
            raise UsageError(f"the {scheme}:// URL has a malformed IPv6 address")
        colon, port = after[:1], after[1:]
    else:
        host, colon, port = address.partition(":")
        host = _host_name(scheme, host)
        if ":" in port:
            raise UsageError(f"the {scheme}:// URL has too many colons: an IPv6 address goes into [brackets]")
    return host, _port(scheme, port) if colon else _DEFAULT_PORTS[scheme]


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _host_name(scheme: str, host: str) -> str:
    if not host:
        raise UsageError(f"the {scheme}:// URL names no host: write {scheme}://host")
    try:
        ascii_host = host.encode("idna").decode("ascii")
    except UnicodeError:
        ascii_host = ""
    if len(ascii_host) > 253 or not all(map(_LABEL.fullmatch, ascii_host.removesuffix(".").split("."))):
        raise UsageError(f"the {scheme}:// URL has a malformed host name")
    return ascii_host


def _port(scheme: str, text: str) -> int:
    # The text is not repeated: if the user forgot the @host, it is the password.
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 0 < int(text) < 65536):
        raise UsageError(f"the {scheme}:// URL has an invalid port: it must be a number from 1 to 65535")
    return int(text)


def _name(scheme: str, path: str) -> str | None:
    if not path:
        return None
    if scheme == "redis+cluster":
        raise UsageError("a redis+cluster:// URL takes no path: a cluster has no databases")
    if scheme in _NUMBERED:
        if not (path.isascii() and path.isdecimal() and len(path) <= 9):
            raise UsageError(f"the path of a {scheme}:// URL must be a database number, as in /2")
        return path
    if "/" in path:
        raise UsageError(f"the path of a URL of {scheme}:// must be one name, without slashes")
    return unquote(path, errors="surrogateescape")


def shown_store(url: str) -> str:
    """Return the name that the user has for a store: a router is the path of its file."""
    try:
        parsed = parse_store_url(url)
    except UsageError:  # a description of the servers in an flist's own router
        return url
    return str(parsed.path) if parsed.scheme == "router" else url
