"""Flists by their URLs: fetched once, and kept by their MD5 in the user's cache."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote

import httpx2

from flistfs.errors import HubRefusedError, HubUnavailableError, OutputError, UsageError
from flistfs.hub.checksums import md5_of
from flistfs.hub.copies import copies
from flistfs.hub.errors import HubError
from flistfs.hub.names import checked
from flistfs.util.output_file import OutputFile

_PART: Final = 1 << 18
_TIMEOUT: Final = 60.0  # seconds without a byte
_DIGITS: Final = 32
_MAX_DIGEST: Final = 256  # bytes of an answer that is an MD5


def fetched(url: str) -> Path:
    """Return a copy of the flist at a URL: one that was fetched before, if its MD5 is still the one told.

    Raises:
        HubUnavailableError: it cannot be fetched now.
        HubRefusedError: it is not there, or has another MD5 than is told beside it.
        OutputError: the copy cannot be written.
        UsageError: the URL is invalid.
    """
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if not parsed.host or parsed.userinfo:
        raise UsageError(
            "the URL of an flist looks like https://hub.example/user/name.flist, without a password"
        )
    try:
        name = checked(unquote(parsed.path).rpartition("/")[2], "flist")
    except HubError as error:
        raise UsageError(f"the URL of the flist has no name at its end: {error}") from None
    with closing(httpx2.Client(timeout=_TIMEOUT, follow_redirects=True)) as client:
        told = _told(client, url)
        if told is not None and _is_kept(copies() / told / name, told):
            return copies() / told / name
        return _fetch(client, url, name, told)


def _told(client: httpx2.Client, url: str) -> str | None:
    """Return the MD5 that is told beside an flist; None if none is."""
    try:
        with client.stream("GET", f"{url}.md5") as answer:
            if answer.status_code != 200:
                return None
            text = b"".join(answer.iter_bytes(_MAX_DIGEST))[:_MAX_DIGEST].decode(errors="replace").strip()
    except httpx2.HTTPError as error:
        raise _unavailable(url, error) from None
    is_md5 = len(text) == _DIGITS and all(digit in "0123456789abcdef" for digit in text)
    return text if is_md5 else None


def _fetch(client: httpx2.Client, url: str, name: str, told: str | None) -> Path:
    """Fetch an flist into the cache."""
    part = copies() / f"{name}.{os.getpid()}.part"
    digest = hashlib.md5(usedforsecurity=False)

    def write(file: BinaryIO) -> None:
        with client.stream("GET", url) as answer:
            if answer.status_code != 200:
                raise HubRefusedError(f"{url} cannot be fetched ({answer.status_code})")
            for data in answer.iter_bytes(_PART):
                digest.update(data)
                file.write(data)

    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with OutputFile(part, force=True) as output:
            output.write(write)
            md5 = digest.hexdigest()
            if told is not None and md5 != told:
                raise HubRefusedError(f"{url} has another MD5 than {url}.md5 tells; try again")
            output.publish()
        kept = copies() / md5 / name
        kept.parent.mkdir(exist_ok=True)
        part.replace(kept)
    except httpx2.HTTPError as error:
        raise _unavailable(url, error) from None
    except OSError as error:
        raise OutputError(f"{copies()} cannot be written: {error.strerror}") from error
    return kept


def _is_kept(path: Path, md5: str) -> bool:
    try:
        return md5_of(path) == md5
    except OSError:
        return False


def _unavailable(url: str, error: httpx2.HTTPError) -> HubUnavailableError:
    return HubUnavailableError(f"{url} cannot be fetched: {str(error) or type(error).__name__}")
