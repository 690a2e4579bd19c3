"""Passwords out of the command line, where every user of the machine can read them in a list of processes."""

from __future__ import annotations

import os
import sys

from flistfs.errors import UsageError
from flistfs.launch import PASSWORD_VARIABLE
from flistfs.stores.url import parse_store_url


def hide_passwords() -> None:
    """If an argument is a store URL with a password, run this command anew with it in the environment."""
    has_url = any("://" in argument for argument in sys.orig_argv)
    # The password of a store that is not used must not be sent to the one that is.
    if not has_url and (store := os.environ.get("FLISTFS_STORE")):
        os.environ["FLISTFS_STORE"] = _without_password(store)
    shown = [_without_password(argument) for argument in sys.orig_argv]
    if shown != sys.orig_argv:
        os.execv(sys.executable, [sys.executable, *shown[1:]])  # noqa: S606  no shell is wanted


def _without_password(argument: str) -> str:
    """Return the argument without its password, which goes to the environment."""
    option, equals, url = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    if "://" not in url or "@" not in url:
        return argument
    try:
        parsed = parse_store_url(url)
    except UsageError:
        return argument  # it will be refused in a moment, without being shown
    if parsed.password is None:
        return argument
    os.environ[PASSWORD_VARIABLE] = parsed.password
    return f"{option}{equals}{parsed}"


def password() -> str | None:
    """Return the store's password, if one was given."""
    return os.environ.get(PASSWORD_VARIABLE) or None
