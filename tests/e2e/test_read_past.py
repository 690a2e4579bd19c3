"""Reading goes on past what another program lost in an flist, says where, and ends with 10."""

from __future__ import annotations

import base64
import errno
import json
import os
import sqlite3
from pathlib import Path

import pytest

import flistfs
from flistfs import errors
from flistfs.format.zeroos.keys import GENERATION_2
from flistfs.reading.flist import Flist
from tests.e2e.commands import Home, umount
from tests.e2e.lossy import CONTENT, make_lossy
from tests.needs import needs_data
from tests.reading.making import DIR, Item, Records2, packed, records_of, unpacked
from tests.redis_server import RedisServer, running_redis

LOST = "lost: its record is lost (it was too large for the program that wrote the flist): listing its parent"
TAIL = "tail: it has 1 blocks instead of the 2 of 524291 bytes: 0-fs reads what there is"


@pytest.fixture
def package(home: Home, source: Path, redis: RedisServer) -> Path:
    return make_lossy(home, source, redis)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["ls", "-R"], "kept\nkept/file\nlost\ntail\n"),
        (["find"], "kept\nkept/file\nlost\ntail\n"),
        (["tree"], "├── kept\n│   └── file\n├── lost\n└── tail\n"),
        (["info"], "format sqlite: 2 files, 3 directories"),
    ],
)
def test_all_that_is_there_is_shown(home: Home, package: Path, command: list[str], shown: str) -> None:
    done = home.run(*command, package, code=10)
    assert shown in done.stdout
    assert LOST in done.stderr
    assert TAIL in done.stderr
    assert f"flistfs: the program that wrote {package} lost or mixed up 2 things in it" in done.stderr


def test_only_what_is_asked_about_is_said(home: Home, package: Path) -> None:
    assert home.run("ls", package, "kept").stdout == "file\n"
    assert home.run("cat", package, "kept/file").stdout == "kept"
    home.run("stat", package, "kept", "kept/file")
    found = home.run("stat", package, "lost", code=10)
    assert "mode: 0750" in found.stdout  # as its parent's entry says
    assert LOST in found.stderr
    assert "tail" not in found.stderr
    assert LOST in home.run("ls", package, "lost", code=10).stderr
    document = home.json("ls", "-l", package, "tail", code=10)
    assert [entry["size"] for entry in document["entries"]] == [len(CONTENT)]
    error = document["error"]
    assert (error["code"], error["count"], [each["path"] for each in error["paths"]]) == (
        "faults",
        1,
        ["tail"],
    )


def test_other_ways_to_the_same_place(home: Home, source: Path, redis: RedisServer) -> None:
    (source / "link").symlink_to("kept/../tail")
    package = make_lossy(home, source, redis)
    assert TAIL in home.run("stat", package, "./tail", "kept", code=10).stderr
    assert LOST in home.run("ls", "-R", package, "//lost/.", code=10).stderr
    assert TAIL in home.run("find", package, "/tail", code=10).stderr
    done = home.json("cat", package, "link", code=10)
    assert base64.b64decode(done["files"][0]["base64"]) == CONTENT
    home.run("cat", package, "kept/file", "./kept/file")


def test_content_goes_as_far_as_there_are_blocks(home: Home, package: Path) -> None:
    document = home.json("cat", package, "tail", code=10)
    assert base64.b64decode(document["files"][0]["base64"]) == CONTENT
    done = home.run("extract", package, "copy", code=10)
    assert LOST in done.stderr
    assert TAIL in done.stderr
    copy = home.path / "copy"
    assert (copy / "tail").read_bytes() == CONTENT
    assert (copy / "kept/file").read_bytes() == b"kept"
    assert not any((copy / "lost").iterdir())


def test_through_a_mount_what_is_lost_is_an_error(home: Home, package: Path, mountpoint: Path) -> None:
    home.expected_log += ["tail is lost from byte 524,288 on", "lost is damaged: its record is lost"]
    home.run("mount", "--read-only", package, mountpoint)
    try:
        assert sorted(path.name for path in mountpoint.iterdir()) == ["kept", "lost", "tail"]
        assert (mountpoint / "lost").stat().st_mode & 0o777 == 0o750
        with pytest.raises(OSError, match="Input/output error"):
            list((mountpoint / "lost").iterdir())
        assert (mountpoint / "kept/file").read_bytes() == b"kept"
        with (mountpoint / "tail").open("rb", buffering=0) as file:
            assert os.fstat(file.fileno()).st_size == len(CONTENT) + 3
            assert file.read(len(CONTENT)) == CONTENT
            with pytest.raises(OSError, match="Input/output error") as caught:
                file.read(1)
        assert caught.value.errno == errno.EIO
    finally:
        umount(mountpoint)


def test_what_is_there_is_pushed(home: Home, package: Path) -> None:
    with running_redis() as other:
        done = home.run("push", package, "--to", other.url, "--json", code=10)
        pushed = json.loads(done.stdout)
        assert pushed["new_blocks"] == 2
        assert {each["path"] for each in pushed["faults"]} == {"lost", "tail"}
        assert LOST in done.stderr
        home.run("cat", package, "kept/file", "--store", other.url)


