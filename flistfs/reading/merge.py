"""Several flists become one, without a block being fetched.

Directories unite, also through links (see `flistfs.tree.uniting`). Any other path that two flists have is a
clash, even if both have the same there: somebody has to say which is wanted. An entry comes from one flist as
a whole: its size, its blocks, its times and its ACI travel together. A united directory takes owner, mode and
times of the preferred one, else of the first.

Directories that several have are compared first, to find clashes. Then the united tree is walked twice: once
to find faults and what ACIs are needed, and once, in the order of the catalog's keys, to write. Memory holds
the paths of all directories, and the entries of those that are being united.
"""

from __future__ import annotations

import heapq
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flistfs.errors import ClashError, FormatError, OutputError
from flistfs.format.rocksdb.catalog import write_catalog
from flistfs.format.router import Pool, Router, format_router, without_passwords
from flistfs.format.zeroos.keys import aci_key, directory_key, distinct_aci_key
from flistfs.format.zeroos.limits import check_record
from flistfs.format.zeroos.records import Aci, Directory, Entry, SubDirectory, encode_aci, encode_directory
from flistfs.reading.faults import record_faults
from flistfs.reading.flist import ROUTER_FILE, Flist, Node
from flistfs.reading.union import Clash, Union, described
from flistfs.tree.names import join, printable
from flistfs.tree.node import Kind
from flistfs.tree.uniting import Part, Place, Prefer, Rules, Why
from flistfs.util.output_file import OutputFile, check_output
from flistfs.util.progress import Progress, Report, quiet
from flistfs.util.scratch import Scratch


@dataclass(frozen=True, slots=True)
class Source:
    """An flist to merge, and what to call it."""

    name: str
    flist: Flist


class PathsClashError(ClashError):
    """Flists have the same paths; `clashes` says which."""

    def __init__(self, clashes: Sequence[Clash]) -> None:
        closed = [clash for clash in clashes if not clash.is_open]
        first = (closed or clashes)[0]
        more = f" (and {len(clashes) - 1:,} more)" if len(clashes) > 1 else ""
        super().__init__(f"{described(first)}{more}; {_REMEDIES.get(first.why, _REPLACE)}")
        self.clashes = clashes


_REPLACE = "--replace-links lets one take the place of the other"
_REMEDIES = {
    Why.UNDECIDED: "--prefer first, last or newer says which are to be taken",
    Why.FULL_DIRECTORY: f"name the flists in another order, if that link leads to a directory, or {_REPLACE}",
}


@dataclass(slots=True)
class Merged:
    """What was merged.

    `clashes` counts paths of which one was preferred, and `hidden` names the entries that are missing because
    of that, by the names of their flists. `notes` are for the user.
    """

    kinds: Counter[Kind] = field(default_factory=Counter)
    size: int = 0
    clashes: int = 0
    hidden: dict[str, list[bytes]] = field(default_factory=dict)
    package_size: int = 0
    notes: list[str] = field(default_factory=list)


def merge(
    sources: Sequence[Source],
    out: Path,
    *,
    prefer: Prefer | None = None,
    replace_links: bool = False,
    force: bool = False,
    progress: Progress = quiet,
) -> Merged:
    """Merge flists into the package `out`, which is written aside and exists whole or not at all.

    A directory goes through a link to a directory of the flists before it; with `replace_links` it clashes
    with the link as with anything else. Routers are united too: pools are asked in the order of the flists.
    Passwords are left out.

    Raises:
        PathsClashError: they have the same paths, and none is preferred; or a link is in the way of a
            directory.
        FormatError: one of them is damaged, or has faults that would be in the output.
        OutputError: the output exists (unless `force`), or cannot be written; or a directory that unites
            several would have too much in it.
    """
    check_output(out, force=force)
    union = _Union(sources, Rules(prefer, replace_links=replace_links), progress)
    router = _united_router(sources, union.merged.notes)
    try:
        with OutputFile(out, force=force) as output, Scratch() as scratch:
            write_catalog(scratch.path, union.records())
            if router is not None:
                (scratch.path / ROUTER_FILE).write_bytes(format_router(router))
            progress(Report("package", 0, 1))
            output.write(scratch.path)
            union.merged.package_size = output.size
            output.publish()
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror}") from error
    progress(Report("package", 1, 1))
    return union.merged


