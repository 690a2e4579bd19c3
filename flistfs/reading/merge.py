"""Merge several flists into one, without fetching a block.

Directories are merged, also through links (see `flistfs.tree.uniting`). Any other path that two flists have
is a clash, even if both have the same there: the user has to choose. An entry comes from one flist as a
whole: its size, its blocks, its times and its ACI stay together. A merged directory takes owner, mode and
times of the preferred one, else of the first.

Directories that several have are compared first, to find clashes. Then the merged tree is walked twice: once
to find faults and the ACIs needed, and once, in the order of the catalog's keys, to write. Memory holds the
paths of all directories, and the entries of those that are being merged.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from flistfs.errors import ClashError, FormatError, OutputError
from flistfs.format.base import Format, TreeWriter
from flistfs.format.metadata import without_backend
from flistfs.format.router import Pool, Router, namespace_of, only_server, without_passwords
from flistfs.reading.flist import Flist
from flistfs.reading.union import Clash, Union, described
from flistfs.tree.names import join, printable
from flistfs.tree.node import Access, Kind, Node
from flistfs.tree.rules import Part, Place, Prefer, Rules, Why
from flistfs.util.output_file import OutputFile, check_output
from flistfs.util.progress import Progress, Report, quiet
from flistfs.util.scratch import Scratch


@dataclass(frozen=True, slots=True)
class Source:
    """An flist to merge, and its name in messages."""

    name: str
    flist: Flist


class PathsClashError(ClashError):
    """Several flists have the same paths; `clashes` lists them."""

    def __init__(self, clashes: Sequence[Clash]) -> None:
        closed = [clash for clash in clashes if not clash.is_open]
        first = (closed or clashes)[0]
        more = f" (and {len(clashes) - 1:,} more)" if len(clashes) > 1 else ""
        super().__init__(
            f"{described(first)}{more}; {_REMEDIES.get(first.why, _REPLACE)}",
            paths=[os.fsdecode(clash.path) for clash in clashes],
        )
        self.clashes = clashes

    def as_dict(self) -> dict[str, Any]:
        """Return it as a JSON object: each path with the reason, and what each of the flists has there."""
        paths = [
            {
                "path": os.fsdecode(clash.path),
                "why": clash.reason or None,
                "found": [{"flist": name, "kind": kind.value} for name, kind in clash.found],
            }
            for clash in self.clashes
        ]
        return {**super().as_dict(), "paths": paths}


_REPLACE = "`replace_links` lets one replace the other"
_REMEDIES = {
    Why.UNDECIDED: "choose with `prefer` first, last or newer",
    Why.FULL_DIRECTORY: f"name the flists in another order, if that link leads to a directory, or {_REPLACE}",
}


@dataclass(slots=True)
class Merged:
    """The result of a merge.

    `clashes` counts the paths decided by preference, and `hidden` lists the entries that are missing because
    of that, by the names of their flists. `notes` are for the user. `accepted_faults` counts the faults of
    flists of which what is there was taken.
    """

    kinds: Counter[Kind] = field(default_factory=Counter)
    size: int = 0
    clashes: int = 0
    hidden: dict[str, list[bytes]] = field(default_factory=dict)
    package_size: int = 0
    notes: list[str] = field(default_factory=list)
    accepted_faults: int = 0


def merge(
    sources: Sequence[Source],
    out: Path,
    *,
    prefer: Prefer | None = None,
    replace_links: bool = False,
    force: bool = False,
    only_first_metadata: bool = False,
    progress: Progress = quiet,
) -> Merged:
    """Merge flists into the package `out`, which is written to a temporary file and published whole.

    A directory follows a link to a directory of the flists before it; with `replace_links` it clashes with
    the link as with anything else. Routers are merged too: pools are queried in the order of the flists.
    Passwords are removed. Of metadata that several have, that of the first stays, or of the last if that is
    preferred; with `only_first_metadata` the first flist's are all that there are.

    Raises:
        PathsClashError: they have the same paths, and none is preferred; or a link is in the way of a
            directory.
        FormatError: one of them is damaged, or has faults that would be in the output.
        OutputError: the output exists (unless `force`), or cannot be written; or a merged directory would
            have too many entries.
    """
    check_output(out, force=force)
    format_ = _common_format(sources)
    union = _Union(sources, Rules(prefer, replace_links=replace_links), progress)
    router = _united_router(sources, union.merged.notes)
    union.merged.notes += _notes_on_namespaces(router)
    describing = sources[:1] if only_first_metadata else sources
    metadata = _united_metadata(describing, prefer, union.merged.notes) if format_.has_metadata else {}
    try:
        with (
            OutputFile(out, force=force) as output,
            Scratch() as scratch,
            format_.writer(scratch.path, union.accesses) as writer,
        ):
            union.write(writer)
            progress(Report("package", 0, 1))
            output.write(partial(writer.finish, router, metadata))
            union.merged.package_size = output.size
            output.publish()
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}") from error
    progress(Report("package", 1, 1))
    union.merged.accepted_faults = sum(source.flist.accepted_faults for source in sources)
    return union.merged


def _common_format(sources: Sequence[Source]) -> Format:
    """Return the format of all flists; raise FormatError if they differ."""
    first, *others = sources
    for each in others:
        if each.flist.format is not first.flist.format:
            raise FormatError(
                f"{first.name} has the format {first.flist.format.name}, {each.name} the format "
                f"{each.flist.format.name}: convert one of them first (flistfs convert), as merging "
                "fetches no blocks"
            )
    return first.flist.format


# The tree


@dataclass(frozen=True, slots=True)
class _Found:
    """A node, and the index of its flist."""

    source: int
    node: Node


class _Union:
    """The merged tree of all flists; `accesses` are those of all its nodes."""

    def __init__(self, sources: Sequence[Source], rules: Rules, progress: Progress) -> None:
        self._sources = sources
        self._prefer = rules.prefer
        self._progress = progress
        self.accesses: set[Access] = set()
        self._places: list[Place] = []
        self._tree = Union([(source.name, source.flist) for source in sources], rules)
        self.merged = Merged(clashes=self._tree.decided, hidden=self._tree.hidden())
        if self._tree.clashes:
            raise PathsClashError(self._tree.clashes)
        self._survey()

    def _survey(self) -> None:
        """Walk the merged tree once to find faults and collect directories and accesses."""
        waiting = [self._tree.root()]
        estimated = sum(source.flist.estimated_directories for source in self._sources)
        while waiting:
            place = waiting.pop()
            done = len(self._places)
            self._progress(Report("structure", done, max(done, estimated)))
            self._places.append(place)
            self._note_access(self._preferred(self._heads(place)))
            self.merged.kinds[Kind.DIRECTORY] += 1
            for chosen in self._children(place, check=True):
                node = chosen[0].node
                if node.kind is Kind.DIRECTORY:
                    parts = [Part(each.source, each.node.path) for each in chosen]
                    waiting.append(self._tree.below(place, node.name, parts))
                    continue
                self._note_access(chosen[0])
                self.merged.kinds[node.kind] += 1
                self.merged.size += node.size if node.kind is Kind.FILE else 0
        self._progress(Report("structure", 1, 1))

    def write(self, writer: TreeWriter) -> None:
        """Write all directories."""
        positions = sorted((writer.position(place.path), place) for place in self._places)
        for done, (_, place) in enumerate(positions):
            self._progress(Report("catalog", done, len(positions)))
            directory = self._preferred(self._heads(place)).node._replace(path=place.path)
            writer.add(directory, [[self._moved(place.path, found[0]) for found in self._children(place)]])
        self._progress(Report("catalog", len(positions), len(positions)))

    def _moved(self, directory: bytes, found: _Found) -> Node:
        """Return an entry with its path in the merged directory, which may differ from its own."""
        return found.node._replace(path=join(directory, found.node.name))

    def _note_access(self, found: _Found) -> None:
        access = found.node.access
        if access is None:
            raise FormatError(f"{self._sources[found.source].name} lacks an ACI; flistfs verify shows where")
        self.accesses.add(access)

    def _heads(self, place: Place) -> list[_Found]:
        parts = self._tree.own_parts(place)
        return [_Found(part.tree, self._sources[part.tree].flist.find(part.path)) for part in parts]

    def _children(self, place: Place, *, check: bool = False) -> Iterator[list[_Found]]:
        """Yield the entries of each name in a directory: the directories merged there, or the one winner."""
        names: dict[bytes, list[_Found]] = {}
        for source, path in place.parts:
            if check:
                self._refuse_faults(source, path)
            for node in self._sources[source].flist.children(path):
                names.setdefault(node.name, []).append(_Found(source, node))
        for name in sorted(names):
            found = names[name]
            yield [found[index] for index in self._tree.chosen([each.node for each in found])]

    def _refuse_faults(self, source: int, path: bytes) -> None:
        fault = next(self._sources[source].flist.faults(path), None)
        if fault is not None:
            raise FormatError(
                f"{self._sources[source].name} has faults (flistfs verify lists them, `accept_faults` takes "
                f"what is there), the first: {printable(fault.path) or '/'}: {fault.what}"
            )

    def _preferred(self, found: list[_Found]) -> _Found:
        match self._prefer:
            case Prefer.LAST:
                return found[-1]
            case Prefer.NEWER:
                return max(found, key=lambda each: each.node.mtime)
            case _:
                return found[0]


# The router


def _united_router(sources: Sequence[Source], notes: list[str]) -> Router | None:
    """Merge the routers of all flists, and append notes for the user."""
    routers = [(source.name, source.flist.router()) for source in sources]
    if all(router is None for _, router in routers):
        return None
    pools: list[Pool] = []
    lookup: dict[str, None] = {}
    cache: dict[str, None] = {}
    for name, router in routers:
        if router is None:
            notes.append(f"{name} has no router: the pools of the others must have its blocks as well")
            continue
        shown = without_passwords(router)
        if shown != router:
            notes.append(f"the router of {name} contains passwords, which were removed")
        names = {pool.name: _add_pool(pools, pool) for pool in shown.pools}
        lookup |= dict.fromkeys(names[each] for each in shown.lookup)
        cache |= dict.fromkeys(names[each] for each in shown.cache)
    return Router(tuple(pools), tuple(lookup), tuple(cache))


def _notes_on_namespaces(router: Router | None) -> list[str]:
    """Return a note for each server that no reader of the merged flist is told of."""
    urls, only = () if router is None else router.all_urls(), only_server(router)
    return [
        f"no reader is told of {url}: a namespace can be named only where one server has all blocks; "
        "flistfs push --update brings them to one"
        for url in urls
        if namespace_of(url) is not None and url != only
    ]


def _united_metadata(sources: Sequence[Source], prefer: Prefer | None, notes: list[str]) -> dict[str, bytes]:
    """Unite the metadata of all flists but for their servers, and append notes for the user."""
    united: dict[str, bytes] = {}
    by: dict[str, str] = {}
    for source in reversed(sources) if prefer is Prefer.LAST else sources:
        for key, value in without_backend(source.flist.metadata).items():
            if united.setdefault(key, value) != value:
                notes.append(f"the metadata {key!r} of {source.name} is left out: {by[key]} has another")
            by.setdefault(key, source.name)
    return united


def _add_pool(pools: list[Pool], pool: Pool) -> str:
    """Add a pool unless it exists; return its name, a new one if another pool has that name."""
    taken = {each.name: each for each in pools}
    name, number = pool.name, 2
    while name in taken and taken[name].rules != pool.rules:
        name, number = f"{pool.name}-{number}", number + 1
    if name not in taken:
        pools.append(replace(pool, name=name))
    return name
