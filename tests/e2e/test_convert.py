"""An flist of one format becomes one of the other: its blocks are fetched, checked and encoded anew."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import flistfs
from tests.both import FORMATS
from tests.e2e.commands import Home
from tests.e2e.test_formats import comparable
from tests.e2e.test_roundtrip import blocks_in_redis
from tests.independent_reader import read_flist
from tests.independent_reader2 import read_flist2
from tests.needs import needs_data
from tests.redis_server import RedisServer
from tests.snapshots import assert_flist_equals, snapshot
from tests.trees import make_everything

OTHER = {"rocksdb": "sqlite", "sqlite": "rocksdb"}


@pytest.mark.parametrize("format_", FORMATS)
def test_there_and_back(
    home: Home, source: Path, redis: RedisServer, server: RedisServer, format_: str
) -> None:
    make_everything(source)
    home.run("pack", source, "a.flist", "--format", format_, "--store", redis.url)
    other = OTHER[format_]
    there = home.json("convert", "a.flist", "b.flist", "--format", other, "--store", server.url)
    assert there["format"] == home.json("info", "b.flist")["format"] == other
    nodes = (read_flist if other == "rocksdb" else read_flist2)(home.path / "b.flist")
    assert_flist_equals(nodes, snapshot(source), blocks_in_redis(server), fast=True)
    assert home.json("verify", "b.flist", "--deep", "--store", server.url)["faults"] == []
    again = home.json("convert", "a.flist", "b.flist", "--format", other, "--store", server.url, "--force")
    assert again["new_blocks"] == 0
    home.run("convert", "b.flist", "c.flist", "--format", format_, "--from", server.url, "--store", redis.url)
    assert home.run("diff", "a.flist", "c.flist").stdout == ""
    home.run("extract", "c.flist", "copy")
    assert comparable(home.path / "copy") == comparable(source)


def test_blocks_of_both_formats_live_in_one_directory(home: Home, source: Path) -> None:
    """And what is known of those of one codec is never taken for the other's."""
    make_everything(source)
    home.run("pack", source, "a.flist")
    second = home.json("pack", source, "b.flist", "--format", "sqlite")
    assert second["new_blocks"] > 100
    third = home.json("convert", "b.flist", "c.flist", "--format", "rocksdb")
    assert third["new_blocks"] == 0
    names = {len(path.name) for path in home.blocks.rglob("*") if path.is_file() and len(path.name) > 30}
    assert names == {32, 64}
    for name in ("a", "b", "c"):
        assert home.json("verify", f"{name}.flist", "--deep")["faults"] == []


def test_metadata_goes_where_it_has_a_place(home: Home, source: Path) -> None:
    (source / "file").write_bytes(b"content")
    says = ("--entrypoint", "sh", "--set", "a=b")
    home.run("pack", source, "a.flist", "--format", "sqlite", *says)
    back = home.json("convert", "a.flist", "b.flist", "--format", "rocksdb")
    assert back["dropped_metadata"] == ["a", "entrypoint"]
    said = home.run("convert", "a.flist", "b.flist", "--format", "rocksdb", "--force").stdout
    assert "note: the metadata 'entrypoint' is left out: the format rocksdb has no place for it" in said
    home.run("convert", "a.flist", "started.flist", "--format", "rocksdb", "--startup")
    assert 'name = "sh"' in home.run("cat", "started.flist", ".startup.toml").stdout
    home.run("convert", "a.flist", "c.flist", "--format", "sqlite", "--env", "K=V")
    assert home.json("config", "c.flist")["metadata"] == {
        "a": "b",
        "entrypoint": '["sh"]',
        "environ": '{"K": "V"}',
    }


