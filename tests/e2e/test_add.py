"""What is put into a session past the mount: the same as by `cp -a`, seen at once, or a clear refusal."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.commands import Home, wait_until
from tests.generation1 import open_store
from tests.independent_reader import read_content, read_flist
from tests.redis_server import running_redis
from tests.snapshots import Snap, assert_flist_equals, below, snapshot
from tests.trees import make_everything


def comparable(directory: Path) -> dict[bytes, Snap]:
    """What a tree is, save what differs between file systems: directories' sizes."""
    return {
        path: replace(snap, size=0) if snap.kind == "dir" else snap
        for path, snap in snapshot(directory).items()
    }


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_mounted_session_gets_every_kind_of_entry(home: Home, mountpoint: Path, source: Path) -> None:
    make_everything(source)
    wanted = snapshot(source)
    home.run("mount", mountpoint)
    summary = home.json("add", f"{source}/.")
    assert comparable(mountpoint) == comparable(source)
    assert summary["entries"] == len(wanted)
    files = [path.lstat() for path in below(source) if not path.is_symlink() and path.is_file()]
    assert summary["size"] == sum({status.st_ino: status.st_size for status in files}.values())
    home.run("seal", "out.flist")
    assert_flist_equals(
        read_flist(home.path / "out.flist"), wanted, open_store(f"dir://{home.blocks}").get, fast=True
    )


def test_a_session_without_a_mount_gets_the_same(home: Home, source: Path, tmp_path: Path) -> None:
    make_everything(source)
    home.run("new", tmp_path / "name")
    assert home.status()["state"] == "unmounted"
    home.run("add", f"{source}/.")
    home.run("seal", "out.flist")
    wanted = snapshot(source)
    assert_flist_equals(
        read_flist(home.path / "out.flist"), wanted, open_store(f"dir://{home.blocks}").get, fast=True
    )
    assert home.listed("status")[0]["state"] == "sealed"


def test_a_session_whose_daemon_died_can_be_added_to(home: Home, mountpoint: Path, source: Path) -> None:
    (source / "file").write_bytes(b"added")
    home.run("mount", mountpoint)
    (mountpoint / "before").write_bytes(b"before")
    (pid,) = home.daemons()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: home.status()["state"] == "died", "the daemon is gone")
    home.run("add", source / "file")
    home.run("mount", mountpoint)
    assert (mountpoint / "file").read_bytes() == b"added"
    assert (mountpoint / "before").read_bytes() == b"before"
    home.run("seal", "out.flist")


def test_what_is_added_is_seen_at_once(home: Home, mountpoint: Path, source: Path) -> None:
    """The kernel has cached that names are missing, listings, sizes and pages."""
    home.run("mount", mountpoint)
    (mountpoint / "directory").mkdir()
    (mountpoint / "directory/old").write_bytes(b"old content")
    (mountpoint / "directory/second").hardlink_to(mountpoint / "directory/old")
    assert not (mountpoint / "directory/new").exists()
    assert not (mountpoint / "top").exists()
    assert names_in(mountpoint / "directory") == ["old", "second"]
    assert (mountpoint / "directory").stat().st_nlink == 2
    (source / "directory/inner").mkdir(parents=True)
    (source / "directory").chmod(0o700)
    (source / "directory/new").write_bytes(b"new")
    (source / "directory/old").write_bytes(b"replaced by more")
    (source / "top").write_bytes(b"top")
    with (mountpoint / "directory/old").open("rb") as held:
        assert held.read() == b"old content"
        home.run("add", f"{source}/.")
        held.seek(0)
        assert held.read() == b"old content"
    assert (mountpoint / "top").read_bytes() == b"top"
    assert (mountpoint / "directory/new").read_bytes() == b"new"
    assert (mountpoint / "directory/old").read_bytes() == b"replaced by more"
    assert (mountpoint / "directory/second").read_bytes() == b"old content"
    assert (mountpoint / "directory/second").stat().st_nlink == 1
    assert names_in(mountpoint / "directory") == ["inner", "new", "old", "second"]
    assert (mountpoint / "directory").stat().st_nlink == 3
    assert (mountpoint / "directory").stat().st_mode & 0o777 == 0o700
    home.run("seal", "out.flist")


def test_where_sources_go_and_that_they_add_up(home: Home, tmp_path: Path, source: Path) -> None:
    (source / "tool").mkdir()
    (source / "tool/run").write_bytes(b"run")
    (source / "motd").write_bytes(b"hello")
    home.run("new", tmp_path / "name")
    home.run("add", "tool", "motd", "--to", "/opt/local/", cwd=source)
    home.run("add", "tool/.", cwd=source)
    (source / "motd").write_bytes(b"hello again")
    home.run("add", source / "motd", "--to", "opt/local")
    home.run("seal", "out.flist")
    nodes = read_flist(home.path / "out.flist")
    assert set(nodes) == {
        b"",
        b"opt",
        b"opt/local",
        b"opt/local/tool",
        b"opt/local/tool/run",
        b"opt/local/motd",
        b"run",
    }
    get = open_store(f"dir://{home.blocks}").get
    assert read_content(nodes[b"opt/local/motd"], get) == b"hello again"


