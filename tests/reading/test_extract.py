"""Extract: nothing leaves the directory, nothing that exists is written to, everything is as in the flist."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flistfs.errors import BlockCorruptError, BlockMissingError, FlistfsError, FormatError, OutputError
from flistfs.format.zeroos.records import Aci, Entry, File, Link, SubDirectory, encode_aci
from flistfs.reading import extract as extract_module
from flistfs.reading.content import read
from flistfs.reading.extract import Extracted, extract
from flistfs.reading.flist import Flist
from flistfs.reading.search import Selection
from flistfs.stores import Store
from flistfs.tree.chunks import CHUNK_SIZE
from tests.e2e.commands import let_others_reach
from tests.reading.making import (
    DIR,
    Item,
    Records,
    Tree,
    add_entry,
    change_blocks,
    change_entry,
    records_of,
    unpacked,
)

BIG = os.urandom(1000) + bytes(3 * CHUNK_SIZE) + os.urandom(CHUNK_SIZE)

TREE = {
    b"": Item("dir", mode=0o750, mtime=7),
    b"etc": Item("dir", mode=0o555, mtime=8),
    b"etc/a.conf": Item(what=b"a", mode=0o400, mtime=9),
    b"etc/sub": Item("dir", mode=0o1777, mtime=10),
    b"etc/sub/b.conf": Item(what=b"b", mtime=11),
    b"etc/sub/c": Item(what=b"c"),
    b"big": Item(what=BIG, mode=0o4755),
    b"zeros": Item(what=bytes(2 * CHUNK_SIZE)),
    b"link": Item("link", b"/etc/passwd", mtime=12),
    b"pipe": Item("fifo", mode=0o622),
}

AS_ROOT = os.geteuid() == 0


def _extracted(
    directory: Path, records: Records, store: Store, only: Selection | None = None, *, devices: bool = True
) -> Extracted:
    with Flist.open(unpacked(directory / "unpacked", records)) as flist:
        return extract(flist, store, directory / "out", only=only, devices=devices)


def _owned_by_me(tree: Tree) -> dict[bytes, Item]:
    return {path: replace(item, uid=os.geteuid(), gid=os.getegid()) for path, item in tree.items()}


def test_everything_is_as_in_the_flist(tmp_path: Path, store: Store) -> None:
    found = _extracted(tmp_path, records_of(_owned_by_me(TREE), store), store)
    assert found == Extracted(files=5, directories=3, links=1, specials=1, size=3 + len(BIG) + 2 * CHUNK_SIZE)
    out = tmp_path / "out"
    assert {os.fsencode(path.relative_to(out)) for path in out.rglob("*")} == set(TREE) - {b""}
    for path, item in TREE.items():
        status = (out / os.fsdecode(path)).lstat()
        assert status.st_mtime_ns == item.mtime * 10**9, path
        assert item.kind == "link" or stat.S_IMODE(status.st_mode) == item.mode, path
        if item.kind == "file":
            assert (out / os.fsdecode(path)).read_bytes() == item.what
    assert (out / "link").readlink() == Path("/etc/passwd")
    assert stat.S_ISFIFO((out / "pipe").lstat().st_mode)


def test_zeros_become_holes_and_need_no_block(tmp_path: Path, store: Store) -> None:
    records = records_of({b"zeros": Item(what=bytes(4 * CHUNK_SIZE))})
    _extracted(tmp_path, records, store)
    assert (tmp_path / "out/zeros").stat().st_blocks == 0
    assert (tmp_path / "out/zeros").read_bytes() == bytes(4 * CHUNK_SIZE)


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["*.conf"], {"etc", "etc/a.conf", "etc/sub", "etc/sub/b.conf"}),
        (["/etc/sub"], {"etc", "etc/sub", "etc/sub/b.conf", "etc/sub/c"}),
        (["link", "pipe"], {"link", "pipe"}),
        (["etc", "!sub/"], {"etc", "etc/a.conf"}),
    ],
)
def test_only_what_is_wanted(tmp_path: Path, store: Store, patterns: list[str], found: set[str]) -> None:
    records = records_of(_owned_by_me(TREE), store)
    _extracted(tmp_path, records, store, Selection(patterns))
    out = tmp_path / "out"
    assert {str(path.relative_to(out)) for path in out.rglob("*")} == found
    for path in found:  # directories on the way too
        assert (out / path).lstat().st_mtime_ns == TREE[path.encode()].mtime * 10**9


def test_patterns_that_match_nothing_are_refused(tmp_path: Path, store: Store) -> None:
    with pytest.raises(FormatError, match="match no path"):
        _extracted(tmp_path, records_of(TREE, store), store, Selection(["*.no"]))
    assert not (tmp_path / "out").exists()


def _evil_entry(name: bytes, attributes: File | Link | SubDirectory) -> Records:
    records = records_of({b"file": Item(), b"d": DIR, b"d/inside": Item()})
    with_file = records_of({b"x": Item()})
    (key,) = (key for key in with_file if len(key) == 32 and key not in records_of({}))
    add_entry(records, b"", Entry(name, 0, attributes, key, 0, 0))
    return records


@pytest.mark.parametrize("name", [b"..", b".", b"../up", b"/abs", b"d/x", b"", b"n\0", b"n" * 256])
def test_names_that_lead_elsewhere_are_refused_before_anything_is_made(
    tmp_path: Path, store: Store, name: bytes
) -> None:
    with pytest.raises(FormatError, match="is damaged: of its entry"):
        _extracted(tmp_path, _evil_entry(name, File(())), store)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [-2, 2**32 - 1, 2**32, 2**63 - 1])
def test_owners_that_no_account_can_be_are_refused(tmp_path: Path, store: Store, number: int) -> None:
    records = records_of({b"file": Item(), b"link": Item("link", b"file")})
    records[b"1" * 32] = encode_aci(Aci(b"", b"", 0o104755, uid=number, gid=0))
    change_entry(records, b"link", lambda entry: replace(entry, aclkey=b"1" * 32))
    with pytest.raises(FormatError, match="link cannot be created: its user has the number"):
        _extracted(tmp_path, records, store)
    assert not (tmp_path / "out").exists()


def test_no_directory_is_reached_from_the_top(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = [b"/".join([b"d"] * level) for level in range(1, 201)]
    tree = {path: item for level in levels for path, item in ((level, DIR), (level + b"/z", Item()))}
    records = records_of(tree, store)
    steps: list[bytes] = []
    real_enter = extract_module._Directories._enter

    def enter(self: extract_module._Directories, name: bytes) -> None:
        steps.append(name)
        real_enter(self, name)

    monkeypatch.setattr(extract_module._Directories, "_enter", enter)
    assert _extracted(tmp_path, records, store).directories == 201
    assert steps == [b"d"] * 200 + [b".."] * 200


def test_a_link_and_a_directory_of_one_name_are_refused(tmp_path: Path, store: Store) -> None:
    (tmp_path / "elsewhere").mkdir()
    records = _evil_entry(b"d", Link(os.fsencode(tmp_path / "elsewhere")))
    with pytest.raises(FormatError, match="twice"):
        _extracted(tmp_path, records, store)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_link_that_appears_in_the_way_is_not_followed(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else puts links where directories were made a moment ago."""
    (tmp_path / "elsewhere").mkdir()
    records = records_of({b"d": DIR, b"d/inside": Item()})
    unpacked(tmp_path / "unpacked", records)
    (tmp_path / "out").mkdir()
    make = os.mkdir

    def make_and_replace(name: bytes, mode: int, *, dir_fd: int | None = None) -> None:
        make(name, mode, dir_fd=dir_fd)
        if dir_fd is None:
            return  # a temporary directory, or the top one
        os.rmdir(name, dir_fd=dir_fd)
        os.symlink(os.fsencode(tmp_path / "elsewhere"), name, dir_fd=dir_fd)

    with Flist.open(tmp_path / "unpacked") as flist, monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", make_and_replace)
        with pytest.raises(OutputError, match="out/d/inside cannot be created"):
            extract(flist, store, tmp_path / "out")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_directory_with_something_in_it_is_refused(tmp_path: Path, store: Store) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        _extracted(tmp_path, records_of(TREE, store), store)
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out/mine"]


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path, store: Store) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="not a directory"):
        _extracted(tmp_path, records_of(TREE, store), store)


