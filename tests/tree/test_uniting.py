"""The rules by which trees unite, on trees in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flistfs.tree.rules import Part, Prefer, Rules, Seen, Sort, Why
from flistfs.tree.uniting import United, join
from tests.reading.making import DIR, Item
from tests.tree.uniting import Tree, below, trees_with_links, united

SORTS = {"dir": Sort.DIRECTORY, "link": Sort.LINK}


class MemoryTree:
    """A tree that is a dictionary."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def names(self, directory: bytes) -> Iterator[tuple[bytes, Seen]]:
        for path in below(self.tree, directory):
            parent, _, name = path.rpartition(b"/")
            if parent == directory:
                yield name, seen(self.tree[path])

    def look(self, directory: bytes, names: Sequence[bytes]) -> dict[bytes, Seen]:
        return {name: found for name, found in self.names(directory) if name in names}


def seen(item: Item) -> Seen:
    return Seen(SORTS.get(item.kind, Sort.OTHER), item.what, item.mtime)


def put_together(trees: Sequence[Tree], rules: Rules) -> United:
    made = United(rules, MemoryTree(trees[0]))
    for tree in trees[1:]:
        made.put(MemoryTree(tree))
    return made


def everything(made: United, trees: Sequence[Tree]) -> dict[bytes, Part]:
    """All entries of the united tree, and the one of the trees' that each is."""
    found = {}
    waiting = [made.root()]
    while waiting:
        place = waiting.pop()
        found[place.path] = preferred(made, made.own_parts(place), trees)
        names = {name for part in place.parts for name, _ in MemoryTree(trees[part.tree]).names(part.path)}
        for name, entries in made.found(place.parts, sorted(names)).items():
            chosen = made.chosen(entries)
            if chosen[0].seen.sort is Sort.DIRECTORY:
                waiting.append(made.place(join(place.path, name), [each.part for each in chosen]))
            else:
                ((found[join(place.path, name)], _),) = chosen
    return found


def preferred(made: United, parts: Sequence[Part], trees: Sequence[Tree]) -> Part:
    match made.rules.prefer:
        case Prefer.LAST:
            return parts[-1]
        case Prefer.NEWER:
            return max(parts, key=lambda part: trees[part.tree][part.path].mtime)
        case _:
            return parts[0]


@settings(max_examples=300)
@given(
    trees=st.lists(trees_with_links(), min_size=2, max_size=3),
    prefer=st.sampled_from([*Prefer, None]),
    replace_links=st.booleans(),
)
def test_trees_unite_as_the_model_says(
    trees: list[Tree], prefer: Prefer | None, *, replace_links: bool
) -> None:
    """None stands for the rules of `add`."""
    rules = Rules(prefer or Prefer.LAST, replace_links=replace_links, keep_directories=prefer is None)
    wanted = united(trees, prefer or "last", replace_links=replace_links, add=prefer is None)
    made = put_together(trees, rules)
    assert bool(made.conflicts) == (wanted is None)
    if wanted is None:
        return
    parts = everything(made, trees)
    assert {path: trees[part.tree][part.path] for path, part in parts.items()} == wanted
    # What is hidden is missing, and everything else is there: by itself, or as a directory that unites.
    for number, tree in enumerate(trees):
        for path, item in tree.items():
            if item.kind != "dir":
                assert (Part(number, path) in made.hidden) != (Part(number, path) in parts.values())


@settings(max_examples=300)
@given(trees=st.lists(trees_with_links(), min_size=2, max_size=3), replace_links=st.booleans())
def test_what_can_be_added_becomes_what_layers_and_a_merge_by_the_last_are(
    trees: list[Tree], *, replace_links: bool
) -> None:
    adding = Rules(Prefer.LAST, replace_links=replace_links, keep_directories=True)
    added = put_together(trees, adding)
    merged = put_together(trees, Rules(Prefer.LAST, replace_links=replace_links))
    if not added.conflicts:
        assert not merged.conflicts
        assert everything(added, trees) == everything(merged, trees)


