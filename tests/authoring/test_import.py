"""Where entries of archives and directories go in a tree that has links, and in which order."""

from __future__ import annotations

import io
import os
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flistfs.authoring.state.journal import Journal
from flistfs.authoring.state.records import Dirent
from flistfs.errors import NoPlaceError, SourceError
from flistfs.sources.archive import TarSource
from flistfs.sources.directory import DirectorySource, Start
from tests.authoring.packing import pack
from tests.independent_reader import read_content
from tests.reading.making import DIR, Item
from tests.sources.tars import END, entry, extended, header
from tests.tree.uniting import Tree, trees_with_links, united

USR = entry(b"usr/", kind=b"5") + entry(b"usr/lib/", kind=b"5")

# Takes longer to be stored than what has no content.
BIG = bytes(range(256)) * 3000


def link(name: bytes, target: bytes) -> bytes:
    return header(name, b"2", link=target)


def hard_link(name: bytes, target: bytes) -> bytes:
    return header(name, b"1", link=target)


def tar(*parts: bytes) -> TarSource:
    return TarSource(io.BytesIO(b"".join(parts) + END), "archive")


def packed(work: Path, *parts: bytes) -> dict[bytes, bytes]:
    """Pack an archive; what the flist has, by path: its content, its target, or a slash for a directory."""
    nodes, get, _ = pack(work, tar(*parts))
    return {
        path: read_content(node, get) if node.kind == "file" else node.target or b"/"
        for path, node in nodes.items()
        if path
    }


def test_directories_that_are_not_named_are_made_once_and_give_way(tmp_path: Path) -> None:
    nodes, _, (added,) = pack(
        tmp_path,
        tar(
            entry(b"a/b/c", b"x", mtime=7),
            entry(b"a/b/d", b"y"),
            entry(b"a", kind=b"5", mode=b"0000700\0", mtime=8),
            extended(("path", b"n/" + b"n" * 255 + b"/n")) + entry(b"x"),
        ),
    )
    assert added.entries == 4
    assert (nodes[b"a"].mode, nodes[b"a"].mtime, nodes[b"a"].uid) == (0o700, 8, 0o1750)
    assert (nodes[b"a/b"].mode, nodes[b"a/b"].mtime, nodes[b"a/b"].uid) == (0o755, 7, 0)
    with pytest.raises(SourceError, match="has a name longer than 255 bytes"):
        pack(tmp_path / "long", tar(extended(("path", b"n" * 256 + b"/n")) + entry(b"x")))


@pytest.mark.parametrize(
    "links",
    [
        link(b"lib", b"usr/lib"),
        link(b"lib", b"./usr//lib/"),
        link(b"lib", b"/usr/lib"),
        link(b"lib", b"../../usr/x/../lib") + entry(b"usr/x/", kind=b"5"),
        link(b"l", b"usr/lib") + link(b"lib", b"l"),
        link(b"u", b"usr") + link(b"lib", b"u/lib"),
    ],
)
def test_entries_below_a_link_go_where_it_leads_as_in_a_root(tmp_path: Path, links: bytes) -> None:
    found = packed(tmp_path, USR, links, entry(b"lib/f", b"x"), entry(b"lib/d/g", b"y"))
    assert found[b"usr/lib/f"] == b"x"
    assert found[b"usr/lib/d/g"] == b"y"
    assert found[b"usr/lib/d"] == b"/"
    assert found[b"lib"] not in {b"/", b"x"}


def test_a_link_in_a_directory_leads_on_from_there(tmp_path: Path) -> None:
    found = packed(
        tmp_path, USR, link(b"usr/lib64", b"lib"), link(b"usr/up", b".."), entry(b"usr/up/usr/lib64/f", b"x")
    )
    assert found[b"usr/lib/f"] == b"x"


