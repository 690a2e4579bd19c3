import hashlib
import os
import socket
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import trees
from tests.independent_reader import CHUNK, Kind, Node
from tests.snapshots import Ignored, Snap, assert_flist_equals, snapshot
from tests.test_independent_tree import packed_block
from tests.trees import make_everything

NOW = int(time.time())


# Making


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("everything")
    make_everything(directory)
    return directory


@pytest.fixture(scope="module")
def truth(everything: Path) -> dict[bytes, Snap]:
    return snapshot(everything)


def test_everything_is_in_the_tree(truth: dict[bytes, Snap]) -> None:
    kinds = {"dir", "file", "link", "fifo", "socket"} | ({"block", "char"} if trees.AS_ROOT else set())
    assert {snap.kind for snap in truth.values()} == kinds
    assert {snap.size for snap in truth.values() if snap.kind == "file"} >= set(trees.SIZES)
    assert sum(path.startswith(b"many/") for path in truth) == 5000
    assert max(path.count(b"/") for path in truth) == 60
    assert max(len(path.rpartition(b"/")[2]) for path in truth) == 255
    assert sum(snap.size for snap in truth.values() if snap.kind == "file") < 25_000_000


def test_everything_has_odd_modes_and_times(truth: dict[bytes, Snap]) -> None:
    modes = {snap.mode for snap in truth.values() if snap.kind == "file"}
    assert modes >= {0o777, 0o4755, 0o2755, 0o6755} | ({0o000, 0o111} if trees.AS_ROOT else set())
    assert {snap.mode for snap in truth.values() if snap.kind == "dir"} >= {0o700, 0o1777, 0o2775, 0o777}
    times = {truth[b"times/" + name.encode()].mtime_ns // trees.SECOND for name in trees.TIMES}
    assert times == set(trees.TIMES.values())


def test_everything_has_hard_links_and_equal_files(truth: dict[bytes, Snap]) -> None:
    assert truth[b"same/first"].nlink == truth[b"hard-elsewhere"].nlink == 3
    assert truth[b"same/copy"].nlink == 1
    assert truth[b"same/copy"].sha256 == truth[b"same/hard"].sha256


@pytest.mark.skipif(not trees.AS_ROOT, reason="only root makes devices and gives files away")
def test_everything_of_root_has_owners_and_devices(truth: dict[bytes, Snap]) -> None:
    owners = {(snap.uid, snap.gid) for snap in truth.values()}
    assert owners >= {(0, 0), (1000, 1000), trees.STRANGER}
    assert truth[b"devices/high-block"].device == (8, 300)
    assert truth[b"devices/null"].device == (1, 3)
    assert truth[b"owners/mixed-set-id"].mode == 0o6711


def test_the_sparse_file_has_its_holes(everything: Path) -> None:
    found = (everything / "sparse").lstat()
    assert found.st_blocks * 512 < found.st_size // 2
    with (everything / "sparse").open("rb") as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) >= CHUNK
        assert os.lseek(file.fileno(), CHUNK * 2, os.SEEK_DATA) >= 3 * CHUNK
        assert os.lseek(file.fileno(), 5 * CHUNK, os.SEEK_HOLE) < found.st_size


def test_everything_is_the_same_each_time_and_soon_made(tmp_path: Path, truth: dict[bytes, Snap]) -> None:
    again = tmp_path / "again"
    again.mkdir()
    began = time.process_time()
    make_everything(again)
    assert time.process_time() - began < 10  # below 1
    assert without_directory_sizes(snapshot(again)) == without_directory_sizes(truth)


def without_directory_sizes(snap: dict[bytes, Snap]) -> dict[bytes, Snap]:
    """The size of a directory is its file system's affair."""
    return {path: replace(each, size=0) if each.kind == "dir" else each for path, each in snap.items()}


# The truth