def _without_blocks(records: Records, path: bytes) -> None:
    change_blocks(records, path, lambda block: replace(block, hash=b"0" * 64))


def _wrong_key(records: Records, path: bytes) -> None:
    change_blocks(records, path, lambda block: replace(block, key=b"0" * 64))


def _short(records: Records, path: bytes) -> None:
    change_entry(records, path, lambda entry: replace(entry, size=entry.size - 1))


@pytest.mark.parametrize(
    ("change", "error"),
    [(_without_blocks, BlockMissingError), (_wrong_key, BlockCorruptError), (_short, BlockCorruptError)],
)
def test_content_that_is_not_there_is_an_error_that_names_the_file(
    tmp_path: Path, store: Store, change: Callable[[Records, bytes], None], error: type[FlistfsError]
) -> None:
    records = records_of(TREE, store)
    change(records, b"big")
    with pytest.raises(error, match="big cannot be read"):
        _extracted(tmp_path, records, store)


def test_reading_a_file(tmp_path: Path, store: Store) -> None:
    with Flist.open(unpacked(tmp_path / "a", records_of(TREE, store))) as flist:
        assert b"".join(read(store, flist.find(b"big"))) == BIG
        assert list(read(store, flist.find(b"etc/sub/c"))) == [b"c"]
        chunks = read(store, flist.find(b"big"))
        assert next(chunks) == BIG[:CHUNK_SIZE]
        del chunks  # left early
        for path in (b"etc", b"link", b"pipe"):
            with pytest.raises(FormatError, match="not a file"):
                list(read(store, flist.find(path)))


