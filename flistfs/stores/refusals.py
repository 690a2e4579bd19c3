"""What the error replies of ARDB, 0-db, Redis and Valkey mean for a user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flistfs.errors import StoreError, StoreRefusedError, StoreUnavailableError

_MAX_TEXT: Final = 200  # characters of a server's own words in a message


class RedirectedError(StoreRefusedError):
    """The server is one of a cluster, and says that another one has this block, for good or for now."""


@dataclass(frozen=True, slots=True)
class _Meaning:
    """An error reply that contains one of `texts` (lower case), and what to make of it."""

    texts: tuple[str, ...]
    error: type[StoreError]
    problem: str


# The first that fits counts. Codes are Redis' (src/server.c, createSharedObjects), the rest is what ARDB
# 0.10.0 and 0-db 2.0 answer.
_MEANINGS: Final = (
    _Meaning(("loading",), StoreUnavailableError, "is still loading its data: try again when it is done"),
    _Meaning(
        ("max number of clients", "tryagain", "busy ", "masterdown", "clusterdown", "temporarily locked"),
        StoreUnavailableError,
        "is too busy or not ready: try again later",
    ),
    _Meaning(
        ("no password is set", "without any password configured"),
        StoreRefusedError,
        "wants no password: leave it out",
    ),
    _Meaning(
        (
            "noauth",
            "wrongpass",
            "invalid username-password",
            "error code:-1004",
            "invalid password",
            "access denied",
            "authentication",
        ),
        StoreRefusedError,
        "wants another password: check the one in the store's URL",
    ),
    _Meaning(("noperm",), StoreRefusedError, "forbids this password to use PING, EXISTS, GET or SET"),
    _Meaning(
        ("readonly", "read-only", "read only"),
        StoreRefusedError,
        "is read-only: use the server it copies from",
    ),
    _Meaning(
        ("oom ", "no space", "definitely full", "misconf"),
        StoreRefusedError,
        "is full or cannot save: give it more memory or disk space",
    ),
)


def meaning_of(text: str, url: str, password: str | None) -> StoreError:
    """Turn the text of an error reply into the error to raise.

    The text comes from a stranger: it is shortened, made printable, and rid of the password (Redis repeats
    the arguments of a command that it does not know).
    """
    quoted = presentable(text, password)
    if text.startswith(("MOVED ", "ASK ")):
        return RedirectedError(f"{url} is part of a Redis Cluster: use redis+cluster:// ({quoted})")
    lowered = text.lower()
    for meaning in _MEANINGS:
        if any(part in lowered for part in meaning.texts):
            return meaning.error(f"{url} {meaning.problem} ({quoted})")
    return StoreError(f"{url} answers with an error: {quoted}")


def presentable(text: str, password: str | None) -> str:
    """Shorten a stranger's text, make it printable, and take the password out of it."""
    if password:
        text = text.replace(password, "***")
    return "".join(c if c.isprintable() else "?" for c in text)[:_MAX_TEXT]
