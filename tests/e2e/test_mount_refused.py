"""Mounts that are refused or interrupted: what is left, and what is kept."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flistfs.authoring.state.directory import SessionDirectory
from flistfs.authoring.state.settings import State
from tests.e2e.commands import (
    TIMEOUT,
    Home,
    is_mounted,
    umount,
    umount_soon,
    wait_until,
)
from tests.e2e.test_mount import DAEMON
from tests.redis_server import RedisServer, free_port, running_redis
from tests.stores.fake_server import fake_server


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