def test_a_size_without_blocks_is_an_error_and_not_for_ever(tmp_path: Path, store: Store) -> None:
    records = records_of({b"a": Item(what=b"x")}, store)
    change_entry(records, b"a", lambda entry: replace(entry, size=2**60, attributes=File(())))
    with Flist.open(unpacked(tmp_path / "unpacked", records)) as flist:
        with pytest.raises(FormatError, match="no blocks"):
            list(read(store, flist.find(b"a")))
        with pytest.raises(FormatError, match="no blocks"):
            extract(flist, store, tmp_path / "out")


def test_a_tree_deeper_than_descriptors_and_paths_go(tmp_path: Path, store: Store) -> None:
    depth = 1100
    tree = {b"/".join([b"deep"] * level): Item("dir", mode=0o700, mtime=5) for level in range(1, depth)}
    tree[b"/".join([*[b"deep"] * (depth - 1), b"file"])] = Item(what=b"down here")
    try:
        found = _extracted(tmp_path, records_of(tree, store), store)
        assert (found.directories, found.files) == (depth, 1)
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "out"], check=True)  # Python's own way ends at 1,000 levels


@pytest.mark.skipif(not AS_ROOT, reason="only root gives files to others")
def test_owners_and_devices_as_root(tmp_path: Path, store: Store) -> None:
    tree = {
        b"": Item("dir", mode=0o755, uid=3),
        b"null": Item("char", b"1,3", mode=0o666, uid=1, gid=2),
        b"theirs": Item(what=b"x", mode=0o6755, uid=12345, gid=54321),
        b"link": Item("link", b"x", uid=4, gid=5),
    }
    found = _extracted(tmp_path, records_of(tree, store), store)
    assert (found.foreign, found.set_id, found.devices) == (0, 0, [])
    for path, item in tree.items():
        status = (tmp_path / "out" / os.fsdecode(path)).lstat()
        assert (status.st_uid, status.st_gid) == (item.uid, item.gid), path
    assert stat.S_IMODE((tmp_path / "out/theirs").stat().st_mode) == 0o6755
    assert (tmp_path / "out/null").lstat().st_rdev == os.makedev(1, 3)


def test_devices_can_be_left_out(tmp_path: Path, store: Store) -> None:
    tree = {b"null": Item("char", b"1,3"), b"file": Item(what=b"x")}
    found = _extracted(tmp_path, records_of(tree, store), store, devices=False)
    assert (found.files, found.specials, found.devices) == (1, 0, [])
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out/file"]


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount a small disk")
def test_a_full_disk_is_said_to_be_full(tmp_path: Path, store: Store) -> None:
    records = records_of({b"random": Item(what=os.urandom(3 * CHUNK_SIZE))}, store)
    (tmp_path / "out").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", tmp_path / "out"], check=True)
    try:
        with pytest.raises(OutputError, match="out/random cannot be created: the disk is full"):
            _extracted(tmp_path, records, store)
    finally:
        subprocess.run(["umount", "-l", tmp_path / "out"], check=True)


AS_NOBODY = """
import os, sys
from pathlib import Path
from flistfs.reading.extract import extract
from flistfs.reading.flist import Flist
from tests.generation1 import open_store
directory, store, out = sys.argv[1:]
store = open_store(store)
Flist.open(Path(directory)).close()  # what is imported late may not be reached by that user
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with Flist.open(Path(directory)) as flist:
    found = extract(flist, store, Path(out))
print(found.foreign, found.set_id, *map(os.fsdecode, found.devices))
"""


@pytest.mark.skipif(not AS_ROOT, reason="only root can run a command as another user")
def test_what_others_than_root_may_not_is_counted(tmp_path: Path, store: Store) -> None:
    let_others_reach(tmp_path / "x")
    records = records_of(
        {
            b"": replace(DIR, uid=65534, gid=65534),
            b"mine": Item(what=b"x", mode=0o4755, uid=65534, gid=65534),
            b"theirs": Item(what=b"x", mode=0o4755),
            b"null": Item("char", b"1,3"),
        },
        store,
    )
    directory = unpacked(tmp_path / "unpacked", records)
    for path in (directory, tmp_path / "blocks", *(tmp_path / "blocks").rglob("*")):
        path.chmod(0o755)
    (tmp_path / "out").mkdir()
    os.chown(tmp_path / "out", 65534, 65534)
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, directory, store.url, tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["1", "1", "null"], done.stderr
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()}
    assert modes == {"mine": 0o4755, "theirs": 0o755}