@pytest.mark.parametrize(
    "links",
    [
        link(b"lib", b"gone"),
        link(b"lib", b"usr/lib/gone"),
        link(b"lib", b"/etc"),
        entry(b"file", b"x") + link(b"lib", b"file"),
    ],
)
def test_links_that_lead_to_no_directory(tmp_path: Path, links: bytes) -> None:
    with pytest.raises(SourceError, match="lib/f: its parent is not a directory"):
        packed(tmp_path, USR, links, entry(b"lib/f", b"x"))


@pytest.mark.parametrize("links", [link(b"lib", b"lib"), link(b"lib", b"m") + link(b"m", b"lib/x")])
def test_links_in_circles(tmp_path: Path, links: bytes) -> None:
    with pytest.raises(SourceError, match="lib/f: too many links in its path"):
        packed(tmp_path, USR, links, entry(b"lib/f", b"x"))


def chain(count: int, target: bytes = b"usr") -> bytes:
    """So many links, each to the next, and the last to a directory."""
    links = [link(b"l%d" % number, b"l%d" % (number + 1)) for number in range(count - 1)]
    return b"".join(links) + link(b"l%d" % (count - 1), target)


@pytest.mark.parametrize("way", [b"l0", b"u/" * 39 + b"l39", b"u/" * 20 + b"l20"])
def test_forty_links_on_the_way_are_not_too_many(tmp_path: Path, way: bytes) -> None:
    """However they are spread over a path, and whatever of it is known from what came before."""
    links = USR + link(b"u", b"usr/..") + link(b"up", b".") + chain(40)
    assert packed(tmp_path / "forty", links, entry(way + b"/f", b"x"))[b"usr/f"] == b"x"
    more = b"up/" + way
    for number, earlier in enumerate((b"", entry(b"up/f", b"x") + entry(way + b"/f", b"x"))):
        with pytest.raises(SourceError, match="f: too many links in its path"):
            packed(tmp_path / str(number), links, earlier, entry(more + b"/f", b"x"))
    with pytest.raises(SourceError, match="h: too many links in its path"):
        packed(tmp_path / "name", links, entry(b"f", b"x"), hard_link(more + b"/h", b"f"))


def test_links_that_lead_to_and_fro_take_bounded_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def child(journal: Journal, parent: int, name: bytes) -> Dirent | None:
        nonlocal steps
        steps += 1
        return original(journal, parent, name)

    original = Journal.child
    monkeypatch.setattr(Journal, "child", child)
    links = entry(b"x/", kind=b"5") + b"".join(
        extended(("linkpath", b"x/../" * 815 + (b"l%d" % (number + 1) if number < 37 else b".")))
        + link(b"l%d" % number, b"")
        for number in range(38)
    )
    with pytest.raises(SourceError, match="too many links in its path"):
        packed(tmp_path, links, extended(("path", b"l0/" * 2000 + b"f")) + entry(b"x", b"x"))
    assert steps < 1000


def test_a_directory_replaces_a_link_and_what_came_before_stays_where_it_went(tmp_path: Path) -> None:
    """Also where what came before is still on its way to the store."""
    found = packed(
        tmp_path,
        USR,
        link(b"lib", b"usr/lib"),
        entry(b"lib/before", BIG),
        entry(b"lib/d/before", BIG),
        entry(b"lib", kind=b"5"),
        entry(b"lib/after", b"x"),
        entry(b"lib/d/after", b"x"),
        link(b"dangling", b"gone"),
        entry(b"dangling/", kind=b"5"),
    )
    assert {path for path, what in found.items() if what == b"/"} == {
        b"usr",
        b"usr/lib",
        b"usr/lib/d",
        b"lib",
        b"lib/d",
        b"dangling",
    }
    assert found[b"usr/lib/before"] == found[b"usr/lib/d/before"] == BIG
    assert found[b"lib/after"] == found[b"lib/d/after"] == b"x"
    assert len(found) == 10


