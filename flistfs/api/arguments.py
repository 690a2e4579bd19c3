"""What the functions of `flistfs.api` take, and how it is checked."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from flistfs.authoring.request import AddRequest, BaseRequest, SealOptions, SealRequest
from flistfs.errors import SourceError, UsageError
from flistfs.sources.excludes import excluding
from flistfs.stores.readers import router_for_readers
from flistfs.stores.url import default_store_url, named_store, parse_store_url, with_min_replicas

AnyPath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""A path, as the functions of `os` take it."""

StoreName: TypeAlias = str | os.PathLike[str]
"""A store: its URL, or the path of a router.yaml."""

# Ids are unsigned 32-bit numbers, of which the last means none.
_MAX_ID = 2**32 - 2


def typed_path(path: AnyPath) -> Path:
    """Return a path that is used at once, as it was written."""
    return Path(os.fsdecode(path))


def absolute_path(path: AnyPath) -> Path:
    """Make a path absolute, so that a change of the working directory makes no difference."""
    return Path(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100  absolute() would keep `..`


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


def base_request(
    base: AnyPath | Iterable[AnyPath],
    store: StoreName | None,
    password: str | None,
    *,
    replace_links: bool,
    fallback_store: StoreName | None = None,
) -> tuple[BaseRequest | None, str | None]:
    """Return what a new session starts from, and the password of the store that its blocks are in.

    Raises:
        UsageError: a store is invalid, or something was said of a base and there is none.
    """
    named, secret = chosen_store(store, password)
    packages = tuple(str(absolute_path(path)) for path in typed_paths(base))
    if packages:
        fallback, _ = target_store(fallback_store, None)
        return BaseRequest(packages, named, fallback, replace_links), secret
    if replace_links:
        raise UsageError("`replace_links` belongs to `base`: it says how several of those unite")
    if named is not None:
        raise UsageError("`base_store` belongs to `base`: it says where the blocks of that flist are")
    return None, secret


def checked_patterns(patterns: str | Iterable[str]) -> tuple[str, ...]:
    """Gather patterns; a text is one.

    Raises:
        UsageError: one is invalid.
    """
    gathered = (patterns,) if isinstance(patterns, str) else tuple(patterns)
    excluding(gathered)
    return gathered


def checked_owner(owner: tuple[int, int] | None) -> tuple[int, int] | None:
    """Check the owner that everything is to have.

    Raises:
        UsageError: its numbers are out of range.
    """
    if owner is not None and not all(0 <= number <= _MAX_ID for number in owner):
        raise UsageError(f"`owner` is {owner}; it must be two numbers from 0 to {_MAX_ID}")
    return owner


def checked_epoch(epoch: int | None) -> int | None:
    """Check the latest time that an flist may have.

    Raises:
        UsageError: it is negative.
    """
    if epoch is not None and epoch < 0:
        raise UsageError(f"`epoch` is {epoch}; it must be whole seconds since 1970")
    return epoch


def router_text(router: AnyPath | None, public_url: str | None) -> str | None:
    """Return the text of the router.yaml that an flist is to hold; None if neither argument says so.

    Raises:
        UsageError: both do, or readers cannot use it.
    """
    return router_for_readers(None if router is None else typed_path(router), public_url)


def seal_request(
    out: AnyPath,
    *,
    force: bool,
    timeout: float,
    owner: tuple[int, int] | None,
    epoch: int | None,
    exclude: str | Iterable[str],
    router: AnyPath | None,
    public_url: str | None,
    incomplete: bool,
    check_content: bool,
) -> SealRequest:
    """Return how to seal, checked.

    Raises:
        UsageError: an argument is invalid.
    """
    patterns = checked_patterns(exclude)
    options = SealOptions(checked_owner(owner), checked_epoch(epoch), patterns)
    route = router_text(router, public_url)
    return SealRequest(output_path(out), force, timeout, options, route, incomplete, check_content)


def add_request(
    sources: Iterable[AnyPath],
    *,
    to: AnyPath,
    exclude: str | Iterable[str],
    keep_going: bool,
    replace_links: bool,
    timeout: float,
    check_content: bool,
    measure: bool,
) -> AddRequest:
    """Return what to add, checked.

    Raises:
        UsageError: there is no source, or a pattern is invalid.
        SourceError: `to` has `..` in it.
    """
    typed = tuple(map(os.fsdecode, sources))
    if not typed:
        raise UsageError("there is nothing to add; name a directory or a file")
    return AddRequest(
        sources=tuple(map(_absolute_source, typed)),
        to=_normal_target(os.fsdecode(to)),
        exclude=checked_patterns(exclude),
        keep_going=keep_going,
        timeout=timeout,
        measure=measure,
        replace_links=replace_links,
        typed=typed,
        check_content=check_content,
    )


def _absolute_source(source: str) -> str:
    """Make a source's path absolute, and keep the `/.` at its end that stands for what is in it."""
    end = "/." if source in {".", "/"} or source.endswith("/.") else ""
    return os.path.abspath(source).rstrip("/") + end  # noqa: PTH100  a Path would drop the dot


def _normal_target(path: str) -> str:
    """Write a directory of the tree without slashes at its ends.

    Raises:
        SourceError: it has `..` in it, which means one thing before a link is followed and another after it.
    """
    parts = [part for part in path.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise SourceError(f"`to` {path}: .. is not taken there; name the directory itself")
    return "/".join(parts)
