"""What a returned close() or fsync() covers survives the daemon, however it ends."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import threading
from contextlib import suppress
from io import FileIO
from pathlib import Path

import pytest

from flistfs.authoring import offline
from flistfs.authoring.request import Passwords, SealRequest
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.errors import SessionError
from tests.e2e.commands import TIMEOUT, Home, is_mounted, umount_soon, wait_until
from tests.e2e.killing import Campaign, compare_flist, differences
from tests.independent_reader import CHUNK, read_flist


def only_session(home: Home) -> SessionDirectory:
    (path,) = home.sessions.iterdir()
    return SessionDirectory(path)


def signal_daemon(home: Home, number: signal.Signals) -> None:
    (pid,) = home.daemons()
    os.kill(pid, number)


def wait_ended(home: Home) -> None:
    wait_until(lambda: not only_session(home).is_locked(), "the daemon has let go of the session")


def kill(home: Home) -> None:
    signal_daemon(home, signal.SIGKILL)
    wait_ended(home)


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Where the record of a tree will be."""
    return tmp_path.resolve() / "record"


# Kills at random moments


def test_kills_while_files_are_written(home: Home, mountpoint: Path, record: Path) -> None:
    campaign = Campaign(home, mountpoint, record, seed=1)
    for _ in range(10):
        campaign.kill_while_working()
    campaign.seal()
    assert campaign.kills == 10
    assert campaign.operations > 100


def test_kills_while_a_session_resumes(home: Home, mountpoint: Path, record: Path) -> None:
    campaign = Campaign(home, mountpoint, record, seed=2)
    for _ in range(3):
        campaign.kill_while_resuming()
    campaign.seal()


def test_kills_while_a_session_is_sealed(home: Home, mountpoint: Path, record: Path) -> None:
    campaign = Campaign(home, mountpoint, record, seed=3)
    for _ in range(3):
        campaign.kill_while_sealing()
    for _ in range(2):
        campaign.kill_while_sealing_unmounted()
    campaign.seal()


# What FUSE leaves open at close()


def content(number: int) -> bytes:
    """Return what the file of that number holds, of all sizes up to some chunks."""
    size = [1, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 3_000_000][number % 6] + number // 6
    return bytes([number + 1]) + os.urandom(size - 1)


