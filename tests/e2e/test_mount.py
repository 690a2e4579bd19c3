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
import sys
import time
from pathlib import Path

import pytest
import redis as redis_client

from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.settings import State
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
from tests.stores.fake_server import fake_server

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


def test_another_store_than_the_sessions_is_refused(home: Home, mountpoint: Path, redis: RedisServer) -> None:
    home.run("mount", mountpoint)
    umount(mountpoint)
    home.run("wait", "--mount", mountpoint, code=5)
    refused = home.run("mount", mountpoint, "--store", redis.url, code=5)
    assert "stores its blocks in dir://" in refused.stderr
    home.run("seal", "out.flist")


def test_a_state_directory_with_other_things_in_it_is_refused(
    home: Home, mountpoint: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "project"
    for name in ("log", "journal", "result"):
        (mine / name).mkdir(parents=True)
        (mine / name / "precious").write_text("mine")
    refused = home.run("mount", mountpoint, "--state", mine, code=5)
    assert "does not contain a session" in refused.stderr
    assert sorted(path.name for path in mine.rglob("precious")) == ["precious"] * 3
    assert not is_mounted(mountpoint)


def test_a_state_directory_that_is_gone_can_be_replaced(home: Home, mountpoint: Path, tmp_path: Path) -> None:
    home.run("mount", mountpoint, "--state", tmp_path / "first")
    home.run("abort", "--yes")
    shutil.rmtree(tmp_path / "first")
    home.run("mount", mountpoint, "--state", tmp_path / "second")
    assert home.status()["state_directory"] == str(tmp_path / "second")
    home.run("seal", "out.flist")


def test_the_open_session_of_another_mount_point_is_refused(
    home: Home, mountpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    home.run("mount", mountpoint, "--state", tmp_path / "state")
    umount(mountpoint)
    home.run("wait", "--mount", mountpoint, code=5)
    refused = home.run("mount", tmp_path / "other", "--state", tmp_path / "state", code=5)
    assert f"open session of {mountpoint}" in refused.stderr
    home.run("seal", "out.flist", "--mount", mountpoint)


def test_a_refused_mount_leaves_the_last_result(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["127.0.0.1", "cannot be mounted"]
    home.run("mount", mountpoint)
    home.run("seal", "out.flist")
    home.run("mount", mountpoint, code=2, env={"SOURCE_DATE_EPOCH": "yesterday"})
    home.run("mount", mountpoint, "--store", f"redis://127.0.0.1:{free_port()}", code=3)
    home.run("mount", mountpoint, "-o", "bogus", code=4)
    home.run("mount", mountpoint, "-o", "bogus", "--foreground", code=4)
    assert home.status()["state"] == "sealed"
    assert home.status()["result"]["exit_code"] == 0
    assert "bogus" in home.run("wait", "--mount", mountpoint, code=4).stderr  # of the latest mount


def test_a_mount_that_never_was_leaves_no_session(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["cannot be mounted"]
    home.run("mount", mountpoint, "-o", "bogus", "--foreground", code=4)
    home.run("mount", mountpoint, "-o", "bogus", code=4)
    assert home.listed("status") == []


def test_a_foreground_daemon_takes_a_long_router(home: Home, mountpoint: Path) -> None:
    """One that is longer than what a pipe holds while nobody reads it."""
    pools = [f"a-name-of-some-length-for-pool-{number}" for number in range(1000)]
    lines = ["pools:", *(f'  {pool}:\n    "00:FF": ardb://{pool}:16379' for pool in pools)]
    router = "\n".join([*lines, f"lookup: [{', '.join(pools)}]"])
    assert len(router) > 1 << 16
    (home.path / "router.yaml").write_text(router)
    options = ["--foreground", "--seal-to", "out.flist", "--router", "router.yaml"]
    with home.started("mount", mountpoint, *options) as process:
        wait_until(lambda: is_mounted(mountpoint) or process.poll() is not None, "mounted")
        umount_soon(mountpoint)
        _, said = process.communicate()
    assert process.returncode == 0, said
    assert "ardb://a-name-of-some-length-for-pool-999:16379" in home.run("info", "out.flist", "--json").stdout


# What is wrong with a command, and its exit codes: where there is no session, and where there is one.
WRONG: list[tuple[list[str], int, int]] = [
    (["--min-replicas", "2"], 2, 2),
    (["--store", "router.yaml", "--min-replicas", "2"], 2, 5),
    (["--from", "none.flist"], 8, 5),
    (["-o", "bogus"], 4, 4),
    (["-o", "bogus", "--foreground"], 4, 4),
    (["--from", "none.flist", "--foreground"], 8, 5),
    (["--store", "router.yaml", "--min-replicas", "2", "--foreground"], 2, 5),
    (["--read-only", "none.flist", "--foreground"], 8, 8),
]


def test_what_is_wrong_with_a_command_is_no_dead_daemon(home: Home, mountpoint: Path) -> None:
    """Neither where there is no session, which stays so, nor where there is one, which stays as it was."""
    home.expected_log += ["cannot be mounted", "router.yaml", "none.flist"]
    (home.path / "router.yaml").write_text('pools:\n  a:\n    "00:FF": ardb://host\nlookup: [a]\n')

    def directories() -> list[SessionDirectory]:
        return [SessionDirectory(path) for path in home.sessions.iterdir()] if home.sessions.is_dir() else []

    for options, code, _ in WRONG:
        home.run("mount", mountpoint, *options, code=code)
        assert not [directory for directory in directories() if directory.exists()], options
    home.run("mount", mountpoint)
    umount(mountpoint)
    home.run("wait", code=5)
    for options, _, code in WRONG:
        home.run("mount", mountpoint, *options, code=code)
        assert [directory.state() for directory in directories()] == [State.UNMOUNTED], options


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("where", [[], ["--foreground"]], ids=["background", "foreground"])
def test_a_mount_again_that_is_interrupted_is_no_dead_daemon(
    home: Home, mountpoint: Path, where: list[str], number: signal.Signals
) -> None:
    home.expected_log += ["interrupted before anything was mounted"]
    with running_redis() as server:
        home.run("mount", mountpoint, "--store", server.url)
        before = home.processes()
        umount(mountpoint)
        home.run("wait", code=5)
        server.hang()
        with home.started("mount", mountpoint, *where) as process:
            wait_until(
                lambda: any(DAEMON in line for pid, line in home.processes().items() if pid not in before),
                "a daemon is started",
            )
            process.send_signal(number)
            process.communicate()
        server.resume()
        assert process.returncode == (130 if where or number == signal.SIGINT else 143)
        assert home.processes() == {}
        assert home.status()["state"] == "unmounted"


def test_an_interrupted_mount_does_not_appear_later(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["interrupted before anything was mounted"]
    with running_redis() as server:
        server.hang()
        with home.started("mount", mountpoint, "--store", server.url) as process:
            wait_until(lambda: list(home.sessions.glob("*/lock")), "the daemon is about to be started")
            process.send_signal(signal.SIGINT)
            process.communicate()
        server.resume()
    assert process.returncode == 130
    assert home.processes() == {}
    assert not is_mounted(mountpoint)
    assert home.listed("status") == []


# Runs the command line, and interrupts it in the moment that a daemon was started; prints its process.
INTERRUPTED_AT_THE_WORST_TIME = """
import signal
from flistfs import cli
from flistfs.daemons import launch

spawn = launch._spawn

def spawn_and_interrupt(*arguments):
    daemon = spawn(*arguments)
    print("spawned", flush=True)
    signal.raise_signal(signal.SIGINT)
    return daemon

launch._spawn = spawn_and_interrupt
cli.main()
"""


def test_a_mount_interrupted_while_the_daemon_is_born(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["interrupted before anything was mounted"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT_THE_WORST_TIME, "mount", mountpoint],
        env=home.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert (done.returncode, done.stdout) == (130, "spawned\n")
    assert home.processes() == {}
    assert not is_mounted(mountpoint)
    assert home.listed("status") == []


@pytest.mark.parametrize("module", ["session", "reader"])
@pytest.mark.parametrize("told", [b"", b'{"mountpoint": "/tmp/mnt", "lo'])
def test_a_daemon_whose_command_was_killed_ends_quietly(module: str, told: bytes) -> None:
    command = [sys.executable, "-P", "-m", f"flistfs.daemons.{module}"]
    done = subprocess.run(command, input=told, capture_output=True, check=False, timeout=TIMEOUT)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_an_interrupted_foreground_mount_does_not_wait_for_the_store(home: Home, mountpoint: Path) -> None:
    with fake_server(lambda _: None) as server:
        store = f"redis://127.0.0.1:{server.port}"
        with home.started("mount", mountpoint, "--foreground", "--store", store) as process:
            wait_until(lambda: server.commands, "the store is asked")
            process.send_signal(signal.SIGINT)
            # The store is given up after a minute: three tries of 20 s.
            _, said = process.communicate(timeout=45)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert home.listed("status") == []


@pytest.mark.parametrize("what", [[], ["--read-only", "a.flist"]])
def test_a_foreground_mount_that_is_interrupted_while_it_starts(
    home: Home, mountpoint: Path, source: Path, what: list[str]
) -> None:
    home.run("pack", source, "a.flist")
    with home.started("mount", "--foreground", *what, mountpoint) as process:
        command = Path(f"/proc/{process.pid}/cmdline")
        wait_until(lambda: b"\0-m\0" in command.read_bytes(), "the command becomes the daemon")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "interrupted before anything was mounted" in said
    assert not is_mounted(mountpoint)
    assert home.listed("status") == []


def test_a_password_with_an_equals_sign(home: Home, mountpoint: Path) -> None:
    with running_redis(password="a=b") as server:
        home.run("mount", mountpoint, f"--store=redis://:a=b@127.0.0.1:{server.port}")
        home.run("seal", "out.flist")


def test_the_password_of_another_store_is_not_sent(home: Home, mountpoint: Path, redis: RedisServer) -> None:
    # A server without a password refuses any.
    other = "redis://:topsecret@127.0.0.1:1"
    home.run("mount", mountpoint, "--store", redis.url, env={"FLISTFS_STORE": other})
    home.run("seal", "out.flist")


def test_what_a_session_needs_cannot_lie_in_its_own_mount(home: Home, mountpoint: Path) -> None:
    """It would wait for itself, or store what it stores."""
    for option, place in (("--state", mountpoint / "state"), ("--store", f"dir://{mountpoint}/store")):
        assert "inside the mount itself" in home.run("mount", mountpoint, option, place, code=2).stderr
    assert not list(mountpoint.iterdir())
