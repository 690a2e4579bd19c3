"""Pushing: only what is lacking, checked, and what becomes of faults on either side."""

from __future__ import annotations

import itertools
import random
import sqlite3
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from flistfs.errors import (
    BlockCorruptError,
    BlockMissingError,
    FormatError,
    OutputError,
    StoreUnavailableError,
)
from flistfs.format.base import Block
from flistfs.format.rocksdb.catalog import write_catalog
from flistfs.format.rocksdb.package import write_package
from flistfs.format.zeroos.records import Directory, Entry, File, SubDirectory, encode_directory
from flistfs.reading import push as push_module
from flistfs.reading.flist import Flist
from flistfs.reading.push import PushSummary, push
from flistfs.stores.directory import DirectoryStore
from flistfs.tree.chunks import BlockRef
from flistfs.util.progress import Report
from tests.generation1 import CODEC, directory_key, encode_block, open_store
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def content(seed: int, size: int = 2000) -> Block:
    return encode_block(random.Random(seed).randbytes(size))


def make_flist(directory: Path, files: dict[bytes, Sequence[Block]], name: str = "out.flist") -> Path:
    """Package files with these blocks, those with a slash in their names in a directory `sub`."""
    entries: dict[bytes, list[Entry]] = {b"": [], b"sub": []}
    for path, blocks in files.items():
        parent, _, last = path.rpartition(b"/")
        size = 2000 * len(blocks)
        attributes = File(tuple(block.ref for block in blocks))
        entries[parent].append(Entry(last, size, attributes, b"", 0, 0))
    entries[b""].append(Entry(b"sub", 0, SubDirectory(directory_key(b"sub")), b"", 0, 0))
    records = {
        directory_key(path): encode_directory(
            Directory(path, path, inside, directory_key(b"") if path else b"", 0, b"", 0, 0)
        )
        for path, inside in entries.items()
    }
    scratch = directory / f"{name}.scratch"
    write_catalog(scratch, sorted(records.items()))
    package = directory / name
    with package.open("wb") as file:
        write_package(scratch, file)
    return package


@dataclass(slots=True)
class Told:
    """Progress as it was told."""

    phases: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def __call__(self, report: Report) -> None:
        self.phases.setdefault(report.phase, []).append((report.done, report.total))