# The tree


@dataclass(frozen=True, slots=True)
class _Found:
    """What one flist (by its number) has at a path."""

    source: int
    node: Node


class _Union:
    """The united tree of all flists, as records."""

    def __init__(self, sources: Sequence[Source], rules: Rules, progress: Progress) -> None:
        self._sources = sources
        self._prefer = rules.prefer
        self._progress = progress
        self._acis = _Acis(sources)
        self._directories: list[tuple[bytes, Place]] = []  # by key
        self._tree = Union([(source.name, source.flist) for source in sources], rules)
        self.merged = Merged(clashes=self._tree.decided, hidden=self._tree.hidden())
        if self._tree.clashes:
            raise PathsClashError(self._tree.clashes)
        self._survey()

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Make every record, in the order of their keys."""
        return heapq.merge(self._acis.records(), self._directory_records())

    def _survey(self) -> None:
        """Walk the united tree once: find faults, note directories and ACIs."""
        waiting = [self._tree.root()]
        records = sum(source.flist.estimated_records for source in self._sources)
        while waiting:
            place = waiting.pop()
            done = len(self._directories)
            self._progress(Report("structure", done, max(done, records)))
            self._directories.append((directory_key(place.path), place))
            self._acis.note(self._preferred(self._heads(place)))
            self.merged.kinds[Kind.DIRECTORY] += 1
            for chosen in self._children(place, check=True):
                node = chosen[0].node
                if node.kind is Kind.DIRECTORY:
                    parts = [Part(each.source, each.node.path) for each in chosen]
                    waiting.append(self._tree.below(place, node.entry.name, parts))
                    continue
                self._acis.note(chosen[0])
                self.merged.kinds[node.kind] += 1
                self.merged.size += node.size if node.kind is Kind.FILE else 0
        self._progress(Report("structure", 1, 1))
        self._acis.settle()
        self._directories.sort()

    def _directory_records(self) -> Iterator[tuple[bytes, bytes]]:
        total = len(self._directories)
        for done, (key, place) in enumerate(self._directories):
            self._progress(Report("catalog", done, total))
            raw = encode_directory(self._directory(place))
            check_record(printable(place.path) or "/", len(raw))
            yield key, raw
        self._progress(Report("catalog", total, total))

    def _directory(self, place: Place) -> Directory:
        preferred = self._preferred(self._heads(place))
        head = preferred.node.directory
        assert head is not None  # noqa: S101  the type checker's
        path = place.path
        parent, _, name = path.rpartition(b"/")
        return replace(
            head,
            name=name,
            location=path,
            parent=directory_key(parent) if path else b"",
            aclkey=self._acis.key(preferred),
            entries=[self._entry(path, chosen[0]) for chosen in self._children(place)],
        )

    def _entry(self, directory: bytes, found: _Found) -> Entry:
        entry = found.node.entry
        if found.node.kind is Kind.DIRECTORY:
            return Entry(entry.name, 0, SubDirectory(directory_key(join(directory, entry.name))), b"", 0, 0)
        return replace(entry, aclkey=self._acis.key(found))

    def _heads(self, place: Place) -> list[_Found]:
        parts = self._tree.own_parts(place)
        return [_Found(part.tree, self._sources[part.tree].flist.find(part.path)) for part in parts]

    def _children(self, place: Place, *, check: bool = False) -> Iterator[list[_Found]]:
        """Walk all names in a directory: the directories that unite there, or the one thing that is there."""
        names: dict[bytes, list[_Found]] = {}
        for source, path in place.parts:
            flist = self._sources[source].flist
            directory = flist.directory(path)
            if check:
                self._refuse_faults(source, path, directory)
            for node in flist.children(path, directory):
                names.setdefault(node.entry.name, []).append(_Found(source, node))
        for name in sorted(names):
            found = names[name]
            yield [found[index] for index in self._tree.chosen([each.node for each in found])]

    def _refuse_faults(self, source: int, path: bytes, directory: Directory | None) -> None:
        name, flist = self._sources[source].name, self._sources[source].flist
        found = directory or FormatError("there is no such directory")
        for fault in record_faults(flist, path, found):
            raise FormatError(
                f"{name} has faults, which flistfs verify shows; the first: "
                f"{printable(fault.path) or '/'}: {fault.what}"
            )

    def _preferred(self, found: list[_Found]) -> _Found:
        match self._prefer:
            case Prefer.LAST:
                return found[-1]
            case Prefer.NEWER:
                return max(found, key=lambda each: each.node.modification_time)
            case _:
                return found[0]


class _Acis:
    """The ACIs that the united tree needs, and their keys there.

    Two flists may mean different ACIs by one key: it covers neither ids nor all bits of the mode. Of those
    that would share one, all but the first get keys of their own; the order makes that one without set-id and
    sticky bits. The file type makes no difference: readers take it from the entry.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._noted: dict[tuple[int, bytes], Aci] = {}
        self._acis: dict[bytes, Aci] = {}
        self._keys: dict[Aci, bytes] = {}

    def note(self, found: _Found) -> None:
        """Take up the ACI of an entry."""
        name = found.source, found.node.aclkey
        if name in self._noted:
            return
        aci = self._sources[found.source].flist.aci(found.node)
        if aci is None:
            raise FormatError(f"{self._sources[found.source].name} lacks an ACI; flistfs verify shows where")
        self._noted[name] = aci

    def settle(self) -> None:
        """Give keys to all that were noted."""
        for aci in sorted(set(self._noted.values()), key=_order):
            key = aci_key(aci)
            if not _are_alike(self._acis.setdefault(key, aci), aci):
                key = distinct_aci_key(aci)
                if self._acis.setdefault(key, aci) != aci:
                    raise FormatError("two ACIs differ in their rights only, and cannot be in one flist")
            self._keys[aci] = key

    def key(self, found: _Found) -> bytes:
        return self._keys[self._noted[found.source, found.node.aclkey]]

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        for key in sorted(self._acis):
            yield key, encode_aci(self._acis[key])


