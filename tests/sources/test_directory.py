"""Directories as sources: what cannot be read is named, whichever call fails; paths have any length."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flistfs.errors import SourceError
from flistfs.sources import reach
from flistfs.sources.data import FileSource, file_version
from flistfs.sources.directory import DirectorySource, Start
from flistfs.sources.item import Item
from flistfs.sources.reach import open_file, within_reach

NAME = "n" * 250


def walked(directory: Path | bytes) -> tuple[dict[bytes, Item], dict[bytes, str]]:
    """What a source has, and what is wrong with the rest."""
    items: dict[bytes, Item] = {}
    problems: dict[bytes, str] = {}
    for entry in DirectorySource([Start(os.fsencode(directory), b"", "source")]).items():
        if isinstance(entry, Item):
            items[entry.path] = entry
        else:
            problems[entry.path] = entry.reason
    return items, problems


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tree := tmp_path / "tree").mkdir()
    for name in ("bad", "good"):
        (tree / f"{name}-dir/inside").mkdir(parents=True)
        (tree / f"{name}-link").symlink_to("good-dir")
        with (tree / f"{name}-file").open("wb") as file:
            file.truncate(1 << 20)
        for kind in ("dir", "file"):
            os.setxattr(tree / f"{name}-{kind}", "user.note", b"n")
    return tree


CALLS = {
    "scandir": {b"bad-dir"},
    "readlink": {b"bad-link"},
    "listxattr": {b"bad-dir", b"bad-link", b"bad-file"},
    "getxattr": {b"bad-dir", b"bad-file"},
    "open": {b"bad-file"},
}


def failing(monkeypatch: pytest.MonkeyPatch, call: str, number: int) -> None:
    """Let a call fail for everything that is called bad."""
    real = getattr(os, call)

    def fail(path: bytes | int, *args: object, **kwargs: object) -> object:
        if isinstance(path, bytes) and path.rpartition(b"/")[2].startswith(b"bad"):
            raise OSError(number, os.strerror(number))
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, call, fail)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ENOENT])
def test_whatever_fails_is_a_problem_of_its_entry(
    tree: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    whole, _ = walked(tree)
    failing(monkeypatch, call, number)
    items, problems = walked(tree)
    why = "it has vanished" if number == errno.ENOENT else f"it cannot be read: {os.strerror(number)}"
    assert problems == dict.fromkeys(CALLS[call], why)
    left = {path for path in whole if any(path == bad or path.startswith(bad + b"/") for bad in CALLS[call])}
    assert set(items) == set(whole) - left


def test_an_entry_whose_kind_or_status_cannot_be_read(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __init__(self, entry: os.DirEntry[bytes], call: str) -> None:
            self.name, self.path = entry.name, entry.path
            setattr(self, call, self._fail)
            self.is_dir = entry.is_dir if call != "is_dir" else self._fail

        def _fail(self, **_: object) -> bool:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    real = os.scandir
    for call in ("stat", "is_dir"):

        @contextmanager
        def scandir(path: bytes, call: str = call) -> Iterator[Iterator[object]]:
            with real(path) as entries:
                yield (Broken(each, call) if each.name == b"bad-file" else each for each in entries)

        monkeypatch.setattr(os, "scandir", scandir)
        items, problems = walked(tree)
        assert problems == {b"bad-file": "it cannot be read: Input/output error"}
        assert b"good-file" in items


@pytest.mark.parametrize("number", [errno.ENODATA, errno.EOPNOTSUPP])
def test_an_attribute_that_is_none_any_more_is_none(
    tree: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    failing(monkeypatch, "getxattr", number)
    items, problems = walked(tree)
    assert not problems
    assert items[b"bad-file"].xattrs == {}
    assert items[b"good-file"].xattrs == {b"user.note": b"n"}


def test_a_file_system_without_attributes_is_asked_once(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def listxattr(path: bytes, **_: object) -> list[str]:
        asked.append(path)
        raise OSError(errno.EOPNOTSUPP, "")

    monkeypatch.setattr(os, "listxattr", listxattr)
    items, problems = walked(tree)
    assert (len(items), problems, len(asked)) == (9, {}, 1)


# Long paths


@contextmanager
def deep(directory: Path, depth: int) -> Iterator[tuple[bytes, int]]:
    """A directory below so many others, by its path and a descriptor."""
    path, descriptor = bytes(directory), os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(NAME, dir_fd=descriptor)
        below = os.open(NAME, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        path, descriptor = path + b"/" + NAME.encode(), below
    try:
        yield path, descriptor
    finally:
        os.close(descriptor)


def descriptors() -> set[str]:
    """What this process has open; one of them is the listing's own."""
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def put(name: str, directory: int, data: bytes) -> None:
    descriptor = os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=directory)
    os.write(descriptor, data)
    os.close(descriptor)


@pytest.mark.parametrize("depth", [0, 14, 15, 16, 17, 40])
def test_paths_of_any_length_are_walked_with_few_descriptors(tmp_path: Path, depth: int) -> None:
    (tmp_path / "tree").mkdir()
    with deep(tmp_path / "tree", depth) as (path, directory):
        put("file", directory, b"content")
        os.symlink("file", "link", dir_fd=directory)
        os.mkdir("empty", dir_fd=directory)
        before = descriptors()
        most = 0
        items: dict[bytes, Item] = {}
        source = DirectorySource([Start(bytes(tmp_path / "tree"), b"", "tree")])
        for item in source.items():
            assert isinstance(item, Item)
            items[item.path] = item
            most = max(most, len(descriptors() - before))
        assert most <= 3  # of the directory, of its listing, and of the listing above
        assert descriptors() == before
        inside = path[len(bytes(tmp_path / "tree")) + 1 :]
        prefix = inside + b"/" if inside else b""
        assert {prefix + b"file", prefix + b"link", prefix + b"empty"} < set(items)
        assert len(items) == depth + 4
        assert items[prefix + b"link"].target == b"file"
        (piece,) = items[prefix + b"file"].pieces
        assert isinstance(piece.source, FileSource)
        descriptor = open_file(piece.source.path, os.O_RDONLY)
        assert os.read(descriptor, 10) == b"content"
        assert file_version(os.fstat(descriptor)) == piece.source.version
        os.close(descriptor)
        source.measure()
        assert source.extent(0)[1] >= 7


def test_a_source_may_itself_be_far_away(tmp_path: Path) -> None:
    with deep(tmp_path, 17) as (path, directory):
        put("file", directory, b"content")
        start = Start(path + b"/file", b"file", "file")
        (item,) = DirectorySource([start]).items()
        assert isinstance(item, Item)
        assert (item.path, item.size, start.status().st_size) == (b"file", 7, 7)
        assert {*walked(path)[0]} == {b"", b"file"}


def test_what_is_far_away_and_gone_is_a_problem(tmp_path: Path) -> None:
    with deep(tmp_path, 17) as (path, directory):
        before = len(descriptors())
        with pytest.raises(SourceError, match="cannot be read: No such file or directory"):
            Start(path + b"/" + NAME.encode() + b"/x", b"x", "x").status()
        with pytest.raises(SourceError, match="cannot be read: File name too long"):
            Start(b"/" + b"x" * 5000 + b"/y", b"x", "x").status()
        put("file", directory, b"")
        with pytest.raises(NotADirectoryError), within_reach(path + b"/file"):
            pass
        assert len(descriptors()) == before


def test_short_paths_are_used_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "_open", None)
    with within_reach(bytes(tmp_path)) as way:
        assert way == bytes(tmp_path)