def test_excludes(home: Home, tmp_path: Path, source: Path) -> None:
    for name in ("a.pyc", "keep.pyc", "b.py", "cache/x", "sub/cache/y", "sub/c.pyc", "top/z"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).touch()
    patterns = home.path / "patterns"
    patterns.write_text("# compiled\n*.pyc\n\n!keep.pyc\n/top\n")
    home.run("new", tmp_path / "name")
    home.run("add", f"{source}/.", "--exclude-from", patterns, "--exclude", "cache/")
    home.run("seal", "out.flist")
    assert set(read_flist(home.path / "out.flist")) == {b"", b"keep.pyc", b"b.py", b"sub"}
    said = home.run("new", tmp_path / "name").stdout
    assert "seal" in said
    assert "invalid pattern" in home.run("add", source, "--exclude", "!", code=2).stderr
    home.run("abort", "--yes")


def test_a_seal_leaves_out_what_it_is_told_to(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    for name in ("etc/passwd", "var/cache/apt/a", "var/cache/b", "usr/x.log"):
        (mountpoint / name).parent.mkdir(parents=True, exist_ok=True)
        (mountpoint / name).write_bytes(b"content")
    summary = home.json("seal", "out.flist", "--exclude", "/var/cache/*", "--exclude", "*.log")
    nodes = read_flist(home.path / "out.flist")
    assert set(nodes) == {b"", b"etc", b"etc/passwd", b"var", b"var/cache", b"usr"}
    assert summary["files"] == 1


@pytest.mark.parametrize("mounted", [True, False])
def test_what_does_not_fit_is_named(home: Home, mountpoint: Path, source: Path, *, mounted: bool) -> None:
    (source / "there").mkdir()
    (source / "file").write_bytes(b"content")
    home.run("mount" if mounted else "new", mountpoint)
    home.run("add", f"{source}/.")
    (source / "there").rmdir()
    (source / "there").write_bytes(b"now a file")
    (source / "file").unlink()
    (source / "file").mkdir()
    (source / "file/inner").touch()
    (source / "good").touch()
    before = {**home.status(), "requests": None}
    said = home.run("add", f"{source}/.", code=11).stderr
    in_the_way = (
        f"{source}/file: something other than a directory already exists",
        f"{source}/there: a directory already exists",
    )
    assert said == (
        f"flistfs: {', '.join(in_the_way)}; nothing was added: --keep-going skips what does not fit\n"
    )
    assert {**home.status(), "requests": None} == before  # which is not incomplete either
    said = home.run("add", f"{source}/.", "--keep-going", code=11).stderr
    assert {line.partition("left out: ")[2] for line in said.splitlines() if "left out: " in line} == {
        *in_the_way
    }
    assert said.endswith("flistfs: 2 entries were left out\n")
    home.run("seal", "out.flist")
    assert set(read_flist(home.path / "out.flist")) == {b"", b"there", b"file", b"good"}


@pytest.mark.parametrize("mounted", [True, False])
def test_directories_go_through_links(home: Home, mountpoint: Path, source: Path, *, mounted: bool) -> None:
    (source / "root/usr/bin").mkdir(parents=True)
    (source / "root/usr/bin/sh").touch()
    (source / "root/bin").symlink_to("/usr/bin")
    (source / "app/bin/sub").mkdir(parents=True, mode=0o700)
    (source / "app/bin/sub/tool").write_bytes(b"tool")
    (source / "app/bin/sh").write_bytes(b"sh")
    home.run("mount" if mounted else "new", mountpoint)
    assert home.json("add", f"{source}/root/.")["replaced_count"] == 0
    if mounted:
        assert not (mountpoint / "usr/bin/sub").exists()  # which the kernel remembers
    said = home.run("add", f"{source}/app/.").stdout
    assert "1 entry took the place of what was there\n" in said
    assert home.json("add", f"{source}/app/bin")["replaced"] == [{"path": "bin/sh"}, {"path": "bin/sub/tool"}]
    if mounted:
        assert (mountpoint / "usr/bin/sub/tool").read_bytes() == b"tool"
    home.run("add", source / "app/bin/sh", "--to", "bin/new/deep")
    home.run("add", source / "app/bin/sh", "--to", "bin/sh/deep", code=11)
    everything = {b"bin", b"usr", b"usr/bin", b"usr/bin/sh", b"usr/bin/sub", b"usr/bin/sub/tool"}
    more = {b"usr/bin/new", b"usr/bin/new/deep", b"usr/bin/new/deep/sh"}
    home.run("seal", "out.flist")
    nodes = read_flist(home.path / "out.flist")
    assert set(nodes) == {b"", *everything, *more}
    assert nodes[b"usr/bin"].mode == 0o755  # what the link leads to keeps its own
    assert nodes[b"usr/bin/sub"].mode == 0o700


def test_a_link_is_replaced_when_that_is_wanted(home: Home, mountpoint: Path, source: Path) -> None:
    (source / "root/usr/bin").mkdir(parents=True)
    (source / "root/bin").symlink_to("usr/bin")
    (source / "app/bin").mkdir(parents=True)
    (source / "app/bin/tool").touch()
    home.run("mount", mountpoint)
    home.run("add", f"{source}/root/.")
    assert (mountpoint / "bin").is_symlink()
    home.run("add", f"{source}/app/.", "--replace-links")
    assert names_in(mountpoint / "bin") == ["tool"]
    refused = home.run("add", f"{source}/root/.", "--replace-links", code=11).stderr
    assert "bin: a directory already exists" in refused
    home.run("seal", "out.flist")


@pytest.mark.parametrize("mounted", [True, False])
def test_all_that_is_in_the_way_is_counted_and_much_of_it_named(
    home: Home, mountpoint: Path, source: Path, *, mounted: bool
) -> None:
    for number in range(30):
        (source / f"d{number:02}/below").mkdir(parents=True)
    home.run("mount" if mounted else "new", mountpoint)
    home.run("add", source, "--to", "a/b")
    for number in range(30):
        shutil.rmtree(source / f"d{number:02}/below")
        (source / f"d{number:02}/below").symlink_to("/")
    refused = home.run("add", source, "--to", "a/b", code=11).stderr
    paths, why = [f"{source}/d{number:02}/below" for number in range(30)], "a directory already exists"
    names = ", ".join(f"{path}: {why}" for path in paths[:20])
    assert f"flistfs: {names}, and 10 more (--json lists all); nothing was added: " in refused
    listed = home.run("add", source, "--to", "a/b", "--json", code=11)
    error = json.loads(listed.stdout)["error"]
    assert error["paths"] == [{"path": path, "why": why} for path in paths]
    assert (error["code"], error["count"]) == ("no-place", 30)
    assert refused == listed.stderr.splitlines(keepends=True)[-1]
    assert home.status()["incomplete"] == []
    home.run("add", source, "--to", "a/b", "--exclude", "below")
    home.run("abort", "--yes")


def test_what_would_be_read_while_it_is_written_is_refused(
    home: Home, mountpoint: Path, tmp_path: Path
) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "x").touch()
    said = home.run("add", tmp_path, "--to", "all", code=11).stderr
    assert "exclude it" in said
    (tmp_path / "home/harmless").touch()
    directories = ["mnt", "home/state", "home/data", "home/cache"]
    home.run("add", tmp_path, *(f"--exclude=/{tmp_path.name}/{directory}" for directory in directories))
    assert (mountpoint / tmp_path.name / "home/harmless").exists()
    home.run("seal", "out.flist", "--incomplete")


