"""The meaning of the error replies of ARDB, 0-db, Redis and Valkey for a user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flistfs.errors import StoreError, StoreRefusedError, StoreUnavailableError
from flistfs.stores.url import BASE_PASSWORD_VARIABLE, FROM_PASSWORD_VARIABLE, PASSWORD_VARIABLE

# The environment variables of passwords, and the equivalent arguments.
_ARGUMENTS = {
    PASSWORD_VARIABLE: "password",
    BASE_PASSWORD_VARIABLE: "base_password",
    FROM_PASSWORD_VARIABLE: "source_password",
}

_MAX_TEXT: Final = 200  # characters of a server's own words in a message


class RedirectedError(StoreRefusedError):
    """The server is part of a cluster, and another one holds this block, permanently or for now."""


@dataclass(frozen=True, slots=True)
class _KnownError:
    """An error reply that contains one of `texts` (lower case), and its meaning."""

    texts: tuple[str, ...]
    error: type[StoreError]
    problem: str


# The first match counts. The codes are Redis' (src/server.c, createSharedObjects), the rest is what ARDB
# 0.10.0 and 0-db 2.0 answer.
_KNOWN_ERRORS: Final = (
    _KnownError(("loading",), StoreUnavailableError, "is still loading its data: try again when it is done"),
    _KnownError(
        ("max number of clients", "tryagain", "busy ", "masterdown", "clusterdown", "temporarily locked"),
        StoreUnavailableError,
        "is too busy or not ready: try again later",
    ),
    _KnownError(("noperm",), StoreRefusedError, "does not let this password use PING, EXISTS, GET or SET"),
    _KnownError(
        ("readonly", "read-only", "read only"),
        StoreRefusedError,
        "is read-only: use the server it copies from",
    ),
    _KnownError(
        ("oom ", "no space", "definitely full", "misconf"),
        StoreRefusedError,
        "is full or cannot save: give it more memory or disk space",
    ),
    _KnownError(
        ("only update authorized",),
        StoreRefusedError,
        "is a 0-db in sequential mode, which chooses its keys itself and cannot hold blocks: use one (or a "
        "namespace) in user mode",
    ),
    _KnownError(
        ("authentication disabled",),
        StoreRefusedError,
        "is a 0-db without an administrator's password: name a namespace: zdb://host:port/namespace",
    ),
)


_UNWANTED: Final = ("no password is set", "without any password configured")
_REFUSED: Final = (
    "noauth",
    "wrongpass",
    "invalid username-password",
    "error code:-1004",
    "invalid password",
    "access denied",
    "authentication",
)


def meaning_of(
    text: str, url: str, password: str | None, variable: str | None = PASSWORD_VARIABLE
) -> StoreError:
    """Return the error to raise for the text of an error reply.

    The text is not trusted: it is shortened, made printable, and stripped of the password (Redis repeats the
    arguments of an unknown command). `variable` is where the password may come from; None for a server that
    gets none.
    """
    quoted = presentable(text, password)
    if text.startswith(("MOVED ", "ASK ")):
        return RedirectedError(f"{url} is part of a Redis Cluster: use redis+cluster:// ({quoted})")
    lowered = text.lower()
    for meaning in _KNOWN_ERRORS:
        if any(part in lowered for part in meaning.texts):
            return meaning.error(f"{url} {meaning.problem} ({quoted})")
    if any(part in lowered for part in _UNWANTED):
        return StoreRefusedError(f"{url} needs no password: {_omission_advice(variable)} ({quoted})")
    if any(part in lowered for part in _REFUSED):
        return StoreRefusedError(f"{url} {_password_advice(password, variable)} ({quoted})")
    return StoreError(f"{url} answers with an error: {quoted}")


def _argument(variable: str) -> str:
    """Return the argument that corresponds to a password variable, as messages name it."""
    return f"`{_ARGUMENTS[variable]}`"


def _omission_advice(variable: str | None) -> str:
    return f"omit {_argument(variable)}, and remove it from the URL" if variable else "remove it from the URL"


def _password_advice(password: str | None, variable: str | None) -> str:
    if variable is None:
        return "needs a password, but servers that only the flist names get none; name the store yourself"
    if password is None:
        return f"needs a password; give {_argument(variable)}"
    named = _argument(variable)
    return f"says that the password is wrong; correct {named}, or the one in the URL or in router.yaml"


def presentable(text: str, password: str | None) -> str:
    """Return untrusted text shortened, printable, and without the password."""
    if password:
        text = text.replace(password, "***")
    return "".join(c if c.isprintable() else "?" for c in text)[:_MAX_TEXT]
