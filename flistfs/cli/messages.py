"""Messages of the engine, which name arguments in backticks, in the words of the command line."""

from __future__ import annotations

import re

# What arguments of `flistfs.api` are called on the command line, where the name is another one.
_OPTIONS = {
    "base": "--from",
    "base_password": "FLISTFS_BASE_PASSWORD",
    "blocks": "--no-store",
    "check": "--no-check",
    "environ": "--env",
    "epoch": "SOURCE_DATE_EPOCH",
    "mountpoint": "--mount",
    "no_place": "--json",  # which prints what that attribute of the error has
    "out": "-o",
    "password": "FLISTFS_STORE_PASSWORD",
    "source": "--from",
    "source_password": "FLISTFS_FROM_PASSWORD",
    "xattrs": "--xattr",
}

# Those that have the same name.
_ARGUMENTS = frozenset(
    {
        "accept_faults",
        "base_store",
        "check_content",
        "deep",
        "entrypoint",
        "exclude",
        "expires",
        "force",
        "format",
        "hub",
        "incomplete",
        "keep_going",
        "min_replicas",
        "open",
        "owner",
        "platform",
        "prefer",
        "proxy",
        "public_store",
        "public_url",
        "repair",
        "replace_links",
        "rootfs",
        "router",
        "seal_to",
        "startup",
        "state",
        "store",
        "timeout",
        "tls_cert",
        "tls_key",
        "to",
        "update",
    }
)


def spoken(message: str) -> str:
    """Return a message with the options, or variables, in place of the arguments that it names."""
    return re.sub(r"`(\w+)`", _option, message)


def _option(match: re.Match[str]) -> str:
    name = match[1]
    return _OPTIONS.get(name) or (f"--{name.replace('_', '-')}" if name in _ARGUMENTS else match[0])
