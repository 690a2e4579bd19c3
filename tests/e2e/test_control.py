"""sync, abort, status --watch, signals, and who may talk to a daemon."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import redis as redis_client

from flistfs.daemons.control import short_path
from tests.e2e.commands import Home, is_mounted, let_others_reach, umount, wait_until
from tests.independent_reader import read_flist
from tests.redis_server import RedisServer

# Version 2; then tag, permissions and id of owner, a user, group, mask and others.
AN_ACCESS_LIST = struct.pack(
    "<I" + 5 * "HHI",
    2,
    *(1, 6, 2**32 - 1),
    *(2, 6, 1000),
    *(4, 4, 2**32 - 1),
    *(16, 6, 2**32 - 1),
    *(32, 4, 2**32 - 1),
)

AS_ROOT = os.geteuid() == 0


def test_sync_returns_when_everything_is_in_the_store(
    home: Home, mountpoint: Path, redis: RedisServer
) -> None:
    client = redis_client.Redis(port=redis.port)
    client.flushall()
    home.run("mount", mountpoint, "--store", redis.url)
    with (mountpoint / "open").open("wb", buffering=0) as file:
        file.write(os.urandom(1000))
        for number in range(100):
            (mountpoint / str(number)).write_bytes(os.urandom(100))
        told = home.json("sync")
    assert client.dbsize() == 101
    assert (told["queued"], told["spooled_chunks"], told["new_blocks"]) == (0, 0, 101)
    home.run("seal", "out.flist")


def test_sync_without_a_mount_says_what_to_do(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    umount(mountpoint)
    home.run("wait", "--mount", mountpoint, code=5)
    assert "is not mounted" in home.run("sync", code=5).stderr
    home.run("abort", "--yes")


def test_abort_asks_and_forgets_everything(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "file").write_bytes(os.urandom(1000))
    home.run("sync")
    blocks = [path for path in home.blocks.rglob("*") if path.is_file()]
    home.run("abort", code=130)  # nobody answers the question
    assert (mountpoint / "file").exists()
    assert "is gone" in home.run("abort", "--yes").stdout
    assert not is_mounted(mountpoint)
    assert home.listed("status") == []
    assert [path for path in home.blocks.rglob("*") if path.is_file()] == blocks
    assert "no open session" in home.run("seal", "out.flist", code=5).stderr
    home.run("mount", mountpoint)
    assert not list(mountpoint.iterdir())
    home.run("seal", "out.flist")


def test_abort_of_a_busy_mount_is_refused_and_keeps_it(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["is in use"]
    home.run("mount", mountpoint)
    with (mountpoint / "file").open("w"):
        assert "is in use" in home.run("abort", "--yes", code=6).stderr
    (mountpoint / "file").write_text("still here")
    home.run("seal", "out.flist")
    assert read_flist(home.path / "out.flist")[b"file"].size == 10


def test_abort_of_a_session_whose_daemon_died(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (pid,) = home.daemons()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: home.status()["state"] == "died", "the death is seen")
    home.run("abort", "--yes")
    assert not is_mounted(mountpoint)
    assert home.listed("status") == []


def test_status_watch_reports_rates(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    seen = {"files": 0.0, "size": 0.0}
    with home.started("status", "--watch", "--json") as watch:
        assert watch.stdout is not None
        (before,) = json.loads(watch.stdout.readline())["sessions"]
        assert before["rates"] is None
        (mountpoint / "file").write_bytes(bytes(1 << 20))
        # However long a report takes: what its rate says of the time since the last one has come in.
        while seen["files"] < 0.5 or seen["size"] < (1 << 20) - 0.5:
            (report,) = json.loads(watch.stdout.readline())["sessions"]
            for name in seen:
                seen[name] += report["rates"][name] * (report["asked"] - before["asked"])
            before = report
        watch.send_signal(signal.SIGINT)
    assert seen == {"files": pytest.approx(1), "size": pytest.approx(1 << 20)}
    assert watch.returncode == 130
    home.run("seal", "out.flist")


def test_a_signal_shows_what_every_task_and_thread_does(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (pid,) = home.daemons()
    os.kill(pid, signal.SIGUSR1)
    wait_until(lambda: "tasks:" in home.logs(), "the tasks are logged")
    assert "uploader.py" in home.logs()  # a thread
    assert "_settle_idle" in home.logs()  # a task
    (mountpoint / "file").touch()
    home.run("seal", "out.flist")


def test_nonsense_on_the_control_socket_does_no_harm(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["failed", "Traceback", "Error"]
    home.run("mount", mountpoint)
    (control,) = home.sessions.glob("*/control")
    for said in (b"", b"no json\n", b"[]\n", b'{"op": "no such"}\n', b'{"op": "seal"}\n', b"x" * 100_000):
        with socket.socket(socket.AF_UNIX) as connection, short_path(control) as address:
            connection.connect(address)
            connection.sendall(said)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.makefile().read()
        assert not answer or "error" in json.loads(answer)
    (mountpoint / "file").touch()
    home.run("seal", "out.flist")


def test_a_sessions_directory_is_its_users_alone(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (control,) = home.sessions.glob("*/control")
    assert control.parent.stat().st_mode & 0o777 == 0o700
    home.run("seal", "out.flist")


def test_a_directory_of_the_users_choice_becomes_theirs_alone(
    home: Home, mountpoint: Path, tmp_path: Path
) -> None:
    state = tmp_path / "chosen"
    state.mkdir(mode=0o755)
    home.run("mount", mountpoint, "--state", state)
    assert state.stat().st_mode & 0o777 == 0o700
    home.run("seal", "out.flist")


@pytest.mark.skipif(not AS_ROOT, reason="only root can make a directory of somebody else's")
def test_a_directory_of_somebody_else_is_no_place_for_a_session(
    home: Home, mountpoint: Path, tmp_path: Path
) -> None:
    state = tmp_path / "theirs"
    state.mkdir()
    os.chown(state, 65534, 65534)
    assert "another user" in home.run("mount", mountpoint, "--state", state, code=5).stderr


@pytest.mark.skipif(not AS_ROOT, reason="only root can open the way for others")
def test_a_stranger_who_gets_at_the_socket_gets_no_answer(home: Home, mountpoint: Path) -> None:
    let_others_reach(mountpoint)
    home.run("mount", mountpoint)
    (control,) = home.sessions.glob("*/control")
    control.parent.chmod(0o755)
    control.chmod(0o777)
    for directory in control.parents:
        if directory.is_relative_to(home.path):
            directory.chmod(0o755)
    ask = f"""
