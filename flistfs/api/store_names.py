"""Stores as people name them, and where their passwords come from: for programs that take both from users."""

from flistfs.stores.base import STORE_TIMEOUT
from flistfs.stores.url import (
    BASE_PASSWORD_VARIABLE,
    FROM_PASSWORD_VARIABLE,
    PASSWORD_VARIABLE,
    named_store,
    parse_store_url,
    shown_store,
)

__all__ = [
    "BASE_PASSWORD_VARIABLE",
    "FROM_PASSWORD_VARIABLE",
    "PASSWORD_VARIABLE",
    "STORE_TIMEOUT",
    "named_store",
    "parse_store_url",
    "shown_store",
]
