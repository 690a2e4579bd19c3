"""Merge: unions, clashes, preferences; what comes out is an flist that a strict reader takes."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flistfs.errors import FormatError, OutputError
from flistfs.format.router import parse_router
from flistfs.format.zeroos import limits
from flistfs.format.zeroos.records import encode_aci
from flistfs.reading.flist import Flist
from flistfs.reading.merge import Merged, PathsClashError, Source, merge
from flistfs.reading.verify import verify
from flistfs.tree.rules import Prefer
from tests.generation1 import aci_key, directory_key
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
from tests.tree.uniting import trees_with_links, united

MANY = settings(max_examples=20)

SETTLED = ("first", "last", "newer")


def merged(
    directory: Path,
    all_records: Sequence[Records],
    prefer: str | None = None,
    *,
    replace_links: bool = False,
    force: bool = False,
) -> dict[bytes, Look]:
    """Merge flists with these records, check the result with other readers, and return what is in it."""
    names = [unpacked(directory / f"{number}", records) for number, records in enumerate(all_records)]
    sources = [Source(name.name, Flist.open(name)) for name in names]
    try:
        merge(
            sources,
            directory / "out.flist",
            prefer=Prefer(prefer) if prefer else None,
            replace_links=replace_links,
            force=force,
        )
    finally:
        for source in sources:
            source.flist.close()
    nodes = read_flist(directory / "out.flist", engine="rocksdict")
    with Flist.open(directory / "out.flist") as flist:
        assert verify(flist, None).faults == []
        found = looks(flist)
    assert {path: (node.mode, node.mtime, node.uid, node.gid) for path, node in nodes.items()} == {
        path: (look.mode & 0o7777, look.mtime, *(look.owner or ())[2:]) for path, look in found.items()
    }
    return found


def looks_of(tree: Tree) -> dict[bytes, Look]:
    with (
        tempfile.TemporaryDirectory() as directory,
        Flist.open(unpacked(Path(directory) / "a", records_of(tree))) as flist,
    ):
        return looks(flist)


@settings(max_examples=40)
@given(
    all_trees=st.lists(trees() | trees_with_links(), min_size=1, max_size=3),
    prefer=st.sampled_from(SETTLED),
    replace_links=st.booleans(),
)
def test_a_preferred_union(all_trees: list[dict[bytes, Item]], prefer: str, *, replace_links: bool) -> None:
    wanted = united(all_trees, prefer, replace_links=replace_links)
    all_records = [records_of(tree) for tree in all_trees]
    with tempfile.TemporaryDirectory() as directory:
        if wanted is None:
            with pytest.raises(PathsClashError, match="`replace_links`"):
                merged(Path(directory), all_records, prefer, replace_links=replace_links)
            return
        found = merged(Path(directory), all_records, prefer, replace_links=replace_links)
    assert found == looks_of(wanted)


@MANY
@given(trees(st.sampled_from([b"a", b"b"])), trees(st.sampled_from([b"c", b"d"])))
def test_disjoint_trees_become_their_union(one: dict[bytes, Item], other: dict[bytes, Item]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        found = merged(Path(directory), [records_of(one), records_of(other)])
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
    assume(all({one[path].kind, other[path].kind} != {"dir", "link"} for path in wanted))
    with tempfile.TemporaryDirectory() as directory:
        records = [records_of(one), records_of(other)]
        if not wanted:
            merged(Path(directory), records)
            return
        with pytest.raises(PathsClashError) as caught:
            merged(Path(directory), records)
        assert [clash.path for clash in caught.value.clashes] == sorted(wanted)
        assert not (Path(directory) / "out.flist").exists()


@pytest.mark.parametrize(("prefer", "kind"), [("first", "file"), ("last", "directory"), ("newer", "file")])
def test_a_file_against_directories(tmp_path: Path, prefer: str, kind: str) -> None:
    file = records_of({b"x": Item(mtime=9)})
    directories = [
        records_of({b"x": replace(DIR, mtime=3), b"x/a": Item()}),
        records_of({b"x": replace(DIR, mtime=5), b"x/b": Item()}),
    ]
    found = merged(tmp_path, [file, *directories], prefer)
    assert found[b"x"].kind == kind
    assert set(found) == ({b"", b"x"} if kind == "file" else {b"", b"x", b"x/a", b"x/b"})


def test_a_file_in_between_hides_what_is_below_it(tmp_path: Path) -> None:
    """Merged by the last, flists are what layers are."""
    directory, file = {b"x": DIR, b"x/a": Item()}, {b"x": Item()}
    found = merged(tmp_path, [records_of(directory), records_of(file), records_of({b"x": DIR})], "last")
    assert set(found) == {b"", b"x"}


USR = {
    b"usr": DIR,
    b"usr/bin": replace(DIR, mode=0o555, mtime=7),
    b"usr/bin/sh": Item(),
    b"bin": Item("link", b"usr/bin", mode=0o777),
}
APP = {b"bin": replace(DIR, mtime=9), b"bin/app": Item(), b"bin/sub": DIR, b"bin/sub/one": Item()}


@pytest.mark.parametrize("prefer", [None, *SETTLED])
def test_a_directory_goes_through_a_link(tmp_path: Path, prefer: str | None) -> None:
    """An app with a bin on a root with a merged /usr: nothing of either is lost."""
    found = merged(tmp_path, [records_of(USR), records_of(APP)], prefer)
    app = {b"usr/" + path: item for path, item in APP.items() if path != b"bin"}
    assert found == looks_of({**USR, **app})


DEAD = (
    "bin is in 0 (link) and 1 (directory): the link does not lead to a directory; "
    "`replace_links` lets one replace the other"
)
FULL = (
    "bin is in 0 (directory) and 1 (link): a link does not replace a directory that is not empty; "
    "name the flists in another order, if that link leads to a directory, or `replace_links` lets one "
    "replace the other"
)


@pytest.mark.parametrize("prefer", [None, *SETTLED])
@pytest.mark.parametrize(
    ("lower", "upper", "said"),
    [
        (APP, USR, FULL),
        ({b"bin": Item("link", b"gone")}, APP, DEAD),
        ({b"bin": Item("link", b"bin")}, APP, DEAD),
        ({b"bin": Item("link", b"f"), b"f": Item()}, APP, DEAD),
    ],
    ids=["over content", "to nothing", "to itself", "to a file"],
)
def test_a_link_against_a_directory_that_it_does_not_lead_to(
    tmp_path: Path, prefer: str | None, lower: Tree, upper: Tree, said: str
) -> None:
    with pytest.raises(PathsClashError) as caught:
        merged(tmp_path, [records_of(lower), records_of(upper)], prefer)
    (clash,) = caught.value.clashes
    assert (clash.path, {kind for _, kind in clash.found}) == (b"bin", {"directory", "link"})
    assert str(caught.value) == said
    assert not (tmp_path / "out.flist").exists()


@pytest.mark.parametrize("prefer", [None, *SETTLED])
def test_two_entries_of_one_flist_in_one_place(tmp_path: Path, prefer: str | None) -> None:
    upper = {**APP, b"usr": DIR, b"usr/bin": DIR, b"usr/bin/app": Item()}
    with pytest.raises(PathsClashError) as caught:
        merged(tmp_path, [records_of({b"other": DIR}), records_of(USR), records_of(upper)], prefer)
    (clash,) = caught.value.clashes
    assert (clash.path, clash.found) == (b"usr/bin/app", (("2", "file"), ("2", "file")))
    assert str(caught.value) == (
        "usr/bin/app in 2: it would exist twice, through a link, as usr/bin/app and as bin/app; "
        "`replace_links` lets one replace the other"
    )


@pytest.mark.parametrize("prefer", SETTLED)
def test_a_link_is_replaced_when_that_is_wanted(tmp_path: Path, prefer: str) -> None:
    records = [records_of(USR), records_of(APP)]
    with pytest.raises(PathsClashError, match=r"bin is in .*; choose with `prefer` first, last or newer"):
        merged(tmp_path / "unsaid", records, replace_links=True)
    found = merged(tmp_path, records, prefer, replace_links=True)
    if prefer == "last":
        assert found == looks_of({**USR, **APP})
    else:
        assert found == looks_of(USR)


@pytest.mark.parametrize(
    ("prefer", "hidden"),
    [("first", {"1": [b"x", b"y", b"y/in"]}), ("last", {"0": [b"x", b"y"]}), ("newer", {"0": [b"x", b"y"]})],
)
def test_what_is_hidden_is_named(tmp_path: Path, prefer: str, hidden: dict[str, list[bytes]]) -> None:
    lower = records_of({b"x": Item(mtime=1), b"y": Item(mtime=1), b"z": DIR})
    upper = records_of({b"x": Item(mtime=2), b"y": replace(DIR, mtime=2), b"y/in": Item(), b"z": DIR})
    names = [unpacked(tmp_path / f"{number}", records) for number, records in enumerate((lower, upper))]
    with Flist.open(names[0]) as one, Flist.open(names[1]) as other:
        sources = [Source("0", one), Source("1", other)]
        result = merge(sources, tmp_path / "out.flist", prefer=Prefer(prefer))
    assert result.hidden == hidden
    assert result.clashes == 2


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
    with pytest.raises(OutputError, match="the directory d of the tree is too large for an flist"):
        merged(tmp_path / "not", parts)
    assert not (tmp_path / "not/out.flist").exists()


def _with_router(directory: Path, name: bytes, host: bytes | None) -> Source:
    router = None if host is None else ROUTER % (b"main", host, b"main")
    package = packed(directory / f"{os.fsdecode(name)}.flist", records_of({name: Item()}), router)
    return Source(package.name, Flist.open(package))


def _merged_routers(directory: Path, *hosts: bytes | None) -> tuple[Merged, Flist]:
    sources = [_with_router(directory, b"%d" % number, host) for number, host in enumerate(hosts)]
    result = merge(sources, directory / "out.flist")
    for source in sources:
        source.flist.close()
    return result, Flist.open(directory / "out.flist")


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
        "the router of 0.flist contains passwords, which were removed",
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
    with Flist.open(real_flist) as flist:
        assert result.size == sum(node.size for node in flist.files())
