"""Seals of mounts that ended, were empty, or are interrupted, and what they show."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.commands import (
    FLISTFS,
    TIMEOUT,
    Home,
    is_mounted,
    shell,
    umount,
    wait_until,
    watched,
)
from tests.e2e.test_seal import AS_ROOT, assert_in_use
from tests.independent_reader import read_content, read_flist
from tests.redis_server import RedisServer, running_redis


def test_an_unmounted_session_is_sealed_without_a_mount(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "file").write_bytes(os.urandom(1 << 20))
    umount(mountpoint)
    wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
    summary = home.json("seal", "out.flist")
    assert (summary["files"], summary["new_blocks"]) == (1, 2)
    assert home.status()["state"] == "sealed"


def test_a_session_whose_daemon_died_is_shown_and_sealed(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    content = os.urandom(3_000_000)
    (mountpoint / "file").write_bytes(content)
    (pid,) = home.daemons()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: home.status()["state"] == "died", "the death is seen")
    assert "daemon died" in home.run("status").stdout
    home.run("seal", "out.flist")
    assert not is_mounted(mountpoint)
    node = read_flist(home.path / "out.flist")[b"file"]
    assert (
        read_content(node, lambda name: (home.blocks / found(home, name)).read_bytes(), fast=True) == content
    )


def found(home: Home, name: bytes) -> Path:
    (path,) = home.blocks.rglob(name.decode())
    return path


def test_a_session_whose_daemon_died_goes_on_with_mount(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "file").write_text("before")
    inode = (mountpoint / "file").stat().st_ino
    (pid,) = home.daemons()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: home.status()["state"] == "died", "the death is seen")
    with pytest.raises(OSError, match="not connected"):
        (mountpoint / "file").read_text()
    assert "is resumed" in home.run("mount", mountpoint).stdout
    assert (mountpoint / "file").read_text() == "before"
    assert (mountpoint / "file").stat().st_ino == inode
    home.run("seal", "out.flist")


def test_an_empty_flist_is_warned_of(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    sealed = home.run("seal", "out.flist")
    assert (
        sealed.stderr == f"flistfs: warning: {home.path / 'out.flist'} is empty: there was nothing to seal\n"
    )
    home.run("mount", mountpoint)
    (mountpoint / "directory").mkdir()
    sealed = home.run("seal", "full.flist", "--json")
    assert sealed.stderr == ""
    assert json.loads(sealed.stdout)["warnings"] == []


def test_files_in_the_bare_directory_of_an_empty_session_are_named(home: Home, mountpoint: Path) -> None:
    """The mount had failed, or ended, and nobody had looked."""
    for command, code in ((["seal", "a.flist", "--json"], 5), (["wait", "--json"], 0)):
        home.run("mount", mountpoint, *(["--seal-to", "b.flist"] if command[0] == "wait" else []))
        umount(mountpoint)
        (mountpoint / "file").write_text("content")
        if code:
            home.run("wait", code=code)
        sealed = home.run(*command)
        assert f"{mountpoint}, which is not mounted, has files in it" in sealed.stderr
        answer = json.loads(sealed.stdout)
        (warning,) = answer.get("sealed", answer)["warnings"]
        assert warning in sealed.stderr
        (mountpoint / "file").unlink()


def test_sealing_what_is_sealed_says_so(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    home.run("seal", "out.flist")
    assert "no open session" in home.run("seal", "again.flist", code=5).stderr
    assert "has ended: sealed" in home.run("seal", "again.flist", "--mount", mountpoint, code=5).stderr


def test_a_terminal_shows_progress_and_a_pipe_does_not(
    home: Home, mountpoint: Path, redis: RedisServer
) -> None:
    home.run("mount", mountpoint, "--store", redis.url)
    (mountpoint / "file").write_bytes(os.urandom(1 << 20))
    quiet = home.run("seal", "quiet.flist")
    assert quiet.stderr == ""
    home.run("mount", mountpoint, "--store", redis.url)
    redis.hang()
    (mountpoint / "file").write_bytes(os.urandom(10 << 20))
    leader, follower = pty.openpty()
    command: list[str | Path] = [FLISTFS, "seal", "shown.flist"]
    process = subprocess.Popen(
        command,
        cwd=home.path,
        env=home.environment(TERM="xterm", COLUMNS="100", LINES="30"),
        stderr=follower,
        stdout=subprocess.DEVNULL,
    )

    def go_on(said: bytes) -> None:
        if b"Storing blocks" in said:
            redis.resume()

    try:
        with watched(process):
            os.close(follower)
            shown = read_terminal(leader, go_on)
    finally:
        redis.resume()
    assert process.returncode == 0
    assert "Storing blocks" in shown


def read_terminal(leader: int, hear: Callable[[bytes], object] = len) -> str:
    """Read what a process writes to a terminal until it has closed it; `hear` gets what was said so far."""
    said = b""
    while select.select([leader], [], [], TIMEOUT)[0]:
        try:
            said += os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
        hear(said)
    os.close(leader)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode())


def test_extended_attributes_are_refused_and_counted(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "file").touch()
    for _ in range(2):
        with pytest.raises(OSError, match="not supported"):
            os.setxattr(mountpoint / "file", "user.colour", b"green")
    sealed = home.run("seal", "out.flist")
    assert "note: 2 extended attributes are left out" in sealed.stdout


def test_bad_requests_are_refused_in_one_line(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    for arguments, env in (
        (["--owner", "root"], {}),
        (["--owner", "1:99999999999"], {}),
        ([], {"SOURCE_DATE_EPOCH": "yesterday"}),
    ):
        refused = home.run("seal", "out.flist", *arguments, code=2, env=env)
        assert len(refused.stderr.splitlines()) == 1
    assert_in_use(home, mountpoint)
    summary = json.loads(home.run("seal", "out.flist", "--json").stdout)
    assert summary["out"] == str(home.path / "out.flist")


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount inside")
def test_only_our_own_mount_is_ever_unmounted(home: Home, mountpoint: Path) -> None:
    """The user unmounts while the package is built: what lies under the mount is not the seal's."""
    shell(f"mount -t tmpfs below {mountpoint}", cwd=home.path)
    try:
        with running_redis() as server:
            home.run("mount", mountpoint, "--store", server.url)
            (mountpoint / "file").write_bytes(b"content")
            home.run("sync")
            server.hang()  # so that the seal waits in its check
            with home.started("seal", "out.flist") as seal:
                wait_until(lambda: home.status().get("sealing"), "the seal has begun")
                umount(mountpoint)
                server.resume()
            assert seal.returncode == 0
        assert len(read_flist(home.path / "out.flist")) == 2
        assert is_mounted(mountpoint)
    finally:
        shell(f"umount {mountpoint}", cwd=home.path)


