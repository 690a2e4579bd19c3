"""What the user says of where readers find the blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flistfs.errors import FormatError, UsageError
from flistfs.format.router import (
    MAX_SIZE,
    SCHEMES,
    Router,
    format_router,
    has_passwords,
    parse_router,
    router_to,
)
from flistfs.stores.url import parse_store_url

if TYPE_CHECKING:
    from pathlib import Path


def read_router(file: Path) -> Router:
    """Read a router that the user named.

    Raises:
        UsageError: it cannot be read, or is no router.
    """
    try:
        with file.open("rb") as opened:
            return parse_router(opened.read(MAX_SIZE + 1))
    except OSError as error:
        raise UsageError(f"the router {file} cannot be read: {error.strerror}") from None
    except FormatError as error:
        raise UsageError(f"{file} cannot be used: {error}") from None


def router_for_readers(file: Path | None, public_url: str | None) -> str | None:
    """Make the text of the router.yaml that the user wants in a package; None if the user did not say.

    Args:
        file: A router to be taken over.
        public_url: The one server that readers are to ask.

    Raises:
        UsageError: both are given, readers cannot use it, or it has a password, which no package may hold.
    """
    if public_url is not None:
        if file is not None:
            raise UsageError(
                "--public-url and --router exclude each other: a router names the servers itself"
            )
        return format_router(router_to(_public_url(public_url))).decode()
    if file is None:
        return None
    router = read_router(file)
    if has_passwords(router):
        raise UsageError(f"{file} has passwords in it, and a package is given to others: take them out")
    return format_router(router).decode()


def _public_url(text: str) -> str:
    url = parse_store_url(text)
    if url.scheme not in SCHEMES:
        raise UsageError(f"readers fetch from {', '.join(sorted(SCHEMES))} servers, not from {url.scheme}://")
    if url.password is not None:
        raise UsageError("the public URL has a password, and a package is given to others: leave it out")
    return str(url)