def test_what_is_lost_stays_lost(home: Home, package: Path, redis: RedisServer) -> None:
    """Records are not touched where only what the flist says is changed."""
    faults = home.json("verify", package, "--no-store", code=10)["faults"]
    home.run("config", package, "--set", "hello=world", "-o", "new.flist")
    assert home.json("config", "new.flist")["metadata"]["hello"] == "world"
    home.run("route", "new.flist", "--public-url", f"zdb://127.0.0.1:{redis.port}")
    assert home.json("verify", "new.flist", "--no-store", code=10)["faults"] == faults
    assert home.run("cat", "new.flist", "kept/file").stdout == "kept"


def test_python(home: Home, package: Path) -> None:
    with flistfs.open(package) as flist:
        assert not flist.faults
        assert b"".join(flist.read("kept/file")) == b"kept"
        assert [node.path for node in flist.walk("kept")] == [b"kept/file"]
        assert b"".join(flist.read("tail")) == CONTENT
        assert {fault.path for fault in flist.faults} == {b"tail"}
        assert len([*flist.walk()]) == 4
        assert {fault.path for fault in flist.faults} == {b"tail", b"lost"}
        assert flist.fault_count == 2
        assert len(flist.verify(blocks=False).faults) == 2
    extracted = flistfs.extract(package, home.path / "copy")
    assert extracted.fault_count == len(extracted.faults) == 2
    found = []
    with pytest.raises(errors.FaultsError, match="lost or mixed up") as caught:
        found += [each.path for each in flistfs.diff(home.path / "right.flist", package)]
    assert caught.value.count == 2
    assert found == []


def test_diff_says_what_is_there_first(home: Home, package: Path) -> None:
    done = home.run("diff", "right.flist", package, code=10)
    assert done.stdout == "- lost/file\nc tail (content)\n"
    assert LOST in done.stderr


def test_what_zflist_lost(home: Home) -> None:
    sample = needs_data("samples/zflist-45000-files-lost.flist")
    assert home.run("ls", sample).stdout == "d\n"  # whose record nobody asked for
    for command in (["ls", "-R"], ["tree"], ["find"], ["info"]):
        assert "d: its record is lost" in home.run(*command, sample, code=10).stderr
    sample = needs_data("samples/zflist-chmod.flist")
    assert "sub: its entry and record differ in owner or mode" in home.run("find", sample, code=10).stderr


def test_modes_that_shared_a_key(home: Home, tmp_path: Path) -> None:
    """As libflist made keys of ACIs from 2020 to 2022: of 0644 and of 0604 the same."""
    tree = {b"a": Item(mode=0o644), b"b": Item(mode=0o644, uid=7), b"d": DIR, b"d/c": Item(mode=0o640)}
    records = records_of(tree, of=Records2)
    old = records_of(tree, of=Records2)
    for item, text in (
        (tree[b"a"], b"user:root\ngroup:root\nmode:4\n"),
        (tree[b"b"], b"user:7\ngroup:root\nmode:4\nuid:7\ngid:0"),
    ):
        key = GENERATION_2.aci(Records2.generation.aci(item))
        as_once = GENERATION_2.aci_digest(text)
        old[as_once] = old.pop(key)
        root = GENERATION_2.directory(b"")
        old[root] = old[root].replace(key, as_once)
    with Flist.open(unpacked(tmp_path / "new", records)) as flist:
        assert [*flist.faults(b"")] == []
    with Flist.open(unpacked(tmp_path / "old", old)) as flist:
        (fault,) = flist.faults(b"")
    assert (
        fault.what
        == "of its entries 2 may have the mode of others: readers show the mode that was stored first"
    )
    packed(home.path / "old.flist", old)
    done = home.run("ls", "-R", "old.flist", code=10)
    assert done.stdout == "a\nb\nd\nd/c\n"
    assert f"/: {fault.what}\n" in done.stderr
    assert "may have the mode of others" in home.run("stat", "old.flist", "a", code=10).stderr
    home.run("cat", "old.flist", "a")  # whose content is right
    home.run("stat", "old.flist", "d/c")
    assert "`accept_faults`" not in home.run("merge", "old.flist", "-o", "out.flist", code=8).stderr


def test_many_are_counted(home: Home, tmp_path: Path) -> None:
    tree = {b"%02d" % number: DIR for number in range(30)}
    records = records_of(tree, of=Records2)
    directory = unpacked(tmp_path / "unpacked", records)
    database = sqlite3.connect(directory / "flistdb.sqlite3", isolation_level=None)
    for path in tree:
        key = GENERATION_2.directory(path).decode()
        database.execute("UPDATE entries SET value = '00' WHERE key = ?", [key])
    database.close()
    said = home.run("ls", "-R", directory, code=10).stderr.splitlines()
    assert len(said) == 22
    assert said[20] == "… and 10 more (flistfs verify --no-store lists them)"
    assert "30 things" in said[21]