def test_snapshot_of_a_small_tree(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir(mode=0o750)
    (tmp_path / "dir" / "file").write_bytes(b"abc")
    (tmp_path / "dir" / "file").chmod(0o4640)
    os.utime(tmp_path / "dir" / "file", ns=(1, -1_500_000_000))
    (tmp_path / "link").symlink_to("./nowhere//")
    os.mknod(tmp_path / "pipe", stat.S_IFIFO | 0o600)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    snap = snapshot(tmp_path)
    assert {path: each.kind for path, each in snap.items()} == {
        b"": "dir",
        b"dir": "dir",
        b"dir/file": "file",
        b"link": "link",
        b"pipe": "fifo",
        b"socket": "socket",
    }
    file = snap[b"dir/file"]
    assert file == Snap(
        "file",
        0o4640,
        os.geteuid(),
        (tmp_path / "dir" / "file").lstat().st_gid,
        3,
        -1_500_000_000,
        1,
        sha256=hashlib.sha256(b"abc").hexdigest(),
    )
    assert snap[b"link"].target == b"./nowhere//"
    assert snap[b"dir"].mode == 0o750


# Comparing

PASSWD = trees.PASSWD + b"another:x:1000:1000::/:/bin/sh\n+bad line\n"


class Sample:
    """A small flist that equals its snapshot, to be spoilt."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, bytes] = {}
        self.nodes: dict[bytes, Node] = {}
        self.snap: dict[bytes, Snap] = {}
        self.add(b"", "dir", 0o2775, (0, 0), size=4096)
        self.add(b"etc", "dir", 0o755, (0, 0), size=4096)
        self.add(b"etc/passwd", "file", 0o644, (0, 0), content=PASSWD)
        self.add(b"etc/group", "file", 0o644, (0, 0), content=trees.GROUP)
        self.add(b"file", "file", 0o4755, (1000, 1000), content=b"abc" * 1000)
        self.add(b"link", "link", 0o777, (12345, 54321), size=4, target=b"file")
        self.add(b"null", "char", 0o666, (0, 1000), device=(1, 3))
        self.snap[b""] = replace(self.snap[b""], size=12_288)
        self.snap[b"link"] = replace(self.snap[b"link"], mode=0o700)

    def add(
        self,
        path: bytes,
        kind: Kind,
        mode: int,
        owner: tuple[int, int],
        *,
        content: bytes | None = None,
        **rest: Any,  # noqa: ANN401
    ) -> None:
        digest, blocks, size = None, [], rest.pop("size", 0)
        if content is not None:
            name, key, stored = packed_block(content)
            self.blocks[name] = stored
            digest, blocks, size = hashlib.sha256(content).hexdigest(), [(name, key)], len(content)
        users = {0: b"root", 1000: b"builder", 12345: b"12345"}
        groups = {0: b"root", 1000: b"makers", 54321: b"54321"}
        self.snap[path] = Snap(kind, mode, *owner, size, 7_999_999_999, 1, **rest, sha256=digest)
        names = users[owner[0]], groups[owner[1]]
        self.nodes[path] = Node(kind, mode, mode, *owner, *names, size, 7, NOW, **rest, blocks=tuple(blocks))

    def compare(self, *, ignore: Ignored = (), fast: bool = False) -> None:
        assert_flist_equals(self.nodes, self.snap, self.blocks.get, ignore=ignore, fast=fast)


def test_an_equal_flist() -> None:
    Sample().compare()
    Sample().compare(fast=True)


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        (b"file", "kind", "link"),
        (b"file", "mode", 0o755),
        (b"", "mode", 0o775),
        (b"link", "mode", 0o700),
        (b"file", "uid", 0),
        (b"file", "gid", 0),
        (b"file", "uname", b"1000"),
        (b"file", "uname", b"another"),
        (b"link", "gname", b"nogroup"),
        (b"null", "uname", b"0"),
        (b"file", "size", 2999),
        (b"", "size", 12_288),
        (b"link", "size", 0),
        (b"null", "size", 1),
        (b"file", "mtime", 8),
        (b"file", "ctime", 0),
        (b"file", "ctime", 2**32 - 1),
        (b"link", "target", b"etc"),
        (b"null", "device", (1, 5)),
    ],
)
def test_a_field_that_differs(path: bytes, field: str, value: object) -> None:
    sample = Sample()
    changes: dict[str, Any] = {field: value}
    sample.nodes[path] = replace(sample.nodes[path], **changes)
    with pytest.raises(AssertionError) as complaint:
        sample.compare()
    assert f"{path!r}: {field} is {value!r}, wanted " in str(complaint.value)
    sample.compare(ignore={field, "content"})
    sample.compare(ignore={(path, field), (path, "content")})
    with pytest.raises(AssertionError):
        sample.compare(ignore={(b"etc", field), "content"})


@pytest.mark.parametrize(
    ("mtime_ns", "mtime"),
    [
        (-1, 0),
        (-86_400 * trees.SECOND, 0),
        (999_999_999, 0),
        (trees.SECOND, 1),
        (4_294_967_295_999_999_999, 4_294_967_295),
        (4_417_977_600 * trees.SECOND, 4_294_967_295),
    ],
)
def test_times_are_whole_seconds_within_limits(mtime_ns: int, mtime: int) -> None:
    sample = Sample()
    sample.snap[b"file"] = replace(sample.snap[b"file"], mtime_ns=mtime_ns)
    sample.nodes[b"file"] = replace(sample.nodes[b"file"], mtime=mtime)
    sample.compare()
    sample.nodes[b"file"] = replace(sample.nodes[b"file"], mtime=mtime + 1)
    with pytest.raises(AssertionError, match="mtime"):
        sample.compare()


def test_entries_that_only_one_side_has() -> None:
    sample = Sample()
    del sample.nodes[b"link"], sample.snap[b"null"]
    with pytest.raises(AssertionError) as complaint:
        sample.compare()
    assert "in 2 places" in str(complaint.value)
    assert "b'link': presence is False, wanted True" in str(complaint.value)
    assert "b'null': presence is True, wanted False" in str(complaint.value)
    sample.compare(ignore={"presence"})


def test_content_that_differs_or_is_missing() -> None:
    sample = Sample()
    sample.nodes[b"file"] = replace(sample.nodes[b"file"], blocks=(packed_block(b"abd" * 1000)[:2],))
    with pytest.raises(AssertionError, match=r"b'file': content is .the store has no block"):
        sample.compare()
    name, _, stored = packed_block(b"abd" * 1000)
    sample.blocks[name] = stored
    with pytest.raises(AssertionError, match=f"wanted '{sample.snap[b'file'].sha256}'"):
        sample.compare()


def test_a_tree_without_accounts_has_numbers() -> None:
    sample = Sample()
    for path in (b"etc/passwd", b"etc/group"):
        del sample.nodes[path], sample.snap[path]
    with pytest.raises(AssertionError, match="b'file': uname is b'builder', wanted b'1000'"):
        sample.compare()
    numbers = {"uname": b"1000", "gname": b"1000"}
    sample.nodes[b"file"] = replace(sample.nodes[b"file"], **numbers)  # type: ignore[arg-type]
    sample.nodes[b"null"] = replace(sample.nodes[b"null"], gname=b"1000")
    sample.compare()


def test_many_differences_are_counted_and_cut_off() -> None:
    sample = Sample()
    for number in range(50):
        sample.nodes[b"extra-%d" % number] = sample.nodes[b"null"]
    with pytest.raises(AssertionError, match=r"in 50 places(.|\n)*and 10 more"):
        sample.compare()