USR: Tree = {b"": DIR, b"usr": DIR, b"usr/bin": DIR, b"usr/bin/sh": Item(), b"bin": Item("link", b"usr/bin")}
APP: Tree = {b"": DIR, b"bin": DIR, b"bin/app": Item(), b"bin/plugins": DIR, b"bin/plugins/one": Item()}


@pytest.mark.parametrize("prefer", [None, *Prefer])
def test_a_directory_goes_through_a_link_whatever_is_preferred(prefer: Prefer | None) -> None:
    made = put_together([USR, APP], Rules(prefer))
    assert not made.conflicts
    assert not made.hidden
    found = everything(made, [USR, APP])
    assert found[b"bin"] == Part(0, b"bin")
    assert {b"usr/bin/sh", b"usr/bin/app", b"usr/bin/plugins/one"} < set(found)
    assert found[b"usr/bin"] == Part(0, b"usr/bin")  # whose attributes it keeps


@pytest.mark.parametrize(
    ("links", "way"),
    [
        ({b"bin": b"/usr/bin"}, True),
        ({b"bin": b"../../usr/./bin/"}, True),
        ({b"bin": b"sbin", b"sbin": b"usr/bin"}, True),
        ({b"usr/link": b"..", b"bin": b"usr/link/usr/bin"}, True),
        ({b"bin": b"bin"}, False),
        ({b"bin": b"sbin", b"sbin": b"bin"}, False),
        ({b"bin": b"gone"}, False),
        ({b"bin": b"usr/bin/sh"}, False),
        ({b"bin": b"/host/usr/bin"}, False),
    ],
)
def test_where_links_lead(links: dict[bytes, bytes], *, way: bool) -> None:
    lower = {**USR, **{path: Item("link", target) for path, target in links.items()}}
    made = put_together([lower, APP], Rules(Prefer.LAST))
    assert [conflict.why for conflict in made.conflicts.values()] == ([] if way else [Why.DEAD_LINK])
    assert made.hidden == {}
    replaced = put_together([lower, APP], Rules(Prefer.LAST, replace_links=True))
    assert list(replaced.hidden) == [Part(0, b"bin")]
    assert everything(replaced, [lower, APP])[b"bin/app"] == Part(1, b"bin/app")


def test_links_and_directories_that_the_upper_tree_brings_itself() -> None:
    lower: Tree = {b"lib64": Item("link", b"usr/lib64"), b"a": Item("link", b"b/c")}
    upper: Tree = {
        b"lib64": DIR,
        b"lib64/ld.so": Item(),
        b"usr": DIR,
        b"usr/lib64": Item("link", b"lib"),
        b"usr/lib": DIR,
        b"a": DIR,
        b"a/f": Item(),
        b"b": Item("link", b"lib64"),
        b"lib64/c": DIR,  # which is there only when lib64 has gone through its link
    }
    made = put_together([lower, upper], Rules(Prefer.LAST))
    assert not made.conflicts
    found = everything(made, [lower, upper])
    assert found[b"usr/lib/ld.so"] == Part(1, b"lib64/ld.so")
    assert found[b"usr/lib/c/f"] == Part(1, b"a/f")


@pytest.mark.parametrize("prefer", Prefer)
def test_a_link_over_a_directory(prefer: Prefer) -> None:
    made = put_together([APP, USR], Rules(prefer))
    assert [(path, clash.why) for path, clash in made.conflicts.items()] == [(b"bin", Why.FULL_DIRECTORY)]
    replaced = put_together([APP, USR], Rules(prefer, replace_links=True))
    assert not replaced.conflicts
    hidden = [Part(0, path) for path in APP if path] if prefer is Prefer.LAST else [Part(1, b"bin")]
    assert sorted(replaced.hidden) == hidden
    empty: Tree = {b"bin": DIR}
    assert not put_together([empty, USR], Rules(prefer)).conflicts


