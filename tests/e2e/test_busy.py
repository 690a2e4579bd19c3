"""Who keeps a mount busy is named, whatever it has there; and a seal waits for nobody who cannot be seen."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flistfs.fuse import mounts
from flistfs.fuse.mount_users import users_of
from tests.e2e.commands import (
    FLISTFS,
    TIMEOUT,
    Home,
    is_mounted,
    shell,
    wait_until,
    watched,
)
from tests.independent_reader import read_flist

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can do all of this")

BIND_A_SOCKET = """
import os, socket, sys
os.chdir("/")
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print(flush=True)
listener.accept()
"""


# For a new mount namespace: seals of other tests must not wait for it.
LET_GO_OF_MOUNTS = "awk '/ fuse.flistfs / { print $5 }' /proc/self/mountinfo | xargs -r -n 1 umount -l"


SHARED = ["unshare", "--mount", "--propagation", "shared", "bash", "-eu", "-c"]


@contextmanager
def started(*command: str | Path, **how: object) -> Iterator[int]:
    """Run something that prints a line when it has begun; its process."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, **how)  # type: ignore[call-overload]
    with watched(process):
        assert process.stdout.readline(), "it ended"
        yield process.pid
        process.kill()


@contextmanager
def mounted(*arguments: str | Path) -> Iterator[None]:
    where = arguments[-1]
    subprocess.run(["mount", *arguments], check=True, timeout=TIMEOUT)
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True, timeout=TIMEOUT)


def named(home: Home, mountpoint: Path) -> str:
    """What a seal that is refused says, and what is seen of a mount that then goes on as it was."""
    refused = home.run("seal", "out.flist", code=6).stderr
    assert is_mounted(mountpoint)
    assert not (home.path / "out.flist").exists()
    return refused


@pytest.fixture
def busy(home: Home, mountpoint: Path) -> Iterator[Path]:
    """A mount that is sealed at the end, when nobody uses it any more."""
    home.expected_log += ["is in use"]
    home.run("mount", mountpoint)
    yield mountpoint
    wait_until(lambda: not users_of(mountpoint), "nobody uses it")
    home.run("seal", "out.flist")
    assert not is_mounted(mountpoint)


def test_a_socket_that_is_bound_in_it(home: Home, busy: Path) -> None:
    with started(sys.executable, "-c", BIND_A_SOCKET, busy / "socket") as pid:
        assert f"(process {pid}: has a socket bound in it open)" in named(home, busy)


def test_a_loop_device(home: Home, busy: Path) -> None:
    image = busy / "disk.img"
    shell(f"truncate -s 1M {image}", cwd=home.path)
    made = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop devices here: {made.stderr}")
    device = made.stdout.strip()
    try:
        assert f"{device} has {image} open" in named(home, busy)
    finally:
        subprocess.run(["losetup", "-d", device], check=True)


def test_the_same_mounted_elsewhere(home: Home, busy: Path, source: Path) -> None:
    """It would be alive when its mount has gone, and a seal would wait for ever."""
    (busy / "below").mkdir()
    with mounted("--bind", busy / "below", source):
        assert f"mounted on {source} too" in named(home, busy)
        assert f"mounted on {source} too" in home.run("abort", "--yes", code=6).stderr


def test_an_overlay(home: Home, busy: Path, source: Path) -> None:
    (busy / "layer").mkdir()
    with mounted("-t", "overlay", "none", "-o", f"lowerdir={busy}/layer:/usr/lib", source):
        assert f"overlay mounted on {source} with a layer in it" in named(home, busy)


def test_a_process_in_another_mount_namespace(home: Home, busy: Path) -> None:
    inside = f"cd {busy} && {LET_GO_OF_MOUNTS} && echo && exec sleep 1000"
    with started("unshare", "--mount", "--propagation", "private", "sh", "-c", inside) as pid:
        assert f"(process {pid}: working directory)" in named(home, busy)


def test_another_user(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["is in use"]
    home.run("mount", mountpoint, "--allow-other")
    with started("sh", "-c", "echo && exec sleep 1000", user=65534, cwd=mountpoint) as pid:
        assert f"(process {pid}: working directory)" in named(home, mountpoint)
    home.run("seal", "out.flist")


PROPAGATED = f"""
{LET_GO_OF_MOUNTS}
flistfs=$1 mnt=$2
$flistfs mount $mnt
touch $mnt/file
unshare --mount --propagation $3 sh -c 'echo > ready && exec sleep 1000' &
while [ ! -s ready ]; do sleep 0.05; done
$flistfs seal out.flist
kill $!
"""


@pytest.mark.parametrize("propagation", ["slave", "shared", "private"])
def test_a_mount_namespace_that_nobody_uses_the_mount_in_is_no_user(
    home: Home, mountpoint: Path, propagation: str
) -> None:
    """Whether it learns of the umount, as those of services do, or has the mount for as long as it lives."""
    done = subprocess.run(
        [*SHARED, PROPAGATED, "script", FLISTFS, mountpoint, propagation],
        env=home.environment(),
        cwd=home.path,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    assert b"file" in read_flist(home.path / "out.flist")


def test_nobody_uses_a_mount_that_only_shares_its_name(home: Home, busy: Path, tmp_path: Path) -> None:
    beside = tmp_path.resolve() / f"{busy.name}-2"
    beside.mkdir()
    with (
        mounted("-t", "tmpfs", "none", beside),
        started("sh", "-c", f"cd {beside} && echo && exec sleep 1000"),
    ):
        assert users_of(busy) == []
        assert mounts.mount_at(beside) is not None
