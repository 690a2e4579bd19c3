"""One thing at a time, and nothing in halves: adds beside other commands, and adds that are broken off."""

from __future__ import annotations

import errno
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.e2e.commands import Home, is_mounted, umount, umount_soon, wait_until
from tests.generation1 import open_store
from tests.independent_reader import read_content, read_flist
from tests.redis_server import running_redis


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