def test_long_and_deep_paths(tmp_path: Path) -> None:
    """The kernel takes no path of 5,000 bytes at once, but trees have them."""
    long, deep = b"/".join([b"d" * 249] * 20), b"/".join([b"d"] * 1200)
    paths = [long, deep]
    found = packed(tmp_path, *[extended(("path", path)) + entry(b"x", b"there") for path in paths])
    assert [found[path] for path in paths] == [b"there", b"there"]
    for path, reason in (
        (long * 4, "longer than 16,384 bytes"),
        (b"d/" * 2049, "more than 2,048 directories"),
    ):
        with pytest.raises(SourceError, match=reason):
            packed(tmp_path / reason[:4], extended(("path", path)) + entry(b"x"))


def test_hard_links_to_hard_links(tmp_path: Path) -> None:
    """Each names the one before, and the file is still on its way."""
    names = [b"bin/tool", *(b"bin/alias%d" % number for number in range(6))]
    links = [hard_link(name, before) for before, name in pairwise(names)]
    found = packed(tmp_path, entry(names[0], BIG), *links)
    assert {name: found[name] for name in names} == dict.fromkeys(names, BIG)


def test_hard_links_through_links_and_to_them(tmp_path: Path) -> None:
    found = packed(
        tmp_path,
        USR,
        link(b"lib", b"usr/lib"),
        entry(b"lib/f", BIG),
        hard_link(b"one", b"usr/lib/f"),
        hard_link(b"lib/two", b"lib/f"),
        hard_link(b"three", b"lib"),
        hard_link(b"usr/lib/f", b"lib/f"),  # its own name
    )
    assert found[b"one"] == found[b"usr/lib/two"] == found[b"usr/lib/f"] == BIG
    assert found[b"three"] == b"usr/lib"


def test_a_hard_link_to_a_directory(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="x: it is a hard link to a file that does not exist"):
        packed(tmp_path, USR, hard_link(b"x", b"usr"))


def test_problems_come_in_the_order_of_the_archive(tmp_path: Path) -> None:
    bad = (
        entry(b"../a"),
        entry(b"big", BIG),
        hard_link(b"b", b"gone"),
        entry(b"c/..", b"x"),
        entry(b"f/x", BIG),
    )
    _, _, (added,) = pack(tmp_path, tar(entry(b"f"), *bad, entry(b"last")), keep_going=True)
    assert [each.path for each in added.left_out] == [
        f"archive: {name}" for name in ("../a", "b", "c/..", "f/x")
    ]
    assert added.entries == 3


def made(directory: Path, tree: Tree) -> DirectorySource:
    """Make a tree on the disk, to be added."""
    directory.mkdir()
    for path, item in tree.items():
        place = directory / os.fsdecode(path)
        if item.kind == "link":
            place.symlink_to(os.fsdecode(item.what))
        elif item.kind == "file":
            place.write_bytes(item.what)
        elif path:
            place.mkdir()
    return DirectorySource([Start(bytes(directory), b"", "source")])


@settings(max_examples=25)
@given(trees=st.lists(trees_with_links(), min_size=2, max_size=3), keep_going=st.booleans())
def test_what_is_added_is_what_the_model_says(trees: list[Tree], *, keep_going: bool) -> None:
    """As layers and merges are: `tests.tree.uniting` is the model of them all."""
    wanted = united(trees, add=True)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        sources = [made(work / f"{number}", tree) for number, tree in enumerate(trees)]
        if wanted is None and not keep_going:
            with pytest.raises(SourceError, match=r"already|twice"):
                pack(work / "out", *sources, unique=False)
            return
        nodes, get, added = pack(work / "out", *sources, unique=False, keep_going=keep_going)
        if wanted is None:
            assert any(each.left_out for each in added)
            return
        assert {path: (node.kind, node.target) for path, node in nodes.items()} == {
            path: (item.kind, item.what if item.kind == "link" else None) for path, item in wanted.items()
        }
        for path, item in wanted.items():
            assert item.kind != "file" or read_content(nodes[path], get) == item.what
        assert sum(len(each.replaced) for each in added) == sum(each.replaced_count for each in added)


