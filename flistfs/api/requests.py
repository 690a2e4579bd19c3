"""What the functions of `flistfs.api` ask of the engine, made of their arguments, which are checked."""

from __future__ import annotations

import os
from collections.abc import Iterable

from flistfs.api.arguments import (
    AnyPath,
    StoreName,
    absolute_path,
    chosen_store,
    flist_paths,
    output_path,
    target_store,
    typed_path,
)
from flistfs.api.configuring import checked_metadata
from flistfs.api.format_names import FORMATS
from flistfs.authoring.request import AddRequest, BaseRequest, SealOptions, SealRequest
from flistfs.errors import SourceError, UsageError
from flistfs.format.metadata import NO_CHANGE, MetadataChange
from flistfs.sources.excludes import excluding
from flistfs.stores.readers import router_for_readers
from flistfs.tree.owners import MAX_ID


def base_request(
    base: AnyPath | Iterable[AnyPath],
    store: StoreName | None,
    password: str | None,
    *,
    replace_links: bool,
    accept_faults: bool,
    fallback_store: StoreName | None = None,
) -> tuple[BaseRequest | None, str | None]:
    """Return what a new session starts from, and the password of the store that its blocks are in.

    Raises:
        UsageError: a store is invalid, or something was said of a base and there is none.
    """
    named, secret = chosen_store(store, password)
    packages = tuple(str(absolute_path(path)) for path in flist_paths(base))
    if packages:
        fallback, _ = target_store(fallback_store, None)
        return BaseRequest(packages, named, fallback, replace_links, accept_faults), secret
    if replace_links:
        raise UsageError("`replace_links` belongs to `base`: it says how several of those unite")
    if accept_faults:
        raise UsageError("`accept_faults` belongs to `base`: it takes what is there of that flist")
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


def checked_format(format_: str | None) -> str | None:
    """Check the name of a format.

    Raises:
        UsageError: there is none of that name.
    """
    if format_ is not None and format_ not in FORMATS:
        raise UsageError(f"`format` is {format_!r}; it must be {' or '.join(FORMATS)}")
    return format_


def checked_owner(owner: tuple[int, int] | None) -> tuple[int, int] | None:
    """Check the owner that everything is to have.

    Raises:
        UsageError: its numbers are out of range.
    """
    if owner is not None and not all(0 <= number <= MAX_ID for number in owner):
        raise UsageError(f"`owner` is {owner}; it must be two numbers from 0 to {MAX_ID}")
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
    metadata: MetadataChange | None,
    startup: bool,
) -> SealRequest:
    """Return how to seal, checked.

    Raises:
        UsageError: an argument is invalid.
    """
    patterns = checked_patterns(exclude)
    options = SealOptions(checked_owner(owner), checked_epoch(epoch), patterns)
    route = router_text(router, public_url)
    change = checked_metadata(metadata or NO_CHANGE)
    return SealRequest(
        output_path(out), force, timeout, options, route, incomplete, check_content, change, startup
    )


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
