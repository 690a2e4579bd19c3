"""The names of repositories, flists and tags: parts of URLs, of headers, and of paths on the disk."""

from __future__ import annotations

import os
from typing import Final

from flistfs.hub.errors import HubError

SUFFIX: Final = ".flist"
"""How the names of flists end."""

_RFS_SUFFIX: Final = ".fl"
_PAGES: Final = frozenset(
    [
        "api",
        "callback_threebot",
        "callback_token",
        "docker-convert",
        "healthz",
        "listen",
        "login",
        "login-method",
        "logout",
        "me",
        "merge",
        "metrics",
        "readonly",
        "search",
        "static",
        "token",
        "upload",
        "upload-flist",
        "users",
        "v2",
    ]
)
"""What stands first in paths of the hub, where else a repository's name stands; some are to come."""

_MAX_BYTES: Final = 200  # a file name has 255, of which tags and suffixes take some


def checked(name: str, what: str) -> str:
    """Return a name that may be a part of a path.

    Raises:
        HubError: it leads elsewhere, is hidden, or would break a line of a header.
    """
    is_text = name.isprintable() and "\ufffd" not in name and not any("\ud800" <= c <= "\udfff" for c in name)
    if not name or name.startswith(".") or "/" in name or not is_text or len(os.fsencode(name)) > _MAX_BYTES:
        raise HubError(f"invalid name of {what}")
    return name


def repository_name(name: str) -> str:
    """Return a name that a repository may be given.

    Raises:
        HubError: it is invalid, or a page of the hub has it.
    """
    if name in _PAGES:
        raise HubError("invalid name of repository: a page has it")
    return checked(name, "repository")


def flist_name(name: str) -> str:
    """Return the name of an flist that clients name with its suffix or without it.

    Raises:
        HubError: it is invalid.
    """
    return checked(with_suffix(name), "flist")


def with_suffix(name: str) -> str:
    """Return a name or a URL of an flist with its suffix, which clients may leave out."""
    return name if name.endswith((SUFFIX, _RFS_SUFFIX)) else name + SUFFIX


def uploaded_name(name: str, suffixes: tuple[str, ...]) -> str:
    """Return the name of the flist that an archive becomes: `a.tar.gz` and `a.flist.tar.gz` make `a.flist`.

    Only the last part of a path counts.

    Raises:
        HubError: it is invalid.
    """
    base = name.replace("\\", "/").rpartition("/")[2]
    suffix = next((each for each in suffixes if base.lower().endswith(each)), "")
    return flist_name(base[: len(base) - len(suffix)])