import os, socket
os.setgroups([]); os.setgid(65534); os.setuid(65534)
connection = socket.socket(socket.AF_UNIX)
connection.settimeout(30)
os.chdir({str(control.parent)!r})
connection.connect("control")
connection.sendall(b'{{"op": "status"}}\\n')
print(connection.recv(1000))
"""
    said = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    assert said.stdout == "b''\n" or "ConnectionResetError" in said.stderr or "BrokenPipe" in said.stderr
    home.run("seal", "out.flist")


@pytest.mark.skipif(not AS_ROOT, reason="only root can run a command as another user")
def test_another_user_is_told_that_it_is_not_theirs(home: Home, mountpoint: Path, tmp_path: Path) -> None:
    let_others_reach(mountpoint)
    home.run("mount", mountpoint)
    (control,) = home.sessions.glob("*/control")
    command = f"import flistfs.daemons.control as c; c.ask(c.Path('{control}'), {{'op': 'status'}})"
    # That user may not be able to enter this project's directory: the process gives its rights up by itself.
    drop = "import os; os.setgroups([]); os.setgid(65534); os.setuid(65534)"
    done = subprocess.run(
        [sys.executable, "-c", f"import flistfs.daemons.control; {drop}; {command}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1].endswith("belongs to another user")
    home.run("seal", "out.flist")


def test_extended_attributes_live_as_long_as_the_session(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint, "--xattr")
    file = mountpoint / "file"
    file.write_text("content")
    os.setxattr(file, "user.colour", b"green")
    os.setxattr(file, "user.shape", b"round")
    os.setxattr(file, "user.colour", b"blue", os.XATTR_REPLACE)
    with pytest.raises(FileExistsError):
        os.setxattr(file, "user.colour", b"red", os.XATTR_CREATE)
    with pytest.raises(OSError, match="No data"):
        os.setxattr(file, "user.none", b"red", os.XATTR_REPLACE)
    os.removexattr(file, "user.shape")
    assert os.listxattr(file) == ["user.colour"]
    assert os.getxattr(file, "user.colour") == b"blue"
    with pytest.raises(OSError, match="not supported"):
        os.setxattr(file, "system.posix_acl_access", AN_ACCESS_LIST)
    (mountpoint / "gone").touch()
    os.setxattr(mountpoint / "gone", "user.colour", b"green")
    (mountpoint / "gone").unlink()
    sealed = home.json("seal", "out.flist")
    assert sealed["unrepresentable"]["xattrs"] == 2  # the one that is dropped, and the list that was refused


@pytest.mark.skipif(not AS_ROOT, reason="only root can set file capabilities")
def test_capabilities_work_during_the_session(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint, "--xattr", "--rootfs")
    (mountpoint / "program").write_bytes(Path("/bin/true").read_bytes())
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep
    os.setxattr(mountpoint / "program", "security.capability", capability)
    assert os.getxattr(mountpoint / "program", "security.capability") == capability
    home.run("seal", "out.flist")


def test_set_attributes_with_flags_are_still_counted(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "file").touch()
    for _ in range(3):
        with pytest.raises(OSError, match="not supported"):
            os.setxattr(mountpoint / "file", "user.colour", b"green", os.XATTR_CREATE)
    assert home.json("seal", "out.flist")["unrepresentable"]["xattrs"] == 3


# wait and sync where there is no mount


def test_wait_for_a_mount_that_failed_says_why_and_not_how_an_older_one_ended(
    home: Home, mountpoint: Path, tmp_path: Path
) -> None:
    home.run("mount", mountpoint, "--seal-to", "first.flist")
    umount(mountpoint)
    home.run("wait", "--mount", mountpoint)
    down = ["--store", "redis://127.0.0.1:1"]
    for words, code in ((["--seal-to", "first.flist"], 9), (["--seal-to", "second.flist", *down], 3)):
        home.expected_log += ["cannot reach", "Connection refused"]
        said = home.run("mount", mountpoint, *words, code=code).stderr.removeprefix("flistfs: ")
        waited = home.run("wait", "--mount", mountpoint, code=code)
        assert waited.stderr == f"flistfs: {mountpoint} was not mounted: {said}"
        assert home.run("wait", code=code).stderr == waited.stderr  # it is the latest
    (session,) = home.listed("status")
    assert session["result"]["exit_code"] == 0  # which is still told of the older one
    home.run("mount", mountpoint, "--seal-to", "second.flist", "--spool-size", "1Q", code=2)
    assert "spool-size" in home.run("wait", "--mount", mountpoint, code=2).stderr
    other = tmp_path / "other"
    home.run("mount", other, code=4)
    assert f"{other} was not mounted" in home.run("wait", code=4).stderr
    home.run("mount", mountpoint, "--seal-to", "second.flist")
    umount(mountpoint)
    assert "second.flist" in home.run("wait", "--mount", mountpoint).stdout


def test_a_state_directory_that_cannot_be_is_in_nobodys_way(home: Home, mountpoint: Path) -> None:
    assert "cannot hold a session" in home.run("mount", "--state", "/proc/x", mountpoint, code=5).stderr
    home.run("mount", mountpoint)
    said = home.json("abort", "--yes")
    assert (said["mountpoint"], said["aborted"]) == (str(mountpoint), True)


def test_a_mount_in_the_foreground_that_failed_is_waited_for_too(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint, "--foreground", "--store", "redis://127.0.0.1:1", code=3)
    assert f"{mountpoint} was not mounted" in home.run("wait", "--mount", mountpoint, code=3).stderr


def test_a_mount_that_failed_leaves_an_open_session_as_it_is(home: Home, mountpoint: Path) -> None:
    home.run("new", mountpoint)
    home.run("mount", mountpoint, "--store", "redis://127.0.0.1:1", code=5)
    assert "without being sealed; seal it with" in home.run("wait", "--mount", mountpoint, code=5).stderr
    home.run("abort", "--yes")


def test_wait_for_a_session_without_a_mount_says_what_to_do(home: Home, mountpoint: Path) -> None:
    """Whatever was sealed there before."""
    home.run("new", mountpoint)
    home.run("seal", "first.flist")
    home.run("new", mountpoint)
    waited = home.run("wait", "--mount", mountpoint, code=5)
    assert waited.stderr == (
        f"flistfs: the session of {mountpoint} is not mounted, and was left without being sealed; "
        f"seal it with: flistfs seal OUT.flist\n"
    )
    home.run("abort", "--yes")


def test_sync_of_a_session_without_a_mount_says_what_to_do(
    home: Home, mountpoint: Path, source: Path, redis: RedisServer
) -> None:
    home.run("new", mountpoint, "--store", redis.url)
    said = home.run("sync", "--mount", mountpoint, code=5).stderr
    assert said.startswith(
        f"flistfs: {mountpoint} is not mounted; what add puts into a session is stored when"
    )
    home.run("seal", "out.flist")
    assert "has ended; start one with" in home.run("sync", "--mount", mountpoint, code=5).stderr


# status


def test_status_as_json_names_the_daemon_and_its_log(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    status = home.status()
    assert [status["pid"]] == home.daemons()
    assert "is mounted; blocks go to" in Path(status["log"]).read_text()
    umount(mountpoint)
    wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
    assert home.status()["pid"] is None
    home.run("abort", "--yes")


def test_what_is_removed_gives_no_negative_rate(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "file").write_bytes(bytes(1 << 20))
    with home.started("status", "--watch", "--json") as watch:
        assert watch.stdout is not None
        (report,) = json.loads(watch.stdout.readline())["sessions"]
        assert report["files"] == 1
        (mountpoint / "file").unlink()
        while report["files"]:
            (report,) = json.loads(watch.stdout.readline())["sessions"]
        watch.send_signal(signal.SIGINT)
    assert report["rates"]["files"] == report["rates"]["size"] == 0
    home.run("seal", "out.flist")
