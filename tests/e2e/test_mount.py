"""Mounting: what it refuses, what it lets in, and that blocks leave while files are still being written."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import redis as redis_client

from flistfs.fuse import mounts
from tests.e2e.commands import (
    FLISTFS,
    TIMEOUT,
    Home,
    is_mounted,
    let_others_reach,
    umount,
    umount_soon,
    wait_until,
)
from tests.independent_reader import read_flist
from tests.redis_server import RedisServer, free_port, running_redis

AS_ROOT = os.geteuid() == 0
DAEMON = "flistfs.daemons.session"


def test_answers_when_the_command_returns(home: Home, mountpoint: Path) -> None:
    said = home.run("mount", mountpoint).stdout
    (mountpoint / "file").write_text("at once")
    assert (mountpoint / "file").read_text() == "at once"
    assert str(mountpoint) in said
    assert "flistfs seal" in said
    home.run("seal", "out.flist")


def test_large_files_are_copied_a_chunk_at_a_time(home: Home, mountpoint: Path, source: Path) -> None:
    home.run("mount", mountpoint)
    large = source / "large"
    large.write_bytes(secrets.token_bytes(4 << 20))
    subprocess.run(["cp", large, mountpoint], check=True, timeout=TIMEOUT)
    (session,) = home.listed("status")
    assert session["requests"]["write"] <= 8
    home.run("seal", "out.flist")


def test_json_tells_where(home: Home, mountpoint: Path) -> None:
    told = home.json("mount", mountpoint)
    assert told["mountpoint"] == str(mountpoint)
    assert told["store"] == f"dir://{home.blocks}"
    assert not told["resumed"]
    assert Path(told["state_directory"]).is_dir()
    home.run("seal", "out.flist")


def test_a_relative_path_and_a_link_name_the_same_mount(home: Home, mountpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(mountpoint)
    home.run("mount", "../link", cwd=home.path)
    assert is_mounted(mountpoint)
    (mountpoint / "file").touch()
    home.run("seal", "out.flist", "--mount", "../mnt")
    assert b"file" in read_flist(home.path / "out.flist")


def test_started_twice_is_refused(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "file").touch()
    refused = home.run("mount", mountpoint, code=4)
    assert refused.stderr == f"flistfs: {mountpoint} is mounted already: flistfs status shows its session\n"
    assert home.status()["mountpoint"] == str(mountpoint)
    elsewhere = {"XDG_STATE_HOME": str(home.path / "elsewhere")}
    assert "XDG_STATE_HOME" in home.run("mount", mountpoint, code=4, env=elsewhere).stderr
    home.run("seal", "out.flist")
    assert b"file" in read_flist(home.path / "out.flist")


def test_a_sealed_flist_that_is_mounted_there_is_no_session(
    home: Home, mountpoint: Path, source: Path
) -> None:
    home.run("pack", source, "a.flist")
    home.run("mount", "--read-only", "a.flist", mountpoint)
    refused = home.run("mount", mountpoint, code=4).stderr
    assert refused.endswith(f"it shows a sealed flist; end it with: umount {mountpoint}\n")
    umount(mountpoint)


@pytest.mark.parametrize("base", [[], ["--from", "a.flist"]], ids=["again", "from a base"])
def test_status_shows_a_session_that_is_about_to_start(
    home: Home, mountpoint: Path, source: Path, base: list[str]
) -> None:
    home.expected_log += ["interrupted before anything was mounted"]
    with running_redis() as server:
        if base:
            (source / "file").write_text("content")
            home.run("pack", source, "a.flist", "--store", server.url)
        else:
            home.run("mount", mountpoint, "--store", server.url)
            umount(mountpoint)
            home.run("wait", code=5)
        server.hang()
        with home.started("mount", mountpoint, *base, "--store", server.url) as mount:
            wait_until(
                lambda: any(DAEMON in home.processes().get(pid, "") for pid in home.daemons()),
                "the daemon has the session",
            )
            (daemon,) = home.daemons()
            status = home.status()
            assert (status["state"], status.get("error")) == ("busy", None)
            assert f"process {daemon} is at work in it" in home.run("status").stdout
            mount.send_signal(signal.SIGINT)
            mount.communicate()
        server.resume()
    assert [session["state"] for session in home.listed("status")] == ([] if base else ["unmounted"])


def test_two_starts_at_the_same_time_make_one_mount(home: Home, mountpoint: Path) -> None:
    with home.started("mount", mountpoint) as one, home.started("mount", mountpoint) as other:
        for start in (one, other):
            start.communicate()
    assert sorted(start.returncode == 0 for start in (one, other)) == [False, True]
    home.expected_log += ["in use by process"]
    (mountpoint / "file").touch()
    home.run("seal", "out.flist")


def test_inside_another_mount_is_refused(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "inner").mkdir()
    refused = home.run("mount", mountpoint / "inner", code=4)
    assert "is inside the flistfs mount" in refused.stderr
    home.run("seal", "out.flist")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: (path / "file").touch(), "is not empty"),
        (lambda path: path.rmdir(), "make it first: mkdir "),
        (lambda path: (path.rmdir(), path.touch()), "Not a directory"),
    ],
)
def test_what_cannot_be_mounted_on_is_refused(
    home: Home, mountpoint: Path, make: object, reason: str
) -> None:
    assert callable(make)
    make(mountpoint)
    assert reason in home.run("mount", mountpoint, code=4).stderr
    assert home.listed("status") == []


def test_what_was_written_past_a_session_is_brought_in_as_the_message_says(
    home: Home, tmp_path: Path
) -> None:
    mountpoint = tmp_path.resolve() / "a place"
    mountpoint.mkdir()
    home.run("mount", mountpoint)
    (mountpoint / "in the session").write_text("first")
    umount(mountpoint)
    home.run("wait", code=5)
    (mountpoint / "past it").write_text("second")
    for where in ([], ["--foreground"]):
        refused = home.run("mount", mountpoint, *where, code=4).stderr
        assert home.status()["state_directory"] in refused
    assert not is_mounted(mountpoint)
    (said,) = re.findall(r"Bring it in with: flistfs (.*?);", refused)
    home.run(*shlex.split(said))
    # And on, both ways.
    (mountpoint / "past it").unlink()
    home.run("mount", mountpoint)
    assert sorted(path.name for path in mountpoint.iterdir()) == ["in the session", "past it"]
    home.run("seal", "out.flist")
    assert read_flist(home.path / "out.flist")[b"past it"].size == len("second")


def test_a_dead_mount_stays_until_it_is_mounted_again(home: Home, mountpoint: Path) -> None:
    """Else whoever writes there would write into the bare directory."""
    home.expected_log += ["127.0.0.1", "is not empty"]
    with running_redis() as server:
        home.run("mount", mountpoint, "--store", server.url)
        (pid,) = home.daemons()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: mounts.is_dead(mountpoint), "the mount is dead")
        server.stop()
        home.run("mount", mountpoint, code=3)
        home.run("add", "/etc/hostname", "--timeout", "0", code=3)
        home.run("seal", "out.flist", "--timeout", "0", code=3)
        assert mounts.is_dead(mountpoint)
        server.start()
        home.run("mount", mountpoint)
        (mountpoint / "file").touch()
        home.run("add", "/etc/hostname")
        home.run("seal", "out.flist")


def test_what_lies_below_a_dead_mount_is_not_hidden(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["is not empty"]
    bare = os.open(mountpoint, os.O_RDONLY)
    home.run("mount", mountpoint)
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=bare))
    os.close(bare)
    (pid,) = home.daemons()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: mounts.is_dead(mountpoint), "the mount is dead")
    assert "Bring it in with" in home.run("mount", mountpoint, code=4).stderr
    assert [path.name for path in mountpoint.iterdir()] == ["file"]
    assert home.status()["state"] == "unmounted"
    home.run("abort", "--yes")


def test_a_store_that_is_down_is_refused(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["does not answer", "cannot be reached", "127.0.0.1"]
    refused = home.run("mount", mountpoint, "--store", f"ardb://127.0.0.1:{free_port()}", code=3)
    assert "ardb://127.0.0.1" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not is_mounted(mountpoint)
    assert home.listed("status") == []


def test_a_wrong_password_is_refused_and_no_password_shown(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["password"]
    with running_redis(password="right-secret") as server:
        url = f"redis://:wrong-secret@127.0.0.1:{server.port}"
        refused = home.run("mount", mountpoint, "--store", url, code=3)
        assert "password" in refused.stderr
        assert "wrong-secret" not in refused.stderr + home.logs()


@pytest.mark.skipif(not AS_ROOT, reason="only root can hide a device")
def test_without_dev_fuse_it_says_how_to_get_it(home: Home, mountpoint: Path) -> None:
    script = f"mount -t tmpfs none /dev && exec {FLISTFS} mount {mountpoint}"
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-euc", script],
        env=home.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert done.stderr.startswith("flistfs: /dev/fuse cannot be opened")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("given", ["url", "variable", "store variable"])
def test_a_password_is_seen_nowhere(home: Home, mountpoint: Path, given: str) -> None:
    secret = secrets.token_hex(16)
    with running_redis(password=secret) as server:
        url = f"redis://127.0.0.1:{server.port}"
        with_secret = f"redis://:{secret}@127.0.0.1:{server.port}"
        arguments, env = {
            "url": (["--store", with_secret], {}),
            "variable": ([f"--store={url}"], {"FLISTFS_STORE_PASSWORD": secret}),
            "store variable": ([], {"FLISTFS_STORE": with_secret}),
        }[given]
        told = home.run("mount", mountpoint, *arguments, env=env)
        (mountpoint / "file").write_text("content")
        status = home.run("status", "--json")
        lines = home.processes().values()
        assert any(DAEMON in line for line in lines)
        assert len(lines) > 1  # the encoders
        assert not [line for line in lines if secret in line]
        sealed = home.run("seal", "out.flist")
        said = told.stdout + told.stderr + status.stdout + sealed.stdout + sealed.stderr + home.logs()
        assert secret not in said
        assert url in status.stdout
        for path in [*home.path.rglob("*"), home.path / "out.flist"]:
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_a_password_on_the_command_line_is_gone_while_it_runs(home: Home, mountpoint: Path) -> None:
    with running_redis(password="s3cr3t") as server:
        url = f"redis://:s3cr3t@127.0.0.1:{server.port}"
        with home.started("mount", mountpoint, "--foreground", "--store", url) as process:
            wait_until(lambda: is_mounted(mountpoint), "mounted")
            line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
            umount_soon(mountpoint)
            _, said = process.communicate()
    assert b"s3cr3t" not in line
    assert "s3cr3t" not in said
    assert process.returncode == 0


def test_foreground_logs_to_standard_error_and_ends_with_the_mount(home: Home, mountpoint: Path) -> None:
    with home.started("mount", mountpoint, "--foreground") as process:
        wait_until(lambda: is_mounted(mountpoint), "mounted")
        (mountpoint / "file").write_text("content")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 0
    assert f"{mountpoint} is mounted" in said
    assert not is_mounted(mountpoint)
    home.run("seal", "out.flist")
    assert b"file" in read_flist(home.path / "out.flist")


def test_blocks_go_while_the_file_is_still_being_written(
    home: Home, mountpoint: Path, redis: RedisServer
) -> None:
    client = redis_client.Redis(port=redis.port)
    client.flushall()
    home.run("mount", mountpoint, "--store", redis.url)
    seen = []
    with (mountpoint / "large").open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(os.urandom(4 << 20))
            seen.append(client.dbsize())
            time.sleep(0.02)
        wait_until(lambda: client.dbsize() >= 390, "all but the last of 400 blocks are stored")
    assert any(0 < count < 300 for count in seen), seen
    summary = json.loads(home.run("seal", "out.flist", "--json").stdout)
    assert summary["size"] == 200 << 20
    assert summary["new_blocks"] == 400


def test_what_is_left_alone_is_stored_though_it_is_open(
    home: Home, mountpoint: Path, redis: RedisServer
) -> None:
    client = redis_client.Redis(port=redis.port)
    client.flushall()
    home.run("mount", mountpoint, "--store", redis.url)
    with (mountpoint / "log").open("wb", buffering=0) as file:
        file.write(os.urandom(1000))
        wait_until(lambda: client.dbsize() == 1, "the block is stored")
        file.write(os.urandom(1000))
        assert (mountpoint / "log").stat().st_size == 2000
    home.run("seal", "out.flist")


@pytest.mark.skipif(not AS_ROOT, reason="only root can make devices")
def test_devices_and_set_id_programs_work_for_root(home: Home, mountpoint: Path, tmp_path: Path) -> None:
    let_others_reach(mountpoint)
    home.run("mount", mountpoint, "--rootfs")
    os.mknod(mountpoint / "null", 0o020666, os.makedev(1, 3))
    (mountpoint / "null").write_text("nothing")
    shutil.copy("/usr/bin/id", mountpoint / "id")
    (mountpoint / "id").chmod(0o4755)
    who = subprocess.run(
        [mountpoint / "id", "-u"], user=65534, group=65534, extra_groups=[], capture_output=True, check=True
    )
    assert who.stdout == b"0\n"
    # The kernel checks permissions once others may enter.
    (mountpoint / "secret").touch(mode=0o600)
    refused = subprocess.run(["cat", mountpoint / "secret"], user=65534, group=65534, check=False)
    assert refused.returncode == 1
    home.run("seal", "out.flist")


@pytest.mark.skipif(not AS_ROOT, reason="only root can run a command as another user")
def test_nobody_else_enters_without_allow_other(home: Home, mountpoint: Path, tmp_path: Path) -> None:
    let_others_reach(mountpoint)
    home.run("mount", mountpoint)
    refused = subprocess.run(
        ["ls", mountpoint], user=65534, group=65534, capture_output=True, check=False, text=True
    )
    assert "Permission denied" in refused.stderr
    home.run("seal", "out.flist")


def test_a_session_in_a_directory_of_the_users_choice(home: Home, mountpoint: Path, tmp_path: Path) -> None:
    # Longer than a socket's address may be.
    state = tmp_path / ("deep" * 20) / ("er" * 40)
    home.run("mount", mountpoint, "--state", state)
    (mountpoint / "file").touch()
    assert (state / "journal").is_dir()
    assert home.status()["state_directory"] == str(state)
    home.run("seal", "out.flist")
    assert home.status()["state"] == "sealed"
    assert not (state / "journal").exists()


def test_several_sessions_run_side_by_side(home: Home, tmp_path: Path) -> None:
    points = [tmp_path.resolve() / name for name in ("one", "two")]
    for point in points:
        point.mkdir()
        home.run("mount", point)
        (point / point.name).write_text("the same content")
    refused = home.run("seal", "out.flist", code=5)
    assert all(str(point) in refused.stderr for point in points)
    for point in points:
        home.run("seal", f"{point.name}.flist", "--mount", point)
        assert set(read_flist(home.path / f"{point.name}.flist")) == {b"", point.name.encode()}
