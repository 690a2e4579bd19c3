"""Merge: unions, clashes, preferences; what comes out is an flist that a strict reader takes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flistfs.errors import FormatError, OutputError
from flistfs.format import limits
from flistfs.format.keys import aci_key, directory_key
from flistfs.format.records import encode_aci
from flistfs.format.router import parse_router
from flistfs.reading.flist import Flist
from flistfs.reading.merge import Merged, PathsClashError, Prefer, Source, merge
from flistfs.reading.verify import verify
from tests.independent_reader import read_flist
from tests.reading.making import (
    DIR,
    Item,
    Look,
    Records,
    Tree,
    change_entry,
    looks,
    packed,
    records_of,
    trees,
    unpacked,
    without,
)

MANY = settings(max_examples=20)

SETTLED = ("first", "last", "newer")


def merged(
    folder: Path, all_records: Sequence[Records], prefer: str | None = None, *, force: bool = False
) -> dict[bytes, Look]:
    """Merge flists with these records, check the result with other readers, and return what is in it."""
    names = [unpacked(folder / f"{number}", records) for number, records in enumerate(all_records)]
    sources = [Source(name.name, Flist.open(name)) for name in names]
    try:
        merge(sources, folder / "out.flist", prefer=Prefer(prefer) if prefer else None, force=force)
    finally:
        for source in sources:
            source.flist.close()
    nodes = read_flist(folder / "out.flist", engine="rocksdict")
    with Flist.open(folder / "out.flist") as flist:
        assert verify(flist, None).faults == []
        found = looks(flist)
    assert {path: (node.mode, node.mtime, node.uid, node.gid) for path, node in nodes.items()} == {
        path: (look.mode & 0o7777, look.mtime, *(look.owner or ())[2:]) for path, look in found.items()
    }
    return found


def looks_of(tree: Tree) -> dict[bytes, Look]:
    with (
        tempfile.TemporaryDirectory() as folder,
        Flist.open(unpacked(Path(folder) / "a", records_of(tree))) as flist,
    ):
        return looks(flist)


# A slower and plainer way to the same, on trees in memory.


def union(all_trees: Sequence[Tree], prefer: str) -> dict[bytes, Item]:
    found: dict[bytes, Item] = {}
    paths = sorted({path for tree in all_trees for path in tree})
    alive = {b"": list(all_trees)}  # by directory: the trees that unite there
    for path in paths:
        parent = path.rpartition(b"/")[0]
        have = [tree for tree in alive.get(parent, []) if path in tree] if path else list(all_trees)
        if not have:
            continue
        items = [tree[path] for tree in have]
        winner = {
            "first": items[0],
            "last": items[-1],
            "newer": next(item for item in items if item.mtime == max(each.mtime for each in items)),
        }[prefer]
        if winner.kind == "dir":
            united = [tree for tree in have if tree[path].kind == "dir"]
            alive[path] = united
            winner = union_folder([tree[path] for tree in united], prefer)
        found[path] = winner
    return found


def union_folder(items: Sequence[Item], prefer: str) -> Item:
    if prefer == "newer":
        return next(item for item in items if item.mtime == max(each.mtime for each in items))
    return items[0] if prefer == "first" else items[-1]


@MANY
@given(st.lists(trees(), min_size=1, max_size=3), st.sampled_from(SETTLED))
def test_a_preferred_union(all_trees: list[dict[bytes, Item]], prefer: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = merged(Path(folder), [records_of(tree) for tree in all_trees], prefer)
    assert found == looks_of(union(all_trees, prefer))


@MANY
@given(trees(st.sampled_from([b"a", b"b"])), trees(st.sampled_from([b"c", b"d"])))
def test_disjoint_trees_become_their_union(one: dict[bytes, Item], other: dict[bytes, Item]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = merged(Path(folder), [records_of(one), records_of(other)])
    assert found == looks_of({**other, **one})


@MANY
@given(trees(), trees())
def test_clashes_are_all_paths_that_both_have_but_directories(
    one: dict[bytes, Item], other: dict[bytes, Item]
) -> None:
    def is_clash(path: bytes) -> bool:
        # Below a clash of a file with a directory there is nothing that both have.
        return path in other and (one[path].kind, other[path].kind) != ("dir", "dir")

    wanted = {path for path in one if is_clash(path)}
    with tempfile.TemporaryDirectory() as folder:
        records = [records_of(one), records_of(other)]
        if not wanted:
            merged(Path(folder), records)
            return
        with pytest.raises(PathsClashError) as caught:
            merged(Path(folder), records)
        assert [clash.path for clash in caught.value.clashes] == sorted(wanted)
        assert not (Path(folder) / "out.flist").exists()


@pytest.mark.parametrize(("prefer", "kind"), [("first", "file"), ("last", "directory"), ("newer", "file")])
def test_a_file_against_directories(tmp_path: Path, prefer: str, kind: str) -> None:
    file = records_of({b"x": Item(mtime=9)})
    folders = [
        records_of({b"x": replace(DIR, mtime=3), b"x/a": Item()}),
        records_of({b"x": replace(DIR, mtime=5), b"x/b": Item()}),
    ]
    found = merged(tmp_path, [file, *folders], prefer)
    assert found[b"x"].kind == kind
    assert set(found) == ({b"", b"x"} if kind == "file" else {b"", b"x", b"x/a", b"x/b"})


def test_acis_that_share_a_key_do_not_mix(tmp_path: Path) -> None:
    """A key covers neither ids nor all bits: each flist can mean another ACI by it."""
    tree = {b"d": DIR, b"f": Item(mode=0o755)}
    other = records_of({b"e": DIR, b"g": Item(mode=0o755)})
    for aci, bits in ((DIR.aci, 0o041777), (tree[b"f"].aci, 0o104755)):
        assert aci_key(aci) in other
        other[aci_key(aci)] = encode_aci(replace(aci, mode=bits, uid=77, gid=78))
    found = merged(tmp_path, [records_of(tree), other])
    assert {path: (look.mode & 0o7777, look.owner) for path, look in found.items() if path} == {
        b"d": (0o755, (b"root", b"root", 0, 0)),
        b"f": (0o755, (b"root", b"root", 0, 0)),
        b"e": (0o1777, (b"root", b"root", 77, 78)),
        b"g": (0o4755, (b"root", b"root", 77, 78)),
    }


def test_equal_flists_make_equal_packages(tmp_path: Path) -> None:
    records = records_of({b"a": Item(what=b"x"), b"d": DIR, b"d/e": Item("link", b"f")})
    merged(tmp_path, [records])
    once = (tmp_path / "out.flist").read_bytes()
    merged(tmp_path / "again", [records, records], "last")
    assert (tmp_path / "again/out.flist").read_bytes() == once
    assert once == packed(tmp_path / "b.flist", records).read_bytes()


def test_an_output_is_replaced_only_by_force(tmp_path: Path) -> None:
    records = records_of({b"a": Item()})
    (tmp_path / "out.flist").write_text("mine")
    with pytest.raises(OutputError, match="exists"):
        merged(tmp_path, [records])
    assert (tmp_path / "out.flist").read_text() == "mine"
    merged(tmp_path, [records], force=True)
    assert sorted(path.name for path in tmp_path.glob("*out*")) == ["out.flist"]
    assert not list(tmp_path.glob(".*"))


def test_faults_do_not_get_into_the_output(tmp_path: Path) -> None:
    records = records_of({b"a": Item(what=b"x"), b"d": DIR})
    change_entry(records, b"a", lambda entry: replace(entry, size=0))
    broken = without(records_of({b"d": DIR}), directory_key(b"d"))
    for number, faulty in enumerate([records, broken]):
        with pytest.raises(FormatError, match="has faults"):
            merged(tmp_path / f"{number}", [records_of({b"z": Item()}), faulty])
        assert not (tmp_path / f"{number}/out.flist").exists()


ROUTER = b"pools:\n  %b:\n    00:FF: ardb://%b:1000\nlookup: [%b]\n"


def test_directories_that_have_too_much_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [records_of({b"d": DIR, b"d/%d" % part: Item(what=b"content")}) for part in range(4)]
    size = len(
        records_of({b"d": DIR, **{b"d/%d" % n: Item(what=b"content") for n in range(4)}})[directory_key(b"d")]
    )
    monkeypatch.setattr(limits, "MAX_RECORD", size)
    assert b"d/3" in merged(tmp_path / "fits", parts)
    monkeypatch.setattr(limits, "MAX_RECORD", size - 1)
    with pytest.raises(OutputError, match="the directory d has too much in it"):
        merged(tmp_path / "not", parts)
    assert not (tmp_path / "not/out.flist").exists()


def _with_router(folder: Path, name: bytes, host: bytes | None) -> Source:
    router = None if host is None else ROUTER % (b"main", host, b"main")
    package = packed(folder / f"{os.fsdecode(name)}.flist", records_of({name: Item()}), router)
    return Source(package.name, Flist.open(package))


def _merged_routers(folder: Path, *hosts: bytes | None) -> tuple[Merged, Flist]:
    sources = [_with_router(folder, b"%d" % number, host) for number, host in enumerate(hosts)]
    result = merge(sources, folder / "out.flist")
    for source in sources:
        source.flist.close()
    return result, Flist.open(folder / "out.flist")


def test_routers_unite(tmp_path: Path) -> None:
    result, flist = _merged_routers(tmp_path, b"one", b"two", b"one")
    with flist:
        router = flist.router()
    assert router is not None
    assert router.urls(b"ab" * 32) == ["ardb://one:1000", "ardb://two:1000"]
    assert router.lookup == ("main", "main-2")
    assert result.notes == []


def test_passwords_of_routers_are_left_out(tmp_path: Path) -> None:
    result, flist = _merged_routers(tmp_path, b"secret@one", None)
    with flist:
        router = flist.router()
    assert router == parse_router(ROUTER % (b"main", b"one", b"main"))
    assert result.notes == [
        "the router of 0.flist has passwords, which are left out",
        "1.flist has no router: the pools of the others must have its blocks as well",
    ]


def test_without_routers_there_is_none(tmp_path: Path) -> None:
    result, flist = _merged_routers(tmp_path, None, None)
    with flist:
        assert flist.router() is None
    assert result.notes == []


def test_the_real_flist_stays_what_it_is(tmp_path: Path, real_flist: Path) -> None:
    with Flist.open(real_flist) as flist:
        addition = Flist.open(unpacked(tmp_path / "a", records_of({b"etc": DIR, b"etc/new-file": Item()})))
        with addition:
            result = merge([Source("real", flist), Source("new", addition)], tmp_path / "out.flist")
        before = looks(flist)
    with Flist.open(tmp_path / "out.flist") as flist:
        after = looks(flist)
    assert after.pop(b"etc/new-file").kind == "file"
    assert after == before
    assert result.size == sum(look.content[0] for look in before.values() if isinstance(look.content, tuple))
