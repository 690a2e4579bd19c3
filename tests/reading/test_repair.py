"""Repair: right blocks from a store, or made again from files, go where a store has wrong ones or none."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from flistfs.format.base import Block
from flistfs.reading.flist import Flist
from flistfs.reading.repair import DirectorySupply, StoreSupply, Supply
from flistfs.reading.verify import Verified, verify
from flistfs.stores import Store
from flistfs.tree.chunks import CHUNK_SIZE
from tests.generation1 import CODEC, encode_block, open_store
from tests.reading.making import DIR, Item, change_entry, packed, records_of

BIG = random.Random(1).randbytes(2 * CHUNK_SIZE + 100)
TREE = {b"d": DIR, b"d/big": Item(what=BIG), b"small": Item(what=b"small"), b"again": Item(what=b"small")}


@pytest.fixture
def package(tmp_path: Path, store: Store) -> Path:
    return packed(tmp_path / "a.flist", records_of(TREE, store))


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    root = tmp_path / "rootfs"
    (root / "d").mkdir(parents=True)
    for path, item in TREE.items():
        if item.kind == "file":
            (root / os.fsdecode(path)).write_bytes(item.what)
    return root


def blocks_of(package: Path) -> list[Block]:
    chunks = [BIG[:CHUNK_SIZE], BIG[CHUNK_SIZE : 2 * CHUNK_SIZE], BIG[2 * CHUNK_SIZE :], b"small"]
    found = [encode_block(chunk) for chunk in chunks]
    with Flist.open(package) as flist:
        big = flist.find(b"d/big")
        assert big.blocks == tuple(block.ref for block in found[:3])
    return found


def spoil(store: Store, blocks: list[Block]) -> None:
    store.put([Block(block.hash, block.key, (b"?" * block.size,)) for block in blocks])


def lose(store: Store, block: Block) -> None:
    name = block.hash.decode()
    Path(store.url.removeprefix("dir://"), name[0], name[1], name).unlink()


def repaired(package: Path, store: Store, supply: Supply) -> Verified:
    with Flist.open(package) as flist:
        return verify(flist, store, supply=supply)


def is_right(package: Path, store: Store) -> bool:
    with Flist.open(package) as flist:
        return verify(flist, store, deep=True).faults == []


@pytest.mark.parametrize("kind", ["store", "directory"])
def test_wrong_and_missing_blocks_are_put_right(
    tmp_path: Path, package: Path, store: Store, rootfs: Path, kind: str
) -> None:
    other = open_store(f"dir://{tmp_path}/other")
    other.put(blocks_of(package))
    spoil(store, blocks_of(package)[:2])
    lose(store, blocks_of(package)[3])
    assert not is_right(package, store)
    report = repaired(
        package, store, StoreSupply(other) if kind == "store" else DirectorySupply(rootfs, CODEC)
    )
    assert report == Verified(2, 3, 4, [], repaired=3)
    assert is_right(package, store)
    assert repaired(package, store, DirectorySupply(tmp_path / "nowhere", CODEC)).repaired == 0


def test_content_is_found_under_other_names(package: Path, store: Store, rootfs: Path) -> None:
    moved = rootfs / "moved/to"
    moved.mkdir(parents=True)
    (rootfs / "d/big").rename(moved / "big")
    (rootfs / "d/big").mkdir()
    os.mkfifo(rootfs / "fifo")
    (rootfs / "link").symlink_to("/dev/zero")
    spoil(store, blocks_of(package)[:3])
    assert repaired(package, store, DirectorySupply(rootfs, CODEC)).repaired == 3
    assert is_right(package, store)


def test_what_is_found_nowhere_is_named_and_the_rest_repaired(
    tmp_path: Path, package: Path, store: Store, rootfs: Path
) -> None:
    with (rootfs / "d/big").open("r+b") as file:
        file.write(b"changed")
    spoil(store, blocks_of(package))
    report = repaired(package, store, DirectorySupply(rootfs, CODEC))
    assert report.repaired == 3
    assert [fault.path for fault in report.faults] == [b"d/big"]
    assert blocks_of(package)[0].hash.decode() in report.faults[0].what


def test_what_no_block_can_heal_is_no_reason_to_search(tmp_path: Path, store: Store, rootfs: Path) -> None:
    records = records_of(TREE, store)
    change_entry(records, b"small", lambda entry: replace(entry, size=7))
    report = repaired(packed(tmp_path / "b.flist", records), store, DirectorySupply(rootfs, CODEC))
    assert report.repaired == 0
    assert [fault.path for fault in report.faults] == [b"small"]


def test_wrong_blocks_of_the_source_repair_nothing(tmp_path: Path, package: Path, store: Store) -> None:
    other = open_store(f"dir://{tmp_path}/other")
    first = blocks_of(package)[0]
    other.put([Block(first.hash, first.key, (b"!" * first.size,))])
    spoil(store, [first])
    report = repaired(package, store, StoreSupply(other))
    assert report.repaired == 0
    assert [fault.path for fault in report.faults] == [b"d/big"]
    assert store.get(first.hash) == b"?" * first.size
