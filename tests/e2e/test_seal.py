"""Sealing: what it refuses, and that a refusal changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import redis as redis_client

from flistfs.fuse import cores
from tests.both import LARGEST, both_formats, read_file, read_sealed
from tests.e2e.commands import (
    FLISTFS,
    Home,
    is_mounted,
    shell,
    umount,
    umount_soon,
    wait_until,
)
from tests.redis_server import running_redis

AS_ROOT = os.geteuid() == 0


def assert_in_use(home: Home, mountpoint: Path) -> None:
    """The mount works on as before, and nothing was left beside the output."""
    (mountpoint / "later").write_text("more")
    assert (mountpoint / "later").read_text() == "more"
    assert home.status()["state"] == "mounted"
    assert not list(home.path.glob("*.flist*"))
    assert not list(home.path.glob(".*.flist*"))


@pytest.mark.parametrize(
    ("holding", "what"),
    [
        ("exec sleep 100 < file", "has {mnt}/file open"),
        ("exec sleep 100 < .", "working directory"),
        ("cp /bin/sleep . && cd / && exec {mnt}/sleep 100", "has {mnt}/sleep mapped"),
        pytest.param(
            "cp --parents /bin/sleep $(ldd /bin/sleep | grep -o '/[^ ]*') . && exec chroot . /bin/sleep 100",
            "root directory",
            marks=pytest.mark.skipif(not AS_ROOT, reason="only root can chroot"),
        ),
    ],
)
def test_a_busy_mount_is_refused_and_the_process_named(
    home: Home, mountpoint: Path, holding: str, what: str
) -> None:
    home.expected_log += ["is in use"]
    home.run("mount", mountpoint)
    (mountpoint / "file").write_text("content")
    process = subprocess.Popen(["bash", "-c", holding.format(mnt=mountpoint)], cwd=mountpoint)
    try:
        wait_until(
            lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n", "the process holds the mount"
        )
        refused = home.run("seal", "out.flist", code=6)
        assert f"sleep (process {process.pid}: " in refused.stderr
        assert what.format(mnt=mountpoint) in refused.stderr
        assert_in_use(home, mountpoint)
    finally:
        process.kill()
        process.wait()
    home.run("seal", "out.flist")
    assert b"later" in read_sealed(home.path / "out.flist")


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount inside")
def test_a_mount_inside_is_named(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["is in use"]
    home.run("mount", mountpoint)
    (mountpoint / "proc").mkdir()
    shell("mount -t proc proc proc", cwd=mountpoint)
    try:
        refused = home.run("seal", "out.flist", code=6)
        assert f"proc mounted on {mountpoint}/proc" in refused.stderr
        assert_in_use(home, mountpoint)
    finally:
        shell("umount proc", cwd=mountpoint)
    home.run("seal", "out.flist")


def test_sealing_at_once_after_a_copy_is_never_busy(home: Home, mountpoint: Path, source: Path) -> None:
    for number in range(300):
        (source / str(number)).write_text(str(number))
    for attempt in range(5):
        home.run("mount", mountpoint)
        shell(
            f'cp -r "$SOURCE"/. "$MNT"/ && {FLISTFS} seal "$OUT"',
            cwd=home.path,
            **home.environment(SOURCE=str(source), MNT=str(mountpoint), OUT=f"{attempt}.flist"),
        )
        assert len(read_sealed(home.path / f"{attempt}.flist")) == 301


def test_an_output_that_exists_is_refused_unless_forced(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["exists; `force` replaces it"]
    home.run("mount", mountpoint)
    (home.path / "out.flist").write_text("precious")
    refused = home.run("seal", "out.flist", code=9)
    assert "--force" in refused.stderr
    assert (home.path / "out.flist").read_text() == "precious"
    assert is_mounted(mountpoint)
    home.run("seal", "out.flist", "--force")
    assert set(read_sealed(home.path / "out.flist")) == {b""}


def test_an_output_that_cannot_be_written_is_refused(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["cannot be written", "is inside the mount"]
    home.run("mount", mountpoint)
    assert "cannot be written" in home.run("seal", "nowhere/out.flist", code=9).stderr
    assert "cannot be written" in home.run("seal", "/proc/out.flist", code=9).stderr
    assert "is inside the mount" in home.run("seal", mountpoint / "out.flist", code=9).stderr
    assert_in_use(home, mountpoint)
    home.run("seal", "out.flist")


@both_formats
def test_a_block_that_the_store_lost_is_sent_again_or_its_files_are_named(
    home: Home, mountpoint: Path
) -> None:
    home.expected_log += ["lost", "sealing failed"]
    with running_redis() as server:
        client = redis_client.Redis(port=server.port)
        home.run("mount", mountpoint, "--store", server.url)
        (mountpoint / "kept").write_bytes(os.urandom(1000))
        wait_until(client.dbsize, "a block is stored")
        umount(mountpoint)
        home.run("wait", "--mount", mountpoint, code=5)
        # A new daemon has no copies of what was stored before.
        home.run("mount", mountpoint)
        client.flushall()
        refused = home.run("seal", "out.flist", code=7)
        assert "lost 1 block of 1 file: kept." in refused.stderr
        assert_in_use(home, mountpoint)
        content = os.urandom(1000)
        (mountpoint / "kept").write_bytes(content)
        wait_until(lambda: client.dbsize() == 2, "both files' blocks are stored")
        client.flushall()
        home.run("seal", "out.flist")  # now copies are at hand
        node = read_sealed(home.path / "out.flist")[b"kept"]
        assert read_file(node, from_redis(client)) == content


def from_redis(client: redis_client.Redis) -> Callable[[bytes], bytes | None]:
    return lambda name: cast("bytes | None", client.get(name))


CHANGING = {
    "directories": "os.makedirs(f'{top}/new/{n % 50}/{n}', exist_ok=True)",
    "owners": "os.chown(f'{top}/dir/{n % 200}', n % 7, n % 5)",
    "sparse files": "open(f'{top}/sparse{n % 9}', 'wb').truncate(n * 700_000 % 5_000_000)",
    "names": "os.mkdir(f'{top}/dir/new{n}'); os.rename(f'{top}/dir/new{n}', f'{top}/renamed{n}')",
}


@pytest.mark.parametrize("what", CHANGING)
@both_formats
def test_a_program_that_goes_on_changing_the_tree_does_no_harm(
    home: Home, mountpoint: Path, what: str
) -> None:
    home.expected_log += ["is in use by", "is in use: ", "sealing failed: files are still being written"]
    home.run("mount", mountpoint)
    (mountpoint / "dir").mkdir()
    for number in range(200):
        (mountpoint / f"dir/{number}").write_bytes(b"%d" % number)
    program = f"""