def _order(aci: Aci) -> tuple[object, ...]:
    # An id and rights that no known writer uses come last: they settle what would else hang on chance.
    rights = tuple((right.right, right.usergroupid) for right in aci.rights)
    return aci.mode & 0o7000, aci.uid, aci.gid, aci.mode, aci.uname, aci.gname, aci.id, rights


def _are_alike(one: Aci, other: Aci) -> bool:
    return replace(one, mode=stat.S_IMODE(one.mode)) == replace(other, mode=stat.S_IMODE(other.mode))


# The router


def _united_router(sources: Sequence[Source], notes: list[str]) -> Router | None:
    """Put the routers of all flists together, and note what a reader should know."""
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
            notes.append(f"the router of {name} has passwords, which are left out")
        names = {pool.name: _take_pool(pools, pool) for pool in shown.pools}
        lookup |= dict.fromkeys(names[each] for each in shown.lookup)
        cache |= dict.fromkeys(names[each] for each in shown.cache)
    return Router(tuple(pools), tuple(lookup), tuple(cache))


def _take_pool(pools: list[Pool], pool: Pool) -> str:
    """Add a pool unless it is there already; return its name, which is a new one if another has its own."""
    taken = {each.name: each for each in pools}
    name, number = pool.name, 2
    while name in taken and taken[name].rules != pool.rules:
        name, number = f"{pool.name}-{number}", number + 1
    if name not in taken:
        pools.append(replace(pool, name=name))
    return name
