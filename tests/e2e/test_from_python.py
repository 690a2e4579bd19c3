"""Mounts from Python: the daemons are those of the command line, which sees them, and the other way round."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import flistfs
from flistfs import errors
from flistfs.fuse import mounts
from tests.e2e.commands import Home, wait_until


@pytest.fixture(autouse=True)
def at_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process have the home that commands have."""
    for name, value in home.environment().items():
        if name.startswith("XDG_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(home.path)


def test_a_mount_is_made_synced_and_sealed(home: Home, mountpoint: Path) -> None:
    mounted = flistfs.mount(mountpoint)
    assert (mounted.mountpoint, mounted.resumed, mounted.base) == (str(mountpoint), False, None)
    (mountpoint / "file").write_bytes(b"content")
    held = flistfs.sync(mountpoint)
    assert (held.files, held.new_blocks, held.spooled_chunks) == (1, 1, 0)
    (session,) = flistfs.status()
    assert session.state.value == "mounted"
    assert session.activity is not None
    assert (session.activity.size, session.activity.sealing) == (7, False)
    assert session.pid in home.daemons()
    (home.path / "more").write_bytes(b"more")
    assert flistfs.add("more").entries == 1
    with pytest.raises(errors.MountError, match="is mounted already"):
        flistfs.mount(mountpoint)
    home.expected_log += ["there.flist exists"]
    (home.path / "there.flist").touch()
    with pytest.raises(errors.OutputError, match=r"there\.flist exists"):  # of the daemon, as it was there
        flistfs.seal("there.flist")
    summary = flistfs.seal("out.flist", owner=(1, 2))
    assert (summary.files, summary.out) == (2, str(home.path / "out.flist"))
    with flistfs.open("out.flist") as flist:
        assert {(node.path, node.uid) for node in flist.walk()} == {(b"file", 1), (b"more", 1)}


def test_a_daemon_that_has_ended_is_no_zombie(home: Home, mountpoint: Path) -> None:
    flistfs.mount(mountpoint)
    pid = flistfs.status()[0].pid
    assert pid is not None
    flistfs.abort()
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the daemon is reaped")


def test_a_session_is_resumed_and_aborted_by_whomever(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "file").write_bytes(b"content")
    flistfs.unmount(mountpoint)
    assert mounts.mount_at(mountpoint) is None
    with pytest.raises(errors.SessionError, match="omit `base`"):
        flistfs.mount(mountpoint, base="any.flist")
    with pytest.raises(errors.SessionError, match="omit `store`"):
        flistfs.mount(mountpoint, store=f"dir://{home.path}/elsewhere")
    assert "omit --from" in home.run("mount", mountpoint, "--from", "any.flist", code=5).stderr
    assert flistfs.mount(mountpoint).resumed
    assert (mountpoint / "file").read_bytes() == b"content"
    home.run("abort", "--yes")
    assert flistfs.status() == []


def test_a_mount_that_seals_itself(home: Home, mountpoint: Path) -> None:
    flistfs.mount(mountpoint, seal_to="out.flist", epoch=1_000_000_000)
    (mountpoint / "file").write_bytes(b"content")
    flistfs.unmount(mountpoint)
    assert flistfs.wait(mountpoint).files == 1
    with flistfs.open("out.flist") as flist:
        assert flist.find("file").mtime == 1_000_000_000
    with pytest.raises(errors.OutputError):
        flistfs.mount(mountpoint, seal_to="out.flist")
    with pytest.raises(errors.FlistfsError, match="was not mounted") as kept:
        flistfs.wait(mountpoint)
    assert kept.value.exit_code == errors.OutputError.exit_code
    with pytest.raises(errors.UsageError, match="add `seal_to`"):
        flistfs.mount(mountpoint, public_url="ardb://host")


def test_a_mount_starts_from_a_base(home: Home, mountpoint: Path) -> None:
    (home.path / "tree").mkdir()
    (home.path / "tree/file").write_bytes(b"base")
    flistfs.pack("tree", "base.flist")
    mounted = flistfs.mount(mountpoint, base="base.flist")
    assert mounted.base is not None
    assert mounted.base.size == 4
    assert (mountpoint / "file").read_bytes() == b"base"
    flistfs.abort(mountpoint)


def test_a_sealed_flist_is_mounted(home: Home, mountpoint: Path) -> None:
    (home.path / "tree").mkdir()
    (home.path / "tree/file").write_bytes(b"content")
    flistfs.pack("tree", "out.flist", store=f"dir://{home.path}/other")
    shown = flistfs.mount_sealed("out.flist", mountpoint, store=f"dir://{home.path}/other")
    assert (shown.mountpoint, shown.package) == (str(mountpoint), str(home.path / "out.flist"))
    assert (mountpoint / "file").read_bytes() == b"content"
    with (mountpoint / "file").open("rb"), pytest.raises(errors.BusyError):
        flistfs.unmount(mountpoint)
    flistfs.unmount(mountpoint)
    with pytest.raises(errors.MountError, match="not a mount of flistfs"):
        flistfs.unmount(mountpoint)


def test_the_foreground_replaces_the_program(home: Home, mountpoint: Path) -> None:
    code = f"import flistfs; flistfs.mount({str(mountpoint)!r}, foreground=True); print('it came back')"
    program = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=home.environment(),
    )
    wait_until(lambda: mounts.mount_at(mountpoint) is not None, "it is mounted")
    assert flistfs.status()[0].pid == program.pid
    flistfs.abort()
    said, _ = program.communicate()
    assert program.returncode == 0
    assert "it came back" not in said
