"""Saying anew where the blocks of a sealed flist are."""

from __future__ import annotations

from dataclasses import dataclass

from flistfs.api.arguments import AnyPath, flist_path
from flistfs.api.configuring import changed_path
from flistfs.api.requests import router_text
from flistfs.errors import UsageError
from flistfs.format.metadata import NO_CHANGE
from flistfs.format.opening import format_of
from flistfs.format.router import parse_router
from flistfs.reading.config import is_same, rewrite
from flistfs.reading.named import check_named
from flistfs.stores.base import STORE_TIMEOUT
from flistfs.stores.readers import check_readable, notes_for_servers
from flistfs.util.output_file import check_output
from flistfs.util.progress import Progress, quiet


@dataclass(frozen=True, slots=True)
class Routed:
    """An flist whose readers fetch blocks from `servers` now. `notes` are for the user."""

    out: str
    servers: tuple[str, ...]
    notes: tuple[str, ...]


def route(
    package: AnyPath,
    *,
    router: AnyPath | None = None,
    public_url: str | None = None,
    out: AnyPath | None = None,
    force: bool = False,
    check: bool = True,
    timeout: float = STORE_TIMEOUT,
    progress: Progress | None = None,
) -> Routed:
    """Say anew where the blocks of a sealed flist are. Its tree and its blocks stay as they are.

    Args:
        package: The flist.
        router: A router.yaml of the servers.
        public_url: The one server, instead.
        out: The changed flist; it exists whole or not at all. Default: it takes the place of `package`.
        force: Replace `out` if it exists.
        check: Whether to ask the servers for every block first, as readers do: without a password.
        timeout: Seconds for that.
        progress: Called with a `Report` as the work goes on.

    Raises:
        BlockMissingError: the servers lack blocks.
        StoreError: they cannot be asked.
        FormatError: the flist is not there or damaged.
        OutputError: the output exists or cannot be written.
        UsageError: readers cannot use such servers.
    """
    text = router_text(router, public_url)
    if text is None:
        raise UsageError("say where its blocks are, with `router` or `public_url`")
    servers = parse_router(text.encode())
    source = flist_path(package)
    check_readable(servers, format_of(source))
    target = changed_path(source, out)
    if not is_same(source, target):
        check_output(target, force=force)  # before the minutes that asking may take
    notes: tuple[str, ...] = ()
    if check:
        notes = check_named(source, servers, timeout, progress or quiet, is_strict=True)
    rewrite(source, target, servers, NO_CHANGE, force=force)
    return Routed(str(target), servers.all_urls(), (*notes, *notes_for_servers(servers)))
