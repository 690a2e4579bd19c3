"""Check how sources fit into an existing tree, before anything changes.

The rules are in `flistfs.tree.uniting`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from flistfs.sources.excludes import Filter
from flistfs.sources.reach import file_within_reach, within_reach
from flistfs.tree.rules import Prefer, Rules, Seen, Sort, Tree, Why
from flistfs.tree.uniting import United, is_below, join

DEAD_LINK = "a link that does not lead to a directory already exists"
"""Why a directory has no place where it would have one if it may replace links."""


_WHY = {
    Why.DIRECTORY: "a directory already exists",
    Why.NO_DIRECTORY: "something other than a directory already exists",
    Why.DEAD_LINK: DEAD_LINK,
    Why.TWICE: "it would exist twice because one path goes through a link",
}


@dataclass(frozen=True, slots=True)
class Fit:
    """How a source fits into a tree.

    Attributes:
        late: Its directories that go through links, in the required order, after everything else.
        refused: The paths that do not fit, and why.
    """

    late: Sequence[bytes] = ()
    refused: Mapping[bytes, str] = field(default_factory=dict)


def rules_of_adding(*, replace_links: bool) -> Rules:
    """Return the rules: what is not a directory is replaced."""
    return Rules(Prefer.LAST, replace_links=replace_links, keep_directories=True)


def fit(sources: Sequence[SourceTree], lowest: Tree, rules: Rules) -> list[Fit]:
    """Return how sources fit, one on top of the other (blocks)."""
    united, fits = United(rules, lowest), []
    for source in sources:
        known = set(united.conflicts)
        late = [source.name(path) for path in united.put(source)]
        refused = {
            source.name(conflict.upper.path): _WHY[conflict.why]
            for path, conflict in united.conflicts.items()
            if path not in known and source.has(conflict.upper.path)
        }
        fits.append(Fit(late, refused))
    return fits


class SourceTree:
    """A directory or file of this machine as a tree that is laid over others."""

    def __init__(self, path: bytes, name: bytes, to: bytes, excluded: Filter) -> None:
        """Read `path`, which becomes `name` in the directory `to` (empty: its content goes there)."""
        self._path = path
        self._to = to
        self._top = join(to, name) if name else to
        self._excluded = excluded

    def has(self, path: bytes) -> bool:
        """Return whether a path belongs to the source itself, not to the directories above its target."""
        return path == self._top or is_below(path, self._top)

    def name(self, path: bytes) -> bytes:
        """Return a path relative to the source's target directory."""
        return path[len(self._to) :].removeprefix(b"/")

    def names(self, directory: bytes) -> Iterator[tuple[bytes, Seen]]:
        """Yield the entries of a directory, without the targets of links."""
        if not self.has(directory):
            yield from self.look(directory, [self._next_name(directory)]).items()
            return
        with suppress(OSError), within_reach(self._place(directory)) as way, os.scandir(way) as entries:
            for entry in entries:
                with suppress(OSError):
                    is_directory = entry.is_dir(follow_symlinks=False)
                    if not self._excluded(self.name(join(directory, entry.name)), is_directory):
                        yield entry.name, Seen(_sort(is_directory, entry.is_symlink()))

    def look(self, directory: bytes, names: Sequence[bytes]) -> dict[bytes, Seen]:
        """Look up names in a directory."""
        if not self.has(directory):
            name = self._next_name(directory)
            if name not in names:
                return {}
            if join(directory, name) != self._top:
                return {name: Seen(Sort.DIRECTORY)}
            seen = self._seen(self._path, self._top)
            return {} if seen is None else {name: seen}
        place = self._place(directory)
        found = {name: self._seen(place + b"/" + name, join(directory, name)) for name in names}
        return {name: seen for name, seen in found.items() if seen is not None}

    def _seen(self, path: bytes, where: bytes) -> Seen | None:
        try:
            with file_within_reach(path) as way:
                mode = os.lstat(way).st_mode
                target = os.readlink(way) if stat.S_ISLNK(mode) else b""  # noqa: PTH115  bytes
        except OSError:
            return None
        if self._excluded(self.name(where), stat.S_ISDIR(mode)):
            return None
        return Seen(_sort(stat.S_ISDIR(mode), stat.S_ISLNK(mode)), target)

    def _next_name(self, directory: bytes) -> bytes:
        """Return the name in a directory above the source that leads to the source."""
        return self._top[len(directory) :].removeprefix(b"/").split(b"/", 1)[0]

    def _place(self, directory: bytes) -> bytes:
        below = directory[len(self._top) :].removeprefix(b"/")
        return join(self._path, below) if below else self._path


def _sort(is_directory: bool, is_link: bool) -> Sort:  # noqa: FBT001  both come from stat
    return Sort.DIRECTORY if is_directory else Sort.LINK if is_link else Sort.OTHER