def test_a_directory_that_is_full_through_a_link_only() -> None:
    trees: list[Tree] = [
        {b"d": DIR, b"l": Item("link", b"d")},
        {b"l": DIR, b"l/f": Item()},
        {b"d": Item("link", b"e"), b"e": DIR},
    ]
    assert put_together(trees, Rules(Prefer.LAST)).conflicts[b"d"].why is Why.FULL_DIRECTORY
    assert Part(1, b"l/f") in put_together([*trees[:2], {b"d": Item()}], Rules(Prefer.LAST)).hidden


@pytest.mark.parametrize("prefer", [None, *Prefer])
def test_two_entries_of_one_tree_in_one_place_clash(prefer: Prefer | None) -> None:
    upper: Tree = {**APP, b"usr": DIR, b"usr/bin": DIR, b"usr/bin/app": Item(), b"usr/bin/plugins": DIR}
    made = put_together([USR, upper], Rules(prefer))
    (conflict,) = made.conflicts.values()
    assert (conflict.path, conflict.why, conflict.upper) == (b"usr/bin/app", Why.TWICE, Part(1, b"bin/app"))


class CountingTree(MemoryTree):
    """Counts what is looked up in it."""

    looks = 0

    def look(self, directory: bytes, names: Sequence[bytes]) -> dict[bytes, Seen]:
        self.looks += 1
        return super().look(directory, names)


def test_directories_that_wait_for_each_other_are_not_all_tried_in_each_round() -> None:
    """Each of the links leads through a directory that goes through the next."""
    count = 60
    lower: Tree = {b"": DIR, b"base": DIR, b"base/x%02d" % count: DIR}
    upper: Tree = {b"": DIR}
    for number in range(count):
        lower[b"l%02d" % number] = Item("link", b"base/x%02d/.." % (number + 1))
        upper[b"l%02d" % number] = upper[b"l%02d/x%02d" % (number, number)] = DIR
    tree = CountingTree(lower)
    made = United(Rules(Prefer.LAST), tree)
    assert len(made.put(MemoryTree(upper))) == count
    assert not made.conflicts
    assert tree.looks < 10 * count


@pytest.mark.parametrize(("links", "way"), [(40, True), (41, False)])
def test_forty_links_on_the_way_are_not_too_many(links: int, *, way: bool) -> None:
    lower: Tree = {b"": DIR, b"l%d" % links: DIR}
    for number in range(links):
        lower[b"l%d" % number] = Item("link", b"x/../" * 500 * (number % 10 == 0) + b"l%d" % (number + 1))
    tree = CountingTree({**lower, b"x": DIR})
    made = United(Rules(Prefer.LAST), tree)
    made.put(MemoryTree({b"": DIR, b"l0": DIR, b"l0/f": Item()}))
    assert [conflict.why for conflict in made.conflicts.values()] == ([] if way else [Why.DEAD_LINK])
    assert tree.looks < 60


def test_links_with_more_bytes_in_their_targets_than_a_path_may_have() -> None:
    lower: Tree = {b"": DIR, b"x": DIR, b"l": Item("link", b"x/../" * 20_000 + b"x")}
    made = put_together([lower, {b"": DIR, b"l": DIR}], Rules(Prefer.LAST))
    assert [conflict.why for conflict in made.conflicts.values()] == [Why.DEAD_LINK]


@pytest.mark.parametrize(("steps", "way"), [(30, True), (60, False)])
def test_a_directory_that_waits_is_tried_a_bounded_number_of_times(steps: int, *, way: bool) -> None:
    """Each round, in which a directory goes through a link, lets it come one step further."""
    target = b"/".join(b"base/x%02d/../.." % number for number in reversed(range(steps)))
    lower: Tree = {b"": DIR, b"base": DIR, b"a": Item("link", target)}
    upper: Tree = {b"": DIR, b"a": DIR}
    for number in range(steps):
        lower[b"l%02d" % number] = Item("link", b"base" + b"/x%02d/.." % (number + 1) * (number + 1 < steps))
        upper[b"l%02d" % number] = upper[b"l%02d/x%02d" % (number, number)] = DIR
    made = put_together([lower, upper], Rules(Prefer.LAST))
    assert list(made.conflicts) == ([] if way else [b"a"])