class Watched(DirectoryStore):
    """A directory that notes what it is asked for, and fails from a moment on."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, CODEC)
        self.got: list[bytes] = []
        self.stored: list[bytes] = []
        self.largest = 0
        self.syncs = 0
        self.failing_after = 10**9
        self.forgetful = False

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002  the protocol's
        self.got.append(hash)
        return super().get(hash, deadline)

    def put(self, blocks: Sequence[Block]) -> None:
        if len(self.stored) >= self.failing_after:
            raise StoreUnavailableError("switched off by the test")
        self.largest = max(self.largest, sum(block.size for block in blocks))
        self.stored += [block.hash for block in blocks]
        if not self.forgetful:
            super().put(blocks)

    def sync(self) -> None:
        """Flushing a whole file system takes its time, and nothing here is about power cuts."""
        self.syncs += 1


@pytest.fixture
def source(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "target")


def pushed(package: Path, source: Watched, target: Watched, told: Told | None = None) -> PushSummary:
    with Flist.open(package) as flist:
        return push(flist, source, target, told or Told())


def test_every_block_once_and_only_what_is_lacking(tmp_path: Path, source: Watched, target: Watched) -> None:
    blocks = [content(seed) for seed in range(1000)]
    source.put(blocks)
    target.put(blocks[:300])
    target.stored.clear()
    package = make_flist(tmp_path, {b"a": blocks, b"sub/b": blocks[::2], b"c": [], b"d": [blocks[5]] * 3})
    told = Told()
    summary = pushed(package, source, target, told)
    lacking = blocks[300:]
    assert summary == PushSummary(target.url, 1000, 700, sum(block.size for block in lacking))
    assert sorted(target.stored) == sorted(source.got) == sorted(block.hash for block in lacking)
    assert all(target.get(block.hash) == block.stored for block in blocks)
    assert target.syncs == 1
    counts = [done for done, total in told.phases["push"] if total == 1000]
    assert counts == sorted(counts)
    assert counts[-1] == 1000
    assert told.phases["check"][-1] == (1000, 1000)
    assert pushed(package, source, target).sent == 0


@pytest.mark.parametrize("check_content", [False, True])
def test_what_is_wrong_in_the_target_is_replaced(
    tmp_path: Path, source: Watched, target: Watched, *, check_content: bool
) -> None:
    blocks = [content(seed) for seed in range(20)]
    source.put(blocks)
    wrong = [replace(block, parts=(b"0" * block.size,)) for block in blocks[:3]]
    target.put([*blocks[:10], *wrong])
    # The directory itself has written them this very moment, and sees no reason to look.
    package = make_flist(tmp_path, {b"a": blocks})
    with Flist.open(package) as flist:
        summary = push(flist, source, target, Told(), check_content=check_content)
    assert (summary.sent, summary.replaced) == ((13, 3) if check_content else (10, 0))
    held = {block.hash for block in blocks if target.get(block.hash) == block.stored}
    assert held == {block.hash for block in (blocks if check_content else blocks[3:])}


def test_a_push_that_was_cut_off_goes_on(tmp_path: Path, source: Watched, target: Watched) -> None:
    blocks = [content(seed) for seed in range(1500)]
    source.put(blocks)
    package = make_flist(tmp_path, {b"a": blocks})
    target.failing_after = 500
    with pytest.raises(StoreUnavailableError):
        pushed(package, source, target)
    there = {block.hash for block in blocks} - target.missing([block.hash for block in blocks])
    assert len(there) == len(target.stored) >= 500
    assert len(there) < 1500
    target.failing_after = 10**9
    target.stored.clear()
    assert pushed(package, source, target).sent == 1500 - len(there)
    assert not there & set(target.stored)
    assert target.missing([block.hash for block in blocks]) == set()


def test_large_blocks_go_in_small_groups(tmp_path: Path, source: Watched, target: Watched) -> None:
    blocks = [content(seed, 512 * 1024) for seed in range(40)]
    source.put(blocks)
    assert pushed(make_flist(tmp_path, {b"a": blocks}), source, target).sent == 40
    assert target.largest < 5 << 20


def test_what_is_missing_or_corrupt_is_named_and_the_rest_is_pushed(
    tmp_path: Path, source: Watched, target: Watched
) -> None:
    good, gone, torn, exchanged = (content(seed) for seed in range(4))
    source.put([good, Block(torn.hash, b"", (torn.stored[:-1],)), Block(exchanged.hash, b"", (good.stored,))])
    package = make_flist(
        tmp_path, {b"good": [good], b"sub/go\x1bne": [gone], b"torn": [good, torn], b"exchanged": [exchanged]}
    )
    for _ in range(2):
        with pytest.raises(BlockMissingError) as caught:
            pushed(package, source, target)
        assert f"{source.url} lacks 1 of the blocks and holds 2 that are corrupt" in str(caught.value)
        assert "in exchanged, sub/go\\x1bne, torn; everything else was pushed" in str(caught.value)
        assert target.missing([good.hash]) == set()
        assert target.missing([torn.hash, exchanged.hash]) == {torn.hash, exchanged.hash}
    source.put([gone])
    with pytest.raises(BlockCorruptError, match=r"^dir://\S+ holds 2 that are corrupt, in exchanged, torn;"):
        pushed(package, source, target)


def test_a_key_that_does_not_open_a_block_is_no_block(
    tmp_path: Path, source: Watched, target: Watched
) -> None:
    one, other = content(1), content(2)
    source.put([one])
    package = make_flist(tmp_path, {b"a": [Block(one.hash, other.key, ())]})
    with pytest.raises(BlockCorruptError):
        pushed(package, source, target)
    assert target.stored == []


def test_many_faults_are_counted_and_cut_off(
    tmp_path: Path, source: Watched, target: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_module, "_KEPT_FAULTS", 8)
    package = make_flist(tmp_path, {b"%03d" % seed: [content(seed)] for seed in range(300)})
    with pytest.raises(BlockMissingError, match=r"lacks 300 of the blocks, in .* and 3 more; ") as caught:
        pushed(package, source, target)
    assert len(str(caught.value)) < 300


def test_a_target_that_loses_what_it_took(tmp_path: Path, source: Watched, target: Watched) -> None:
    blocks = [content(seed) for seed in range(10)]
    source.put(blocks)
    target.forgetful = True
    with pytest.raises(BlockMissingError, match="has lost 10 blocks after acknowledging them"):
        pushed(make_flist(tmp_path, {b"a": blocks}), source, target)


def test_a_disk_without_room_for_the_list(
    tmp_path: Path, source: Watched, target: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: object) -> Iterator[tuple[bytes, bytes]]:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(push_module, "_refs", full)
    with pytest.raises(OutputError, match="disk is full"):
        pushed(make_flist(tmp_path, {}), source, target)


def test_a_source_that_is_gone_ends_the_push(tmp_path: Path, target: Watched) -> None:
    blocks = [content(seed) for seed in range(50)]
    with running_redis() as server:
        origin = open_store(server.url)
        origin.put(blocks)
        server.stop()
        with Flist.open(make_flist(tmp_path, {b"a": blocks})) as flist, pytest.raises(StoreUnavailableError):
            push(flist, origin, target, Told())
        origin.close()


def test_blocks_are_fetched_in_parallel(tmp_path: Path, source: Watched, target: Watched) -> None:
    # The first get waits for a second one: with one thread it would never come.
    blocks = [content(seed) for seed in range(600)]
    source.put(blocks)
    numbers = itertools.count()
    second = threading.Event()

    class Meeting(Watched):
        def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002  the protocol's
            if next(numbers) == 0:
                assert second.wait(60)
            second.set()
            return super().get(hash, deadline)

    together = Meeting(tmp_path / "source")
    assert pushed(make_flist(tmp_path, {b"a": blocks}), together, target).sent == 600


@pytest.mark.parametrize("ref", [BlockRef(b"../" * 21 + b"x", b"0" * 64), BlockRef(b"0" * 64, b"")])
def test_what_is_no_block_is_named_and_nothing_is_asked_for(tmp_path: Path, ref: BlockRef) -> None:
    source, target = Watched(tmp_path / "a"), Watched(tmp_path / "b")
    package = make_flist(tmp_path, {b"sub/file": [Block(ref.hash, ref.key, (b"",))]})
    with Flist.open(package) as flist, pytest.raises(FormatError, match="sub/file has a block"):
        push(flist, source, target, Told())
    assert source.got == target.stored == []