def test_what_is_lost_stops_it(home: Home, source: Path, redis: RedisServer, server: RedisServer) -> None:
    (source / "lost").write_bytes(b"content")
    home.run("pack", source, "a.flist", "--store", redis.url)
    to = ("--format", "sqlite", "--store", server.url)
    missing = home.run("convert", "a.flist", "b.flist", *to, "--from", server.url, code=7)
    assert "lost cannot be read" in missing.stderr
    assert len(kept(home)) == 1
    nobody = home.run("convert", "a.flist", "b.flist", *to, "--from", "redis://127.0.0.1:1", code=3)
    assert nobody.stderr.count("\n") == 1
    home.run("convert", "a.flist", "a.flist", *to, code=9)
    home.run("convert", "a.flist", "b.flist", *to)
    assert not kept(home)


def kept(home: Home) -> list[Path]:
    """The sessions of conversions that wait for the same command."""
    return list((home.path / "state/flistfs/packing").iterdir())


def test_it_goes_on_where_it_stopped(
    home: Home, source: Path, redis: RedisServer, server: RedisServer
) -> None:
    """What was converted need not be there a second time."""
    (source / "a").mkdir(mode=0o700)
    for name in ("a/first", "first", "b/second", "z"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(name.encode())
    (source / "a/link").symlink_to("first")
    home.run("pack", source, "a.flist", "--store", redis.url)

    def block_of(name: str) -> str:
        with flistfs.open(home.path / "a.flist") as flist:
            (block,) = flist.find(name).blocks
            return flist.block_name(block.hash)

    def hide(name: str) -> None:
        assert redis.command("RENAME", block_of(name), name) == b"+OK\r\n"

    def show(name: str) -> None:
        assert redis.command("RENAME", name, block_of(name)) == b"+OK\r\n"

    to = ("--format", "sqlite", "--store", server.url, "--startup", "--entrypoint", "sh")
    for name in ("first", "z", "a/first"):
        hide(name)
    for name in ("first", "z", "a/first"):  # in the order of the flist: of each directory its files first
        failed = home.run("convert", "a.flist", "b.flist", *to, code=7).stderr
        assert f"flistfs: {name} cannot be read" in failed
        (directory,) = kept(home)
        show(name)
        if name == "z":
            hide("first")
    hide("z")
    converted = home.json("convert", "a.flist", "b.flist", *to)
    assert converted["files"] == 5
    assert not directory.exists()
    home.run("extract", "b.flist", "copy")
    (home.path / "copy/.startup.toml").unlink()
    assert comparable(home.path / "copy") == comparable(source)


def test_another_command_does_not_go_on_there(
    home: Home, source: Path, redis: RedisServer, server: RedisServer
) -> None:
    (source / "file").write_bytes(b"content")
    home.run("pack", source, "a.flist", "--store", redis.url)
    to = ("--format", "sqlite", "--store", server.url)
    home.run("convert", "a.flist", "b.flist", *to, "--from", server.url, code=7)
    home.run("convert", "a.flist", "b.flist", *to, "--set", "x=y", "--from", server.url, code=7)
    first, second = kept(home)
    os.utime(first, (0, 0))  # a week ago, and more
    home.run("pack", source, "c.flist")
    assert kept(home) == [second]
    (home.path / "a.flist").write_bytes((home.path / "a.flist").read_bytes())
    os.utime(home.path / "a.flist", (5, 5))
    home.run("convert", "a.flist", "b.flist", *to)
    assert kept(home) == [second]


def test_a_real_flist_of_zflist(home: Home, server: RedisServer) -> None:
    """What its writer lost would be missing in the new one, too."""
    sample = needs_data("samples/zflist-45000-files-lost.flist")
    refused = home.run("convert", sample, "b.flist", "--format", "rocksdb", "--store", server.url, code=8)
    assert "lost" in refused.stderr


def test_python(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (source / "file").write_bytes(b"content")
    flistfs.pack(source, tmp_path / "a.flist")
    done = flistfs.convert(tmp_path / "a.flist", tmp_path / "b.flist", format="sqlite")
    assert (done.sealed.format, done.sealed.files, done.added.size) == ("sqlite", 1, 7)
    with flistfs.open(tmp_path / "b.flist") as flist, flist.open_file("file") as file:
        assert file.read() == b"content"
