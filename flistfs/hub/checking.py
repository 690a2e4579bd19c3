"""Checking a hub that is not served: that what lies there is whole, and that it has all blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from flistfs.errors import FormatError
from flistfs.format.opening import format_of
from flistfs.hub import looking
from flistfs.hub.contents import contents
from flistfs.hub.errors import NotFoundError
from flistfs.hub.hub import Hub
from flistfs.hub.repositories import Entry
from flistfs.stores import Store
from flistfs.util.progress import Progress, Report


@dataclass(slots=True)
class Checked:
    """What was looked at, and what is wrong: paths such as `USER/NAME.flist`, each with the reason."""

    repositories: int = 0
    flists: int = 0
    links: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)


def check(hub: Hub, *, blocks: bool, repair: bool, progress: Progress) -> Checked:
    """Look at everything on a hub.

    Args:
        hub: The hub.
        blocks: Whether its store is asked for the blocks of all flists.
        repair: Whether the index of checksums is made anew from the files; nothing else is changed.
        progress: Called with a `Report` as it goes on.

    Raises:
        StoreError: the store cannot be asked.
    """
    checked = Checked()
    with ExitStack() as opened:
        stores = _Stores(hub, opened) if blocks else None
        known = {str(path) for path in hub.checksums.paths()}
        found: set[str] = set()
        for repository in hub.repositories.all():
            checked.repositories += 1
            for tag, entry in _entries(hub, repository.name):
                progress(Report("check", checked.flists + checked.links, 0))
                shown = "/".join(filter(None, (repository.name, tag and f"tags/{tag}", entry.name)))
                if entry.kind in {"symlink", "taglink"}:
                    checked.links += 1
                elif entry.kind == "regular":
                    checked.flists += 1
                faults = _faults(hub, repository.name, tag, entry, stores, found, repair=repair)
                checked.faults += [(shown, why) for why in faults]
        if repair:
            hub.checksums.forget(known - found)
    return checked


class _Stores:
    """The hub's store, opened for the codec of each format."""

    def __init__(self, hub: Hub, opened: ExitStack) -> None:
        self._hub = hub
        self._opened = opened
        self._by_format: dict[str, Store] = {}

    def of(self, package: Path) -> Store:
        format_ = format_of(package)
        if format_.name not in self._by_format:
            store = self._hub.open_store(format_.codec, reading=True)
            self._by_format[format_.name] = self._opened.enter_context(closing(store))
        return self._by_format[format_.name]


def _entries(hub: Hub, repository: str) -> Iterator[tuple[str | None, Entry]]:
    """Yield all entries of a repository, and those of its tags with their names."""
    for entry in hub.repositories.entries(repository):
        if entry.kind == "tag":
            yield from ((entry.name, each) for each in hub.repositories.tagged(repository, entry.name))
        else:
            yield None, entry


def _faults(
    hub: Hub,
    repository: str,
    tag: str | None,
    entry: Entry,
    stores: _Stores | None,
    found: set[str],
    *,
    repair: bool,
) -> Iterator[str]:
    if entry.kind == "taglink":
        user, _, wanted = hub.repositories.tag_target(repository, entry.name).partition("/tags/")
        try:
            hub.repositories.tagged(user, wanted)
        except NotFoundError:
            yield "it leads to a tag that is not there"
        return
    try:
        package = hub.repositories.package(repository, entry.name, tag)
    except NotFoundError:
        yield "it leads nowhere"
        return
    if entry.kind != "regular":
        return
    found.add(str(package))
    if not hub.checksums.is_right(package, repair=repair):
        yield "its content has changed since its MD5 was told"
    try:
        contents(package).text.close()
        lacking = [] if stores is None else looking.lacking(package, stores.of(package))
    except FormatError as error:
        yield f"it cannot be read: {error}"
        return
    if lacking:
        yield f"the store lacks blocks of {', '.join(lacking)}"
