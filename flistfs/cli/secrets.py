"""Passwords out of the command line, where every user of the machine can read them in a list of processes."""

from __future__ import annotations

import os
import sys

from flistfs.api.store_names import (
    BASE_PASSWORD_VARIABLE,
    FROM_PASSWORD_VARIABLE,
    PASSWORD_VARIABLE,
    parse_store_url,
)
from flistfs.errors import UsageError

# Where the password of an option's URL goes, if not to the store's variable. A public URL may have none, and
# the command says so.
_VARIABLES = {
    "--from": FROM_PASSWORD_VARIABLE,
    "--base-store": BASE_PASSWORD_VARIABLE,
    "--public-url": None,
}

# Options that name a store, be it by a URL or by a file.
_STORES = frozenset({"--store", "--to"})


def hide_passwords() -> None:
    """If an argument is a store URL with a password, run this command anew with it in the environment."""
    options = [_option(*pair) for pair in zip(["", *sys.orig_argv], sys.orig_argv, strict=False)]
    has_store = any(
        option in _STORES or ("://" in argument and option not in _VARIABLES)
        for option, argument in zip(options, sys.orig_argv, strict=True)
    )
    # The password of a store that is not used must not be sent to the one that is.
    if not has_store and (store := os.environ.get("FLISTFS_STORE")):
        os.environ["FLISTFS_STORE"] = _without_password("", store)
    shown = [
        _without_password(option, argument) for option, argument in zip(options, sys.orig_argv, strict=True)
    ]
    if shown != sys.orig_argv:
        os.execv(sys.executable, [sys.executable, *shown[1:]])  # noqa: S606  no shell is wanted


def _option(before: str, argument: str) -> str:
    """Return the option that an argument is, or that it belongs to."""
    return (argument if argument.startswith("--") else before).partition("=")[0]


def _without_password(option: str, argument: str) -> str:
    """Return the argument without its password, which goes to the environment."""
    name, equals, url = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    variable = _VARIABLES.get(option, PASSWORD_VARIABLE)
    if variable is None or "://" not in url or "@" not in url:
        return argument
    try:
        parsed = parse_store_url(url)
    except UsageError:
        return argument  # it will be refused in a moment, without being shown
    if parsed.password is None:
        return argument
    os.environ[variable] = parsed.password
    return f"{name}{equals}{parsed}"


def password(variable: str = PASSWORD_VARIABLE) -> str | None:
    """Return the store's password, if one was given."""
    return os.environ.get(variable) or None
