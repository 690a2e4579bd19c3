"""Opening, looking up and walking; what reads how much."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from flistfs.errors import FormatError
from flistfs.format.zeroos.records import Entry, SubDirectory
from flistfs.reading.flist import Flist
from flistfs.reading.search import Search, Selection, search
from flistfs.reading.verify import verify
from flistfs.tree.names import MAX_PATH
from flistfs.tree.node import Kind
from tests.generation1 import directory_key
from tests.reading.making import (
    DIR,
    Item,
    Records,
    add_entry,
    change_directory,
    looks,
    packed,
    records_of,
    unpacked,
)

TREE = {
    b"bin": Item("link", b"usr/bin"),
    b"usr": DIR,
    b"usr/bin": DIR,
    b"usr/bin/sh": Item("link", b"/bin/dash"),
    b"usr/bin/dash": Item(what=b"#!"),
    b"up": Item("link", b"../../../usr/./bin/"),
    b"loop": Item("link", b"loop"),
}


def test_a_package_and_its_directory_are_the_same(tmp_path: Path) -> None:
    records = records_of(TREE)
    with (
        Flist.open(packed(tmp_path / "a.flist", records)) as one,
        Flist.open(unpacked(tmp_path / "a", records)) as other,
    ):
        assert looks(one) == looks(other)
        assert set(looks(one)) == {b"", *TREE}


def test_the_user_s_directory_stays_as_it_is(tmp_path: Path) -> None:
    directory = unpacked(tmp_path / "a", records_of(TREE))
    directory.joinpath("rocksdict-config.json").write_text("what a reader must not obey")
    directory.chmod(0o555)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with Flist.open(directory) as flist:
        assert flist.find(b"usr/bin").kind is Kind.DIRECTORY
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


def test_an_unpacked_real_flist_is_read_with_its_log(tmp_path: Path, real_flist: Path) -> None:
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xzf", real_flist, "-C", tmp_path / "unpacked"], check=True)
    with Flist.open(real_flist) as one, Flist.open(tmp_path / "unpacked") as other:
        assert looks(one) == looks(other)


@pytest.mark.parametrize("with_a_pipe", [False, True])
def test_a_directory_that_is_no_flist_is_refused(tmp_path: Path, with_a_pipe: bool) -> None:  # noqa: FBT001
    (tmp_path / "directory").mkdir()
    if with_a_pipe:  # which must not be waited for
        os.mkfifo(tmp_path / "directory/CURRENT")
    with pytest.raises(FormatError, match="not an unpacked flist"):
        Flist.open(tmp_path / "directory")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"bin/dash", b"usr/bin/dash"),
        (b"/bin/sh", b"usr/bin/dash"),
        (b"up/sh", b"usr/bin/dash"),
        (b"usr/../../bin/.", b"usr/bin"),
        (b"", b""),
    ],
)
def test_links_are_followed_inside(tmp_path: Path, path: bytes, found: bytes) -> None:
    with Flist.open(unpacked(tmp_path / "a", records_of(TREE))) as flist:
        assert flist.follow(path).path == found


@pytest.mark.parametrize(
    ("path", "reason"),
    [(b"loop", "too many links"), (b"bin/no", "no 'usr/bin/no'"), (b"usr/bin/dash/x", "no ")],
)
def test_what_links_lead_nowhere_is_refused(tmp_path: Path, path: bytes, reason: str) -> None:
    with (
        Flist.open(unpacked(tmp_path / "a", records_of(TREE))) as flist,
        pytest.raises(FormatError, match=reason),
    ):
        flist.follow(path)


def test_listing_a_directory_reads_no_other_record(tmp_path: Path) -> None:
    records = records_of(TREE)
    records[directory_key(b"usr")] = b"no record"
    with Flist.open(unpacked(tmp_path / "a", records)) as flist:
        assert [entry.name for entry in flist.entries(b"")] == [b"bin", b"loop", b"up", b"usr"]
        with pytest.raises(FormatError, match="malformed directory"):
            list(flist.children(b""))


def test_a_name_many_times_over_is_walked_into_once(tmp_path: Path) -> None:
    tree = {b"/".join([b"d"] * depth): DIR for depth in range(1, 20)}
    records = records_of(tree)
    for path in tree:
        again = Entry(b"d", 0, SubDirectory(directory_key(path)), b"", 0, 0)
        for _ in range(3):
            add_entry(records, path.rpartition(b"/")[0], again)
    with Flist.open(unpacked(tmp_path / "a", records)) as flist:
        # Walked into each time they would be 4 to the power of 19.
        assert len(list(flist.walk(flist.find(b"")))) == 4 * 19


def test_a_tree_deeper_than_python_s_stack(tmp_path: Path) -> None:
    tree = {b"/".join([b"d"] * depth): DIR for depth in range(1, 1500)}
    with Flist.open(unpacked(tmp_path / "a", records_of(tree))) as flist:
        nodes = list(flist.walk(flist.find(b"")))
        assert len(nodes) == 1499
        assert len(list(flist.walk(flist.find(b""), depth=7))) == 7
        assert len(list(flist.walk(nodes[1000]))) == 498


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Search(name="*sh"), [b"usr/bin/dash", b"usr/bin/sh"]),
        (Search(kinds=frozenset({Kind.DIRECTORY})), [b"usr", b"usr/bin"]),
        (Search(min_size=2), [b"usr/bin/dash"]),
        (Search(max_size=1), []),
        (Search(name="[du]*", kinds=frozenset({Kind.LINK})), [b"up"]),
    ],
)
def test_search(tmp_path: Path, wanted: Search, found: list[bytes]) -> None:
    with Flist.open(unpacked(tmp_path / "a", records_of(TREE))) as flist:
        assert [node.path for node in search(flist, flist.find(b""), wanted)] == found


@pytest.mark.parametrize(
    ("patterns", "matches"),
    [
        (["*.conf"], [b"etc/a.conf", b"etc/x\ny/b.conf"]),
        (["/etc/*.conf"], [b"etc/a.conf"]),
        (["etc"], [b"etc", b"etc/a.conf", b"etc/x\ny", b"etc/x\ny/b.conf"]),
        (["etc/**/b.conf"], [b"etc/x\ny/b.conf"]),
        (["*.conf", "!b.*"], [b"etc/a.conf"]),
        (["etc/a.conf/"], []),
    ],
)
def test_patterns_are_those_of_gitignore(tmp_path: Path, patterns: list[str], matches: list[bytes]) -> None:
    tree = {b"etc": DIR, b"etc/a.conf": Item(), b"etc/x\ny": DIR, b"etc/x\ny/b.conf": Item()}
    selection = Selection(patterns)
    with Flist.open(unpacked(tmp_path / "a", records_of(tree))) as flist:
        assert [node.path for node in flist.walk(flist.find(b"")) if selection.matches(node)] == matches


def test_a_record_that_lies_about_its_length_is_refused_by_its_head_too(tmp_path: Path) -> None:
    records = records_of(TREE)
    change_directory(records, b"usr", lambda found: replace(found, name=b"x" * 1000))
    records[directory_key(b"usr")] = records[directory_key(b"usr")][:64]
    with (
        Flist.open(unpacked(tmp_path / "a", records)) as flist,
        pytest.raises(FormatError, match="malformed directory"),
    ):
        flist.directory(b"usr")


def _with_entry(name: bytes, parent: bytes = b"usr") -> Records:
    records = records_of(TREE)
    add_entry(records, parent, Entry(name, 0, SubDirectory(directory_key(parent)), b"", 0, 0))
    return records


@pytest.mark.parametrize("name", [b"", b".", b"..", b"/", b"bin/x", b"x\0", b"n" * 256])
def test_a_walk_ends_at_a_name_that_is_none(tmp_path: Path, name: bytes) -> None:
    # A directory without a name has its parent's path: who walked into it never came out.
    left_out: list[bytes] = []
    with Flist.open(unpacked(tmp_path / "a", _with_entry(name))) as flist:
        with pytest.raises(FormatError, match=r"^usr is damaged: of its entry"):
            list(flist.walk(flist.find(b"")))
        nodes = flist.children(
            b"usr", leave_out=lambda node, _: left_out.append(node.path.removeprefix(b"usr/"))
        )
        assert [node.path for node in nodes] == [b"usr/bin"]
    assert left_out == [name]


def test_what_is_found_has_a_name(tmp_path: Path) -> None:
    records = _with_entry(b"..")
    records[directory_key(b"usr/..")] = records[directory_key(b"usr")]
    with (
        Flist.open(unpacked(tmp_path / "a", records)) as flist,
        pytest.raises(FormatError, match=r"no 'usr/\.\.'"),
    ):
        flist.find(b"usr/..")


def test_a_walk_ends_where_a_path_is_too_long(tmp_path: Path) -> None:
    names = [b"d" * 255] * (MAX_PATH // 256) + [b"e" * 255, b"f"]
    paths = [b"/".join(names[: level + 1]) for level in range(len(names))]
    tree = dict.fromkeys(paths, DIR)
    with Flist.open(unpacked(tmp_path / "a", records_of(tree))) as flist:
        with pytest.raises(FormatError, match="more than 65536"):
            list(flist.walk(flist.find(b"")))
        assert "more than 65536" in verify(flist, None).faults[0].what


def test_a_record_of_another_path_is_not_walked_into(tmp_path: Path) -> None:
    records = records_of(TREE)
    change_directory(records, b"usr/bin", lambda found: replace(found, location=b"usr"))
    with Flist.open(unpacked(tmp_path / "a", records)) as flist:
        for look in (flist.directory, flist.entries, flist.find):
            with pytest.raises(FormatError, match=r"usr/bin is damaged: its record belongs to another path"):
                look(b"usr/bin")
