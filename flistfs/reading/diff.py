"""The differences between two flists. No block is read: files are compared by the keys of their chunks.

The key is the hash of a chunk's plain bytes. Block hashes would not do: two snappy libraries can produce
different blocks of one chunk. Change times (ctime) are not compared: they only tell when a file was copied.
"""

from __future__ import annotations

import enum
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from flistfs.reading.flist import Flist
from flistfs.tree.node import Kind, Node


class Change(enum.StrEnum):
    """The way a path has changed."""

    ADDED = "added"
    REMOVED = "removed"
    CONTENT = "content"
    METADATA = "metadata"


@dataclass(frozen=True, slots=True)
class Difference:
    """A path that differs; if both flists have it, `fields` names the differences.

    A path whose kind has changed is removed, with everything below it, and then added.
    """

    path: bytes
    change: Change
    before: Node | None
    after: Node | None
    fields: tuple[str, ...] = ()


def diff(one: Flist, other: Flist) -> Iterator[Difference]:
    """Yield what has changed from one flist to the other, parents first.

    The entries of the directories on the current path are kept in memory, of both.

    Raises:
        FormatError: one of them is damaged.
    """
    roots = one.find(b""), other.find(b"")
    yield from _compared(*roots)
    levels = [_paired(one.children(b""), other.children(b""))]
    while levels:
        before, after = next(levels[-1], (None, None))
        if before is None and after is None:
            levels.pop()
        elif before is None or after is None or before.kind is not after.kind:
            yield from _removed(one, before)
            yield from _added(other, after)
        else:
            yield from _compared(before, after)
            if before.kind is Kind.DIRECTORY and before.whole and after.whole:
                levels.append(_paired(one.children(before.path), other.children(after.path)))


def _paired(ones: Iterator[Node], others: Iterator[Node]) -> Iterator[tuple[Node | None, Node | None]]:
    """Pair the entries of two directories by name; both are sorted."""
    one, other = next(ones, None), next(others, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one.name < other.name):
            yield one, None
            one = next(ones, None)
        elif one is None or other.name < one.name:
            yield None, other
            other = next(others, None)
        else:
            yield one, other
            one, other = next(ones, None), next(others, None)


def _removed(flist: Flist, node: Node | None) -> Iterator[Difference]:
    if node is not None:
        yield Difference(node.path, Change.REMOVED, node, None)
        yield from (Difference(below.path, Change.REMOVED, below, None) for below in flist.walk(node))


def _added(flist: Flist, node: Node | None) -> Iterator[Difference]:
    if node is not None:
        yield Difference(node.path, Change.ADDED, None, node)
        yield from (Difference(below.path, Change.ADDED, None, below) for below in flist.walk(node))


def _compared(before: Node, after: Node) -> Iterator[Difference]:
    content = () if _content(before) == _content(after) else ("content",)
    metadata = tuple(_changed_metadata(before, after))
    if content or metadata:
        change = Change.CONTENT if content else Change.METADATA
        yield Difference(before.path, change, before, after, content + metadata)


def _content(node: Node) -> object:
    """Return a value that is equal for equal content: size and keys of a file, else target or device."""
    if node.kind is Kind.FILE:
        # The chunk size of an empty file is meaningless.
        return node.size, bool(node.blocks) and node.chunk_size, [block.key for block in node.blocks]
    return node.target, node.device, node.kind is Kind.DIRECTORY and node.whole


def _changed_metadata(before: Node, after: Node) -> Iterator[str]:
    if stat.S_IMODE(before.mode) != stat.S_IMODE(after.mode):
        yield "mode"
    if _owner(before) != _owner(after):
        yield "owner"
    if before.mtime != after.mtime:
        yield "mtime"


def _owner(node: Node) -> object:
    access = node.access
    return access and (access.user, access.group, access.uid, access.gid)
