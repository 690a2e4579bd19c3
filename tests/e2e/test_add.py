"""What is put into a session past the mount: the same as by `cp -a`, seen at once, or a clear refusal."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.commands import Home, is_mounted, umount, umount_soon, wait_until
from tests.generation1 import open_store
from tests.independent_reader import read_content, read_flist
from tests.redis_server import running_redis
from tests.trees import Snap, assert_flist_equals, below, make_everything, snapshot


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


# One thing at a time, and nothing in halves


def test_a_seal_an_add_and_an_abort_exclude_each_other(
    home: Home, mountpoint: Path, source: Path, tmp_path: Path
) -> None:
    with running_redis() as server:
        home.run("mount", mountpoint, "--store", server.url)
        server.hang()
        (mountpoint / "file").write_bytes(b"content")
        with home.started("seal", "out.flist") as seal:
            wait_until(lambda: home.status()["sealing"], "the seal is at work")
            for command in (("add", source), ("abort", "--yes"), ("seal", "other.flist")):
                refused = home.run(*command, code=6)
                assert "flistfs seal is still at work in this session; wait for it" in refused.stderr
            assert not (mountpoint / "source").exists()
            assert home.status()["incomplete"] == []
            server.resume()
        assert seal.returncode == 0
    assert read_flist(home.path / "out.flist").keys() == {b"", b"file"}


def test_a_command_at_work_in_a_session_without_a_mount_excludes_the_others(
    home: Home, mountpoint: Path, source: Path
) -> None:
    with running_redis() as server:
        home.run("new", mountpoint, "--store", server.url)
        server.hang()
        with home.started("add", source, "--json") as add:
            wait_until(lambda: home.status()["state"] == "busy", "the add is at work")
            for command in (("seal", "out.flist"), ("add", source), ("abort", "--yes"), ("sync",)):
                refused = home.run(*command, code=6)
                assert f"flistfs add (process {add.pid}) is working on the session of" in refused.stderr
            server.resume()
        assert add.returncode == 0
        home.run("seal", "out.flist")
    assert b"source" in read_flist(home.path / "out.flist")


@pytest.mark.parametrize("mounted", [True, False])
def test_a_tree_to_which_something_was_not_added_whole_is_not_sealed(
    home: Home, mountpoint: Path, source: Path, *, mounted: bool
) -> None:
    home.expected_log += ["sealing failed: the tree is incomplete"]
    (source / "removed").mkdir()
    shutil.copytree(source, source.with_name("second"), symlinks=True, dirs_exist_ok=True)
    home.run("mount" if mounted else "new", mountpoint)
    home.run("add", source.with_name("missing"), code=11)
    assert home.status()["incomplete"] == []  # nothing of it is in the tree
    home.run("add", source, "--to", "in/here")
    with (endless := source / "endless").open("wb") as file:
        file.truncate((198 << 30) + 1)
    home.run("add", source, "--to", "/in/here/", code=11)
    home.run("add", source.with_name("second"), "--to", "in/here")  # another one makes nothing good
    (said,) = home.status()["incomplete"]
    assert said == {"source": str(source), "to": "in/here"}
    assert f"incomplete: {source} to in/here was not added whole" in home.run("status").stdout
    refused = home.run("seal", "out.flist", code=5)
    assert (
        f"{source} to in/here was not added whole; add it again, or seal what is there with" in refused.stderr
    )
    assert is_mounted(mountpoint) == mounted
    endless.unlink()
    home.run("add", source, "--to", "in/here")
    home.run("seal", "out.flist")
    assert b"in/here/second" in read_flist(home.path / "out.flist")


def test_an_add_clears_no_mark_of_another_that_is_at_work(home: Home, mountpoint: Path, source: Path) -> None:
    home.expected_log += ["sealing failed: the tree is incomplete"]
    (source / "large").write_bytes(os.urandom(1 << 20))
    with running_redis() as server:
        home.run("mount", mountpoint, "--store", server.url)
        server.hang()
        with home.started("add", source) as add:
            wait_until(lambda: home.status()["incomplete"], "the add is at work")
            home.run("add", source, "--exclude", "*")  # needs no store
            assert len(home.status()["incomplete"]) == 1
            add.send_signal(signal.SIGINT)
        server.resume()
        assert add.returncode == 130
        assert "was not added whole" in home.run("seal", "out.flist", code=5).stderr
        home.run("add", source)
        home.run("seal", "out.flist")


def test_an_add_that_the_store_keeps_out_is_noted(home: Home, mountpoint: Path, source: Path) -> None:
    home.expected_log += ["sealing failed: the tree is incomplete"]
    with running_redis() as server:
        home.run("new", mountpoint, "--store", server.url)
        home.run("add", "nowhere", code=11)
        assert home.status()["incomplete"] == []
        server.kill()
        home.run("add", source, code=3)
        server.start()
        assert "was not added whole" in home.run("seal", "out.flist", code=5).stderr
        home.run("add", "nowhere", code=11)  # says nothing of the other
        home.run("add", source)
        home.run("seal", "out.flist")


def test_an_add_that_was_killed_leaves_a_tree_that_is_not_sealed_unasked(
    home: Home, mountpoint: Path, source: Path
) -> None:
    home.expected_log += ["sealing failed: the tree is incomplete"]
    with running_redis() as server:
        home.run("mount", mountpoint, "--store", server.url)
        (source / "large").write_bytes(os.urandom(1 << 20))
        server.hang()
        with home.started("add", f"{source}/."):
            wait_until(lambda: home.status()["incomplete"], "the add is at work")
            (pid,) = home.daemons()
            os.kill(pid, signal.SIGKILL)
        server.resume()
        assert "was not added whole" in home.run("seal", "out.flist", code=5).stderr
        sealed = home.json("seal", "out.flist", "--incomplete")
    assert sealed["incomplete"] == [{"source": f"{source}/.", "to": ""}]
    read_flist(home.path / "out.flist")
    home.run("new", mountpoint)
    assert home.status()["incomplete"] == []
    home.run("abort", "--yes")


def test_an_add_that_umount_breaks_off_is_not_sealed_by_it(
    home: Home, mountpoint: Path, source: Path
) -> None:
    with running_redis() as server:
        home.run("mount", mountpoint, "--store", server.url, "--seal-to", "out.flist")
        home.expected_log += ["was not added whole"]
        (source / "large").write_bytes(os.urandom(1 << 20))
        server.hang()
        with home.started("add", source) as add:
            wait_until(lambda: home.status()["incomplete"], "the add is at work")
            umount_soon(mountpoint)
            server.resume()
        assert add.returncode == 5
        assert "was not added whole" in home.run("wait", "--mount", mountpoint, code=5).stderr
    assert not (home.path / "out.flist").exists()
    home.run("abort", "--yes")


def test_a_session_cannot_be_made_twice(home: Home, tmp_path: Path) -> None:
    home.run("new", tmp_path / "name")
    assert "already" in home.run("new", tmp_path / "name", code=5).stderr
    home.run("seal", "out.flist")
    home.run("new", tmp_path / "name")
    home.run("abort", "--yes")


def test_a_new_session_wants_a_store_that_answers(home: Home, tmp_path: Path) -> None:
    down = ["--store", "redis://127.0.0.1:1"]
    home.run("new", tmp_path / "name", *down, code=3)
    assert home.listed("status") == []
    home.run("new", tmp_path / "name", *down, "--offline")
    home.run("abort", "--yes")


def test_a_new_session_can_be_mounted(home: Home, mountpoint: Path, source: Path) -> None:
    (source / "file").write_bytes(b"content")
    home.run("new", mountpoint)
    home.run("add", f"{source}/.")
    assert "is resumed" in home.run("mount", mountpoint).stdout
    assert (mountpoint / "file").read_bytes() == b"content"
    umount(mountpoint)
    home.run("seal", "out.flist")  # at once: the daemon may still be ending
    assert b"file" in read_flist(home.path / "out.flist")


def test_extended_attributes_are_counted_or_kept(home: Home, mountpoint: Path, source: Path) -> None:
    (source / "file").touch()
    try:
        os.setxattr(source / "file", "user.test", b"value")
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            pytest.skip("the file system here has no extended attributes")
        raise
    home.run("mount", mountpoint, "--xattr")
    home.run("add", f"{source}/.")
    assert os.getxattr(mountpoint / "file", "user.test") == b"value"
    assert home.json("seal", "out.flist")["unrepresentable"]["xattrs"] == 1
    home.run("mount", mountpoint)
    home.run("add", f"{source}/.")
    assert home.json("seal", "other.flist")["unrepresentable"]["xattrs"] == 1


def test_the_processes_that_encode_may_die(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["the process that encodes has ended"]
    home.run("mount", mountpoint)
    contents = {f"file{number}": os.urandom(300_000) for number in range(20)}
    (daemon,) = home.daemons()
    for name, data in contents.items():
        (mountpoint / name).write_bytes(data)
        for child in Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
    home.run("seal", "out.flist")
    nodes = read_flist(home.path / "out.flist")
    get = open_store(f"dir://{home.blocks}").get
    assert {name: read_content(nodes[name.encode()], get, fast=True) for name in contents} == contents


def test_a_block_of_which_a_part_is_left_is_stored_again(home: Home, mountpoint: Path, source: Path) -> None:
    """What a power cut may leave of a block in a directory counts as none."""
    data = os.urandom(200_000)
    (source / "file").write_bytes(data)
    for out in ("first.flist", "second.flist"):
        home.run("mount", mountpoint)
        (mountpoint / "file").write_bytes(data)
        home.run("seal", out)
        (block,) = (path for path in home.blocks.rglob("*") if path.is_file())
        whole = block.read_bytes()
        os.truncate(block, 100_000)
    os.truncate(block, 0)
    home.run("mount", mountpoint)
    (mountpoint / "file").write_bytes(data)
    home.run("seal", "third.flist")
    assert block.read_bytes() == whole
