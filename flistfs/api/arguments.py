"""Paths and stores as the functions of `flistfs.api` take them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from flistfs.errors import UsageError
from flistfs.stores.url import default_store_url, named_store, parse_store_url, with_min_replicas

AnyPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""A path, as the functions of `os` take it."""

StoreName: TypeAlias = str | os.PathLike[str]
"""A store: its URL, or the path of a router.yaml."""


def typed_path(path: AnyPath) -> Path:
    """Return a path that is used at once, as it was written."""
    return Path(os.fsdecode(path))


def absolute_path(path: AnyPath) -> Path:
    """Make a path absolute, so that a change of the working directory makes no difference."""
    return Path(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100  absolute() would keep `..`


def flist_path(package: AnyPath) -> Path:
    """Return the path of an flist: of a copy, if it is named by a URL (blocks).

    Raises:
        HubClientError: it cannot be fetched.
        OutputError: the copy cannot be written.
        UsageError: the URL is invalid.
    """
    text = os.fsdecode(package)
    if not text.startswith(("http://", "https://")):
        return Path(text)
    from flistfs.hub.fetching import fetched  # noqa: PLC0415  few flists are named so

    return fetched(text)


def flist_paths(packages: AnyPath | Iterable[AnyPath]) -> list[Path]:
    """Return the paths of flists, as `flist_path` does; a single one may stand for itself."""
    single = isinstance(packages, str | bytes | os.PathLike)
    return list(map(flist_path, [packages] if single else packages))  # type: ignore[arg-type]


def typed_paths(paths: AnyPath | Iterable[AnyPath]) -> list[Path]:
    """Return paths as they were written; a single one may stand for itself."""
    return list(map(typed_path, [paths] if isinstance(paths, str | bytes | os.PathLike) else paths))


def output_path(out: AnyPath) -> Path:
    """Make an output's path absolute, through links of its directory: one inside a mount is seen as such."""
    path = typed_path(out)
    return Path(os.path.realpath(path.parent)) / path.name


def chosen_store(store: StoreName | None, password: str | None) -> tuple[str | None, str | None]:
    """Return a store's URL and password, taken apart; no URL for no store.

    Raises:
        UsageError: it is neither a valid URL nor a router.yaml.
    """
    if store is None:
        return None, password
    parsed = parse_store_url(named_store(os.fspath(store)), password)
    return str(parsed), parsed.password or password


def target_store(
    store: StoreName | None, password: str | None, min_replicas: int | None = None
) -> tuple[str, str | None]:
    """Return the URL and password of the store that blocks go to: by default the user's directory.

    Raises:
        UsageError: it is neither a valid URL nor a router.yaml, or has not several servers for the replicas.
    """
    url, secret = chosen_store(store, password)
    parsed = with_min_replicas(parse_store_url(url or default_store_url()), checked_replicas(min_replicas))
    return str(parsed), secret


def checked_replicas(min_replicas: int | None) -> int | None:
    """Check `min_replicas`.

    Raises:
        UsageError: it is out of range.
    """
    if min_replicas is not None and not 1 <= min_replicas <= 9999:
        raise UsageError(f"`min_replicas` is {min_replicas}; it must be from 1 to 9999")
    return min_replicas
