"""The metadata `backend`: the server that zflist and rfs 1.x read blocks from. They look at no router."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

from flistfs.format.metadata import BACKEND
from flistfs.format.router import Router, only_server, router_to

# What a server speaks that blocks are read from, and the port of each where its URL names none. They are all
# the same to readers, which send GET.
_PORTS: Final = {"zdb": 9900, "ardb": 16379, "redis": 6379}

_NO_NAMESPACE: Final = "default"

# The members of the value that are no secrets.
_SHOWN: Final = ("namespace", "host", "port", "socket")


def backend_of(router: Router | None) -> str | None:
    """Return the value for readers, without a password; None where no server has all blocks."""
    url = only_server(router)
    server = None if url is None else _server(url)
    if server is None or server.hostname is None:
        return None
    namespace = unquote(server.path.strip("/"), errors="surrogateescape") or _NO_NAMESPACE
    port = server.port or _PORTS[server.scheme]
    return json.dumps({"namespace": namespace, "host": server.hostname, "port": port})


def router_of(metadata: Mapping[str, bytes]) -> Router | None:
    """Return a router to the server that the metadata names, None if it names none that is valid."""
    try:
        backend = json.loads(metadata.get(BACKEND, b""))
        host, port = str(backend["host"]), int(backend["port"])
        namespace = str(backend.get("namespace") or _NO_NAMESPACE)
        name = quote(namespace, safe="", errors="surrogateescape")
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    shown = f"[{host}]" if ":" in host else host
    if not host or not 0 < port < 1 << 16 or not set(host).isdisjoint("/@?#% \t\r\n\0"):
        return None
    return router_to(f"zdb://{shown}:{port}" + ("" if namespace == _NO_NAMESPACE else f"/{name}"))


def without_secrets(metadata: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return metadata as it may be shown: the backend of a stranger may hold a password or a token."""
    shown = dict(metadata)
    if BACKEND in shown:
        try:
            backend = json.loads(shown[BACKEND])
            shown[BACKEND] = json.dumps({name: backend[name] for name in _SHOWN if name in backend}).encode()
        except (ValueError, TypeError, RecursionError):
            shown[BACKEND] = b""  # of what is not understood nothing is shown
    return shown


def _server(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in _PORTS else None