def write_whole(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def write_in_pieces(path: Path, data: bytes) -> None:
    with path.open("wb", buffering=0) as file:
        for offset in range(0, len(data), 100_000):
            file.write(data[offset : offset + 100_000])


def write_mapped(path: Path, data: bytes) -> None:
    with path.open("w+b", buffering=0) as file:
        file.truncate(len(data))
        with mmap.mmap(file.fileno(), len(data)) as mapping:
            mapping[:] = data


def test_a_kill_in_the_instant_after_close(home: Home, mountpoint: Path, record: Path) -> None:
    record.mkdir()
    home.run("mount", mountpoint)
    for number in range(20):
        (pid,) = home.daemons()
        write = [write_whole, write_in_pieces, write_mapped][number % 3]
        data = content(number)
        write(mountpoint / f"{number}", data)
        os.kill(pid, signal.SIGKILL)
        (record / f"{number}").write_bytes(data)
        wait_ended(home)
        home.run("mount", mountpoint)
        assert (mountpoint / f"{number}").read_bytes() == data
    assert list(differences(record, mountpoint)) == []
    home.run("seal", "out.flist")
    assert list(compare_flist(home.path / "out.flist", home.blocks, record)) == []


def close_all(files: list[FileIO]) -> None:
    for file in files:
        file.close()


@pytest.mark.parametrize("command", ["fusermount3 -u", "fusermount3 -uz"])
def test_files_that_are_closed_and_unmounted_while_the_daemon_stands_still(
    home: Home, mountpoint: Path, record: Path, command: str
) -> None:
    record.mkdir()
    home.run("mount", mountpoint)
    (mountpoint / "first").touch()
    (record / "first").touch()
    files = [(mountpoint / f"{number}").open("wb", buffering=0) for number in range(20)]
    for number, file in enumerate(files):
        data = content(number)
        assert file.write(data) == len(data)
        (record / f"{number}").write_bytes(data)
    signal_daemon(home, signal.SIGSTOP)
    try:
        closing = threading.Thread(target=close_all, args=(files,))
        closing.start()
        closing.join(TIMEOUT)
        assert not closing.is_alive(), "close() waits for the daemon"
        unmounting = subprocess.Popen([*command.split(), str(mountpoint)])
        wait_until(lambda: not is_mounted(mountpoint), "the mount is gone")
    finally:
        signal_daemon(home, signal.SIGCONT)
    assert unmounting.wait(TIMEOUT) == 0
    wait_ended(home)
    assert home.status()["state"] == "unmounted"
    home.run("seal", "out.flist")
    assert list(compare_flist(home.path / "out.flist", home.blocks, record)) == []


# Ends that are asked for


@pytest.mark.parametrize("end", ["SIGTERM", "SIGINT", "umount", "fusermount3 -u"])
def test_an_end_keeps_the_session(home: Home, mountpoint: Path, record: Path, end: str) -> None:
    if end == "umount" and os.geteuid() != 0:
        pytest.skip("only root may call umount")
    record.mkdir()
    with home.started("mount", mountpoint, "--foreground") as process:
        wait_until(lambda: is_mounted(mountpoint), "it is mounted")
        for directory in (mountpoint, record):
            (directory / "file").write_bytes(bytes(range(256)) * 4096)
        if end.startswith("SIG"):
            process.send_signal(signal.Signals[end])
        else:
            umount_soon(mountpoint, *end.split())
        _, said = process.communicate()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert not is_mounted(mountpoint)
    assert list(mountpoint.iterdir()) == []
    assert home.status()["state"] == "unmounted"
    assert "is resumed" in home.run("mount", mountpoint).stdout
    assert list(differences(record, mountpoint)) == []
    home.run("seal", "out.flist")
    assert list(compare_flist(home.path / "out.flist", home.blocks, record)) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_busy_mount_is_left_dead_and_the_session_goes_on(
    home: Home, mountpoint: Path, number: signal.Signals
) -> None:
    home.expected_log += ["leaving a dead mount"]
    home.run("mount", mountpoint)
    file = (mountpoint / "open").open("wb", buffering=0)
    try:
        file.write(b"before the end")
        signal_daemon(home, number)
        wait_ended(home)
        assert is_mounted(mountpoint)
        with pytest.raises(OSError, match="not connected"):
            os.listdir(mountpoint)  # noqa: PTH208  in one call
        with pytest.raises(OSError, match="not connected"):
            (mountpoint / "new").touch()
        with pytest.raises(OSError, match=r"not connected|aborted"):
            file.write(b"too late")
    finally:
        with suppress(OSError):
            file.close()
    assert "is resumed" in home.run("mount", mountpoint).stdout
    assert (mountpoint / "open").read_bytes() == b"before the end"
    home.run("seal", "out.flist")
    assert read_flist(home.path / "out.flist")[b"open"].size == len(b"before the end")


def test_a_daemon_that_died_before_anything_was_done(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    mountpoint.stat()  # the kernel goes on answering this from its cache
    kill(home)
    assert "is resumed" in home.run("mount", mountpoint).stdout
    (mountpoint / "file").touch()
    home.run("seal", "out.flist")
    assert set(read_flist(home.path / "out.flist")) == {b"", b"file"}


# One process a session


def test_a_session_that_is_in_use_is_not_taken(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    with (mountpoint / "open").open("wb"):
        subprocess.run(["fusermount3", "-uz", str(mountpoint)], check=True)
        # The daemon goes on for whoever still has a file open, but the mount point is free.
        (pid,) = home.daemons()
        refused = home.run("mount", mountpoint, code=5)
        assert refused.stderr.endswith(f"is in use by process {pid}\n")
        assert len(refused.stderr.splitlines()) == 1
        assert home.daemons() == [pid]
    wait_ended(home)
    home.run("seal", "out.flist")
    assert set(read_flist(home.path / "out.flist")) == {b"", b"open"}


def test_a_session_that_has_ended_meanwhile_is_not_sealed_as_an_empty_one(
    home: Home, mountpoint: Path
) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "file").touch()
    kill(home)
    directory = only_session(home)
    home.run("seal", "out.flist")
    # So it goes for a second command that looked at the session before the first one was done.
    request = SealRequest(home.path / "second.flist")
    with pytest.raises(SessionError, match="ended"), offline.taken(directory, "a test"):
        offline.seal(directory, Passwords(None, None), request, lambda *_: None)
    assert not request.out.exists()
    assert not directory.is_open()