def test_a_source_that_is_not_there(home: Home, mountpoint: Path) -> None:
    home.run("new", mountpoint)
    assert "No such file" in home.run("add", "nowhere", code=11).stderr
    home.run("abort", "--yes")


def test_where_nothing_can_go(home: Home, mountpoint: Path, source: Path) -> None:
    (source / "root").mkdir()
    (source / "root/dead").symlink_to("gone")
    (source / "root/loop").symlink_to("loop")
    (source / "root/file").touch()
    (source / "app").mkdir()
    (source / "app/tool").touch()
    home.run("new", mountpoint)
    home.run("add", f"{source}/root/.")
    for to in ("dead", "dead/below", "loop", "file", "file/below"):
        for more in ([], ["--replace-links"], ["--keep-going"]):
            said = home.run("add", f"{source}/app/.", "--to", to, *more, code=11).stderr
            assert said == f"flistfs: --to {to}: it does not lead to a directory\n"
    for to in ("../x", "file/../app"):
        said = home.run("add", f"{source}/app/.", "--to", to, code=11).stderr
        assert said == f"flistfs: --to {to}: .. is not taken there; name the directory itself\n"
    assert home.status()["incomplete"] == []
    home.run("seal", "out.flist")
    assert set(read_flist(home.path / "out.flist")) == {b"", b"dead", b"loop", b"file"}


def test_ctrl_c_ends_an_add_and_a_seal_waits_for_none(home: Home, mountpoint: Path, source: Path) -> None:
    (source / "file").write_bytes(os.urandom(100_000))
    with running_redis() as server:
        home.run("mount", mountpoint, "--store", server.url)
        server.hang()
        with home.started("add", source, "--json") as add:
            assert add.stderr is not None
            assert json.loads(add.stderr.readline())["progress"]["phase"] == "add"
            assert "add is still at work" in home.run("seal", "out.flist", code=6).stderr
            add.send_signal(signal.SIGINT)
        assert add.returncode == 130
        server.resume()
        home.run("add", source)
        home.run("seal", "out.flist")
    assert b"source/file" in read_flist(home.path / "out.flist")