def test_a_refusal_while_mounted_is_not_the_sessions_result(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["exists"]
    home.run("mount", mountpoint)
    (home.path / "out.flist").touch()
    home.run("seal", "out.flist", code=9)
    umount(mountpoint)
    assert "without being sealed" in home.run("wait", "--mount", mountpoint, code=5).stderr
    home.run("seal", "other.flist")


def test_an_output_that_is_a_link_to_nothing_exists(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["exists"]
    (home.path / "out.flist").symlink_to("nowhere")
    assert "exists" in home.run("mount", mountpoint, "--seal-to", "out.flist", code=9).stderr
    home.run("mount", mountpoint)
    assert "exists" in home.run("seal", "out.flist", code=9).stderr
    assert is_mounted(mountpoint)
    home.run("seal", "out.flist", "--force")


def test_ctrl_c_ends_a_seal_that_waits_and_the_mount_stays_in_use(home: Home, mountpoint: Path) -> None:
    with running_redis() as server:
        home.run("mount", mountpoint, "--store", server.url)
        (mountpoint / "file").write_bytes(b"content")
        home.run("sync")
        server.hang()
        with home.started("seal", "out.flist") as seal:
            wait_until(lambda: home.status().get("sealing"), "the seal has begun")
            seal.send_signal(signal.SIGINT)
        assert seal.returncode == 130
        server.resume()
        wait_until(lambda: not home.status()["sealing"], "the daemon has given the seal up")
        assert is_mounted(mountpoint)
        (mountpoint / "later").write_bytes(b"more")
        home.run("seal", "out.flist")
    assert {b"file", b"later"} <= set(read_flist(home.path / "out.flist"))


def test_a_mount_that_ends_stores_what_is_there(home: Home, mountpoint: Path) -> None:
    """So that the next command need not, and a server that stops services finds nothing on its way."""
    home.run("mount", mountpoint)
    for number in range(50):
        (mountpoint / f"{number}").write_bytes(os.urandom(20_000))
    (daemon,) = home.daemons()
    os.kill(daemon, signal.SIGTERM)
    wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
    assert sum(path.is_file() for path in home.blocks.rglob("*")) == 50
    home.run("seal", "out.flist")


def test_a_seal_right_after_an_unmount_waits_for_the_daemon(home: Home, mountpoint: Path) -> None:
    for number in range(5):
        home.run("mount", mountpoint)
        (mountpoint / "file").write_bytes(os.urandom(3_000_000))
        umount(mountpoint)
        home.run("seal", f"{number}.flist")
