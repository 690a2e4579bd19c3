"""Diff: nothing against itself, and whatever it says brings one tree to the other."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings

from flistfs.reading.diff import Change, Difference, diff
from flistfs.reading.flist import Flist
from tests.reading.making import DIR, Item, Look, change_blocks, look, looks, records_of, trees, unpacked

MANY = settings(max_examples=30)


def _applied(tree: dict[bytes, Look], differences: list[Difference], other: Flist) -> dict[bytes, Look]:
    tree = dict(tree)
    for each in differences:
        if each.change is Change.REMOVED:
            del tree[each.path]
            continue
        assert each.after is not None
        new = look(each.after)
        if each.change is Change.ADDED:
            assert each.path not in tree
            tree[each.path] = new
            continue
        # Only what it says has changed; the mode in a look has the type in it, which is not the permissions'.
        tree[each.path] = replace(tree[each.path], **{field: getattr(new, field) for field in each.fields})
    return tree


@MANY
@given(trees(), trees())
def test_a_diff_applied_brings_one_to_the_other(one: dict[bytes, Item], other: dict[bytes, Item]) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        Flist.open(unpacked(Path(directory) / "a", records_of(one))) as before,
        Flist.open(unpacked(Path(directory) / "b", records_of(other))) as after,
    ):
        differences = list(diff(before, after))
        assert _applied(looks(before), differences, after) == looks(after)
        changed = [each.path for each in differences if each.change in {Change.CONTENT, Change.METADATA}]
        assert len(changed) == len(set(changed))
        assert bool(differences) == (looks(before) != looks(after))


@MANY
@given(trees())
def test_a_tree_does_not_differ_from_itself(tree: dict[bytes, Item]) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        Flist.open(unpacked(Path(directory) / "a", records_of(tree))) as one,
    ):
        assert list(diff(one, one)) == []


def _changes(tmp_path: Path, one: dict[bytes, Item], other: dict[bytes, Item]) -> list[tuple[object, ...]]:
    with (
        Flist.open(unpacked(tmp_path / "a", records_of(one))) as before,
        Flist.open(unpacked(tmp_path / "b", records_of(other))) as after,
    ):
        return [(each.path, each.change.value, *each.fields) for each in diff(before, after)]


def test_each_kind_of_change(tmp_path: Path) -> None:
    base = Item(what=b"content")
    one = dict.fromkeys((b"same", b"content", b"mode", b"owner", b"time", b"gone", b"kind"), base)
    other = {
        b"same": base,
        b"content": replace(base, what=b"Content"),
        b"mode": replace(base, mode=0o600),
        b"owner": replace(base, uid=5),
        b"time": replace(base, mtime=5),
        b"kind": DIR,
        b"kind/below": base,
        b"new": Item("link", b"somewhere"),
    }
    assert _changes(tmp_path, one, other) == [
        (b"content", "content", "content"),
        (b"gone", "removed"),
        (b"kind", "removed"),
        (b"kind", "added"),
        (b"kind/below", "added"),
        (b"mode", "metadata", "mode"),
        (b"new", "added"),
        (b"owner", "metadata", "owner"),
        (b"time", "metadata", "mtime"),
    ]


def test_content_is_compared_by_keys_not_by_hashes(tmp_path: Path) -> None:
    """Another snappy library makes another block of the same chunk."""
    one, other = records_of({b"a": Item(what=b"x")}), records_of({b"a": Item(what=b"x")})
    change_blocks(other, b"a", lambda block: replace(block, hash=b"f" * 64))
    with (
        Flist.open(unpacked(tmp_path / "a", one)) as before,
        Flist.open(unpacked(tmp_path / "b", other)) as after,
    ):
        assert list(diff(before, after)) == []


def test_the_real_flist_does_not_differ_from_itself(real_flist: Path) -> None:
    with Flist.open(real_flist) as one, Flist.open(real_flist) as other:
        assert list(diff(one, other)) == []
