"""What is in repositories, as it is answered: nodes ask for the same lists again and again."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Final

from flistfs.hub.answers import listed
from flistfs.hub.repositories import Repositories

_MAX_KEPT: Final = 32 << 20  # bytes
_SETTLED: Final = 2 * 10**9
"""Nanoseconds after which another change of a directory has another time, on any file system."""


@dataclass(frozen=True, slots=True)
class _Kept:
    """A list, and what its directory was then (see `Repositories.version`)."""

    version: tuple[int, int]
    text: bytes


class Lists:
    """Lists of repositories, as JSON. Its methods may be called from several threads."""

    def __init__(self, repositories: Repositories) -> None:
        self._repositories = repositories
        self._kept: dict[str, _Kept] = {}

    def kept(self, user: str) -> bytes | None:
        """Return the list of a repository if it was asked for since its directory changed last.

        A list of 1,000 flists takes 4 ms, and two calls to see that it is the same 10 µs.

        Raises:
            NotFoundError: there is no such repository.
        """
        found = self._kept.get(user)
        return found.text if found is not None and found.version == self._repositories.version(user) else None

    def of(self, user: str) -> bytes:
        """Return the list of a repository (blocks); raises as `kept`."""
        version = self._repositories.version(user)
        entries = self._repositories.entries(user)
        text = json.dumps([*map(listed, entries)]).encode() + b"\n"
        # What a link leads to may change without its directory, and so may what is in a tag.
        if all(entry.kind == "regular" for entry in entries) and version[1] < time.time_ns() - _SETTLED:
            if sum(len(each.text) for each in self._kept.values()) + len(text) > _MAX_KEPT:
                self._kept.clear()
            self._kept[user] = _Kept(version, text)
        return text