def test_what_two_sources_bring_follows_one_after_the_other(tmp_path: Path) -> None:
    """The second goes through a link of the first, and has what the first goes through late."""
    first = made(tmp_path / "first", {b"": DIR, b"a": Item("link", b"b"), b"b": DIR, b"f": Item()})
    (tmp_path / "second/a/c").mkdir(parents=True)
    (tmp_path / "third/a/c").mkdir(parents=True)
    (tmp_path / "third/a/c/f").write_bytes(BIG)
    (tmp_path / "third/f").mkdir()
    both = DirectorySource([Start(bytes(tmp_path / name), b"", name) for name in ("second", "third")])
    nodes, get, (_, added) = pack(tmp_path / "out", first, both, unique=False, keep_going=True)
    assert read_content(nodes[b"b/c/f"], get) == BIG
    assert [*map(str, added.left_out)] == ["third/f: something other than a directory already exists"]


def test_a_directory_that_is_added_over_a_link_goes_where_it_leads(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "lib/d").mkdir(parents=True)
    (source / "lib/d/f").write_bytes(BIG)
    (source / "lib").chmod(0o700)
    first = tar(USR, link(b"lib", b"usr/lib"))
    nodes, get, _ = pack(
        tmp_path, first, DirectorySource([Start(bytes(source), b"", str(source))]), unique=False
    )
    assert nodes[b"lib"].kind == "link"
    assert nodes[b"usr/lib"].mode == 0o644  # its own
    assert read_content(nodes[b"usr/lib/d/f"], get) == BIG


def test_a_link_that_is_replaced_leads_elsewhere_at_once(tmp_path: Path) -> None:
    for number in (1, 3):
        (tmp_path / f"{number}/lib/d").mkdir(parents=True)
        (tmp_path / f"{number}/lib/d/f{number}").write_bytes(BIG)
    (tmp_path / "2").mkdir()
    (tmp_path / "2/lib").symlink_to("other")
    first = tar(USR, link(b"lib", b"usr/lib"), entry(b"other/", kind=b"5"))
    starts = [Start(bytes(tmp_path / f"{number}"), b"", f"{number}") for number in (1, 2, 3)]
    nodes, _, _ = pack(tmp_path, first, DirectorySource(starts), unique=False)
    assert {path for path, node in nodes.items() if node.kind == "file"} == {b"usr/lib/d/f1", b"other/d/f3"}


def test_a_directory_that_is_added_over_a_link_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "source/lib").mkdir(parents=True)
    second = DirectorySource([Start(bytes(tmp_path / "source"), b"", "source")])
    with pytest.raises(NoPlaceError) as refusal:
        pack(tmp_path, tar(link(b"lib", b"gone")), second, unique=False)
    why = "a link that does not lead to a directory already exists"
    assert str(refusal.value) == (
        f"source/lib: {why}; nothing was added: `keep_going` skips what does not fit, "
        f"`replace_links` lets a directory replace a link"
    )
    said = refusal.value.as_dict()
    assert (said["code"], said["paths"], said["count"]) == (
        "no-place",
        [{"path": "source/lib", "why": why}],
        1,
    )


def test_more_without_a_place_than_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flistfs.authoring.importing.run.MAX_PROBLEMS", 22)
    for number in range(23):
        (tmp_path / f"source/{number:02}").mkdir(parents=True)
    files = tar(*(entry(b"%02d" % number, b"x") for number in range(23)))
    second = DirectorySource([Start(bytes(tmp_path / "source"), b"", "source")])
    with pytest.raises(
        NoPlaceError, match=r", and 3 more \(`no_place` lists 22\); nothing was added"
    ) as refusal:
        pack(tmp_path, files, second, unique=False)
    assert (len(refusal.value.no_place), refusal.value.count) == (22, 23)