import os, pathlib
top = {str(mountpoint)!r}
for n in range(1_000_000):
    if not os.path.isdir(f'{{top}}/dir'):  # unmounted
        break
    {CHANGING[what]}
    if n == 0:
        print(flush=True)
"""
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as busy:
        try:
            assert busy.stdout is not None
            busy.stdout.readline()
            # It may well find the mount in use, which the program makes it from one moment to the next.
            code = subprocess.run(
                [FLISTFS, "seal", "out.flist"], env=home.environment(), cwd=home.path, check=False
            ).returncode
        finally:
            busy.kill()
    if code != 0:
        assert code == 6
        home.run("seal", "out.flist")
    assert {b"dir", b"dir/199"} <= read_sealed(home.path / "out.flist").keys()
    home.run("verify", "out.flist")


@both_formats
def test_a_directory_that_would_kill_readers_is_refused_and_the_mount_stays(
    home: Home, mountpoint: Path
) -> None:
    home.expected_log += ["sealing failed: the directory a/big of the tree is too large for an flist"]
    home.run("mount", mountpoint)
    (big := mountpoint / "a/big").mkdir(parents=True)
    for name in ("one", "other"):
        with (big / name).open("wb") as file:
            file.truncate(LARGEST[home.format] * 2 // 3)
    refused = home.run("seal", "out.flist", code=9)
    assert "the directory a/big of the tree is too large for an flist" in refused.stderr
    assert_in_use(home, mountpoint)
    (big / "other").unlink()
    home.run("seal", "out.flist")
    home.run("verify", "out.flist")


@both_formats
def test_what_a_file_may_have_is_the_same_everywhere(home: Home, mountpoint: Path, tmp_path: Path) -> None:
    most = LARGEST[home.format]
    home.run("mount", mountpoint)
    with (mountpoint / "file").open("wb") as file:
        file.truncate(most)
        with pytest.raises(OSError, match="File too large"):
            file.truncate(most + 1)
    (source := tmp_path / "source").mkdir()
    with (source / "large").open("wb") as file:
        file.truncate(most + 1)
    for command in (("add", source), ("pack", source, "out.flist")):
        refused = home.run(*command, code=11).stderr
        assert "large" in refused
        assert f"it has {most + 1:,} bytes; an flist allows at most {most:,} per file" in refused
    home.run("pack", source, "out.flist", "--keep-going", code=11)
    assert set(read_sealed(home.path / "out.flist")) == {b""}
    home.run("abort", "--yes")


@both_formats
def test_umount_seals_a_mount_that_was_told_to(home: Home, mountpoint: Path) -> None:
    out = home.path / "out.flist"
    home.run("mount", mountpoint, "--seal-to", "out.flist")
    (mountpoint / "file").write_bytes(os.urandom(2_000_000))
    umount(mountpoint)
    assert str(out) in home.run("wait", "--mount", mountpoint).stdout
    assert read_sealed(out)[b"file"].size == 2_000_000
    status = home.status()
    assert status["state"] == "sealed"
    assert status["result"]["exit_code"] == 0
    assert status["result"]["summary"]["files"] == 1
    assert home.json("wait")["sealed"] == status["result"]["summary"]


def keeps_cores_awake(pid: int) -> bool:
    return any(os.path.realpath(file) == "/dev/cpu_dma_latency" for file in Path(f"/proc/{pid}/fd").iterdir())


needs_wakeful_cores = pytest.mark.skipif(
    cores.obstacle() is not None, reason="cores here sleep or wake as they like"
)


def look_up(mountpoint: Path, pid: int) -> bool:
    """Ask the mount for something, and say whether its daemon keeps cores awake then."""
    return not (mountpoint / os.urandom(8).hex()).exists() and keeps_cores_awake(pid)


@needs_wakeful_cores
@pytest.mark.parametrize("what", [[], ["--read-only", "a.flist"]])
def test_cores_are_kept_awake_only_where_it_was_asked_for(
    home: Home, mountpoint: Path, source: Path, what: list[str]
) -> None:
    home.run("pack", source, "a.flist")
    for option in ([], ["--low-latency"]):
        with home.started("mount", mountpoint, "--foreground", *what, *option) as daemon:
            wait_until(lambda: is_mounted(mountpoint), "mounted")
            if option:
                wait_until(lambda: look_up(mountpoint, daemon.pid), "cores stay awake")
            else:
                assert not any(look_up(mountpoint, daemon.pid) for _ in range(200))
            umount_soon(mountpoint)
            daemon.communicate()
        assert daemon.returncode == 0


@needs_wakeful_cores
def test_cores_may_sleep_while_a_seal_by_umount_waits_for_the_store(home: Home, mountpoint: Path) -> None:
    with running_redis() as server:
        home.run("mount", mountpoint, "--store", server.url, "--seal-to", "out.flist", "--low-latency")
        (pid,) = home.daemons()
        wait_until(lambda: look_up(mountpoint, pid), "cores stay awake")
        server.hang()
        (mountpoint / "file").write_bytes(b"content")
        umount(mountpoint)
        wait_until(lambda: not keeps_cores_awake(pid), "cores may sleep", seconds=5)
        server.resume()
        home.run("wait", "--mount", mountpoint)


@both_formats
def test_a_seal_that_failed_after_umount_is_reported_and_can_be_done_again(
    home: Home, mountpoint: Path
) -> None:
    home.expected_log += ["exists"]
    home.run("mount", mountpoint, "--seal-to", "out.flist")
    (mountpoint / "file").write_text("content")
    (home.path / "out.flist").write_text("somebody else's")
    umount(mountpoint)
    assert "exists" in home.run("wait", "--mount", mountpoint, code=9).stderr
    assert home.status()["result"]["exit_code"] == 9
    assert home.status()["state"] == "unmounted"
    assert (home.path / "out.flist").read_text() == "somebody else's"
    home.run("seal", "other.flist")
    assert b"file" in read_sealed(home.path / "other.flist")
