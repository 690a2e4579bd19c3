"""How trees unite, told plainly on trees in memory; and trees with links to try it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import strategies as st

from tests.reading.making import DIR, Item

Tree = dict[bytes, Item]


class Clash(Exception):  # noqa: N818  what it is
    """Two things of which nobody says which is to be there."""


def below(tree: Mapping[bytes, Item], directory: bytes) -> list[bytes]:
    """All that lies in a directory."""
    return [path for path in tree if path and (not directory or path.startswith(directory + b"/"))]


def lead(tree: Mapping[bytes, Item], path: bytes) -> bytes | None:
    """Where a path leads, if that is a directory; links are followed as in a root directory."""
    here: list[bytes] = []
    names, links = path.split(b"/"), 0
    while names:
        name = names.pop(0)
        if name in {b"", b"."}:
            continue
        if name == b"..":
            here = here[:-1]
            continue
        found = tree.get(b"/".join([*here, name]))
        if found is None or found.kind not in {"dir", "link"}:
            return None
        if found.kind == "dir":
            here.append(name)
            continue
        links += 1
        if links > 40:
            return None
        names = found.what.split(b"/") + names
        if found.what.startswith(b"/"):
            here = []
    return b"/".join(here)


class Model:
    """A tree on which others are put."""

    def __init__(
        self, lowest: Tree, prefer: str = "last", *, replace_links: bool = False, add: bool = False
    ) -> None:
        self.tree = {b"": DIR, **lowest}
        self._prefer = prefer
        self._replace_links = replace_links
        self._add = add

    def put(self, upper: Tree) -> None:
        self._upper = {b"": DIR, **upper}
        self._own: set[bytes] = set()
        self._late: list[tuple[bytes, bytes]] = []
        self.tree[b""] = self._preferred(self.tree[b""], self._upper[b""])
        self._put_inside(b"", b"")
        has_changed = True
        while has_changed:
            late, self._late = sorted(self._late), []
            has_changed = False
            for path, link in late:
                target = lead(self.tree, link)
                if target is None:
                    self._late.append((path, link))
                else:
                    has_changed = True
                    self._put_inside(path, target)
        if self._late:
            raise Clash(self._late)

    def _put_inside(self, path: bytes, where: bytes) -> None:
        for child in sorted(below(self._upper, path)):
            if child.rpartition(b"/")[0] == path:
                self._put(child, b"/".join(filter(None, [where, child.rpartition(b"/")[2]])))

    def _put(self, path: bytes, where: bytes) -> None:
        item, there = self._upper[path], self.tree.get(where)
        if there is not None and not there.kind == item.kind == "dir":
            if where in self._own:
                raise Clash(where)
            if there.kind == "link" and item.kind == "dir" and not self._replace_links:
                self._late.append((path, where))
                return
            if self._clash(where, there, item):
                raise Clash(where)
            if self._preferred(there, item) is there:
                return
            for gone in below(self.tree, where):
                del self.tree[gone]
        elif there is not None:
            item = self._preferred(there, item)
        self.tree[where] = item
        self._own.add(where)
        if self._upper[path].kind == "dir":
            self._put_inside(path, where)

    def _clash(self, where: bytes, there: Item, item: Item) -> bool:
        if self._add:
            return there.kind == "dir" or (item.kind == "dir" and there.kind != "link")
        is_full = there.kind == "dir" and bool(below(self.tree, where))
        return is_full and item.kind == "link" and not self._replace_links

    def _preferred(self, lower: Item, upper: Item) -> Item:
        if self._prefer == "newer":
            return upper if upper.mtime > lower.mtime else lower
        return lower if self._prefer == "first" else upper


def united(
    trees: list[Tree], prefer: str = "last", *, replace_links: bool = False, add: bool = False
) -> Tree | None:
    """What trees become, the later on top; None if they clash."""
    model = Model(trees[0], prefer, replace_links=replace_links, add=add)
    try:
        for tree in trees[1:]:
            model.put(tree)
    except Clash:
        return None
    return model.tree


_NAMES = [b"a", b"b", b"c"]
_TARGETS = [b"a", b"b", b"/a/b", b"a/c", b"../b", b".", b"..", b"c/../a", b"none"]


@st.composite
def trees_with_links(draw: st.DrawFn) -> Tree:
    """A few levels of entries, of which many are links to others."""
    tree = {b"": replace(DIR, mtime=draw(st.integers(1, 3)))}
    _fill(draw, tree, b"", 3)
    return tree


def _fill(draw: st.DrawFn, tree: Tree, path: bytes, depth: int) -> None:
    for name in draw(st.lists(st.sampled_from(_NAMES), unique=True, max_size=3)):
        child = path + b"/" + name if path else name
        mtime = draw(st.integers(1, 3))
        kind = draw(st.sampled_from(["dir", "dir", "link", "file"] if depth > 1 else ["dir", "link", "file"]))
        if kind == "dir":
            tree[child] = replace(DIR, mtime=mtime)
            if depth > 1:
                _fill(draw, tree, child, depth - 1)
        elif kind == "link":
            tree[child] = Item("link", draw(st.sampled_from(_TARGETS)), mode=0o777, mtime=mtime)
        else:
            tree[child] = Item(what=draw(st.sampled_from([b"", b"1", b"2"])), mtime=mtime)
