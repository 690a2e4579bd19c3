"""Sessions whose files are damaged: reported, and never taken for smaller ones."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from flistfs.authoring.state.directory import SessionDirectory
from tests.e2e.commands import FLISTFS, TIMEOUT, Home, is_mounted, umount, wait_until, watched
from tests.e2e.test_durability import kill, only_session, signal_daemon, wait_ended
from tests.independent_reader import read_flist
from tests.redis_server import free_port


@dataclass(frozen=True)
class Damaged:
    """A session whose daemon was killed, and what is in it: tables, and a log of what came after them."""

    home: Home
    mountpoint: Path
    kept: Path
    names: list[bytes]

    @property
    def session(self) -> SessionDirectory:
        """The session, as it was before any damage."""
        return only_session(self.home)

    def restore(self) -> None:
        """Undo what the last test did."""
        if is_mounted(self.mountpoint):
            subprocess.run(["fusermount3", "-uz", str(self.mountpoint)], check=True)
        wait_ended(self.home)
        path = self.session.path
        shutil.rmtree(path)
        shutil.copytree(self.kept, path)
        for out in self.home.path.glob("*.flist"):
            out.unlink()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Damaged]:
    """Make the session once, and end it after the last test."""
    directory = tmp_path_factory.mktemp("damage").resolve()
    home = Home(directory / "home")
    home.path.mkdir()
    mountpoint = directory / "mnt"
    mountpoint.mkdir()
    names = []
    for round_ in range(2):
        home.run("mount", mountpoint)
        for number in range(300):
            names.append(f"{round_}-{number:03}")
            (mountpoint / names[-1]).write_text("the same content")
        if round_:
            with (mountpoint / "spooled").open("wb") as file:
                file.write(b"still being written")
                file.flush()
                kill(home)
                subprocess.run(["fusermount3", "-uz", str(mountpoint)], check=True)
                with pytest.raises(OSError, match=r"not connected|aborted"):
                    os.fsync(file.fileno())
            names.append("spooled")
        else:
            kill(home)
    session = only_session(home)
    kept = directory / "kept"
    shutil.copytree(session.path, kept, ignore=shutil.ignore_patterns("control"))
    damaged = Damaged(home, mountpoint, kept, [name.encode() for name in names])
    yield damaged
    damaged.restore()


@pytest.fixture
def damaged(prepared: Damaged) -> Damaged:
    """The session as it was when its daemon was killed."""
    prepared.restore()
    return prepared


def largest(session: SessionDirectory, pattern: str) -> Path:
    return max(session.journal.glob(pattern), key=lambda path: path.stat().st_size)


def flip(part: float) -> Callable[[Path], None]:
    """Make a damage: 16 bytes are others, that far into the file."""

    def damage(path: Path) -> None:
        raw = bytearray(path.read_bytes())
        at = int(part * len(raw))
        raw[at : at + 16] = bytes(octet ^ 0xFF for octet in raw[at : at + 16])
        path.write_bytes(raw)

    return damage


def clear(path: Path) -> None:
    """Let the middle of the log read as zeros, as some file systems do after a power cut.

    From within a record: zeros from the end of one on are what RocksDB takes for room that was never used.
    """
    raw = bytearray(path.read_bytes())
    start = 0
    while start < len(raw) // 3:
        start += 7 + int.from_bytes(raw[start + 4 : start + 6], "little")  # checksum, length, type
        if start % 32768 > 32768 - 7:
            start += -start % 32768  # a block's end is too short for another record
    middle = slice(start + 10, 2 * len(raw) // 3)
    raw[middle] = bytes(len(raw[middle]))
    path.write_bytes(raw)


def cut(path: Path) -> None:
    """Shorten the file by half."""
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    """Let nothing be left in the file."""
    os.truncate(path, 0)


def remove(path: Path) -> None:
    """Remove the file."""
    path.unlink()


DAMAGES = [
    *(("*.log", damage) for damage in (flip(0.3), flip(0.7), clear)),
    *(("*.sst", damage) for damage in (flip(0), flip(0.2), flip(0.4), flip(0.6), flip(0.9), cut, remove)),
    *(("MANIFEST-*", damage) for damage in (flip(0.5), empty, remove)),
    *(("CURRENT", damage) for damage in (cut, remove)),
]


def assert_refused(said: subprocess.CompletedProcess[str], session: SessionDirectory) -> None:
    assert len(said.stderr.splitlines()) == 1, said.stderr
    assert "the session's journal" in said.stderr or str(session.path) in said.stderr
    assert "damaged" in said.stderr or "cannot be opened" in said.stderr
    assert "bug" not in said.stderr


def ask(damaged: Damaged, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command that may go well or fail."""
    return subprocess.run(
        [FLISTFS, *arguments],
        check=False,
        env=damaged.home.environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )


@pytest.mark.parametrize(("pattern", "damage"), DAMAGES)
def test_a_damaged_journal_is_reported(
    damaged: Damaged, pattern: str, damage: Callable[[Path], None]
) -> None:
    """Never is a smaller tree sealed; a whole one may be, as not every byte of a table matters."""
    damage(largest(damaged.session, pattern))
    out = damaged.home.path / "out.flist"
    said = ask(damaged, "seal", out)
    if said.returncode == 0:
        assert pattern == "*.sst"
        assert set(read_flist(out)) == {b"", *damaged.names}
        return
    assert said.returncode == 5, said.stderr
    assert_refused(said, damaged.session)
    assert not out.exists()


def test_a_damaged_journal_is_not_mounted(damaged: Damaged) -> None:
    flip(0.5)(largest(damaged.session, "*.log"))
    before = {path.name: path.read_bytes() for path in damaged.session.journal.glob("*.sst")}
    assert_refused(damaged.home.run("mount", damaged.mountpoint, code=5), damaged.session)
    assert not is_mounted(damaged.mountpoint)
    assert {path.name: path.read_bytes() for path in damaged.session.journal.glob("*.sst")} == before


def test_a_table_that_cannot_be_read_shows_no_smaller_tree(damaged: Damaged) -> None:
    """Damage that is met only while the session is mounted is an error, and never a file less."""
    names = {os.fsdecode(name) for name in damaged.names}
    table = largest(damaged.session, "*.sst")
    for part in (0.2, 0.5):
        damaged.restore()
        flip(part)(table)
        said = ask(damaged, "mount", damaged.mountpoint)
        if said.returncode:
            assert said.returncode == 5
            assert_refused(said, damaged.session)
            continue
        try:
            with suppress(OSError):
                assert set(os.listdir(damaged.mountpoint)) == names  # noqa: PTH208  in one call
        finally:
            umount(damaged.mountpoint)
            wait_ended(damaged.home)


def test_a_log_whose_last_record_is_torn_is_tolerated(damaged: Damaged) -> None:
    log = largest(damaged.session, "*.log")
    os.truncate(log, log.stat().st_size - 3)
    damaged.home.run("seal", "out.flist")
    # The last record was of the last write.
    assert read_flist(damaged.home.path / "out.flist").keys() >= set(damaged.names)


def test_a_spool_that_is_gone_is_reported(damaged: Damaged) -> None:
    damaged.session.spool.unlink()
    assert_refused(damaged.home.run("seal", "out.flist", code=5), damaged.session)
    assert not (damaged.home.path / "out.flist").exists()


def test_an_undamaged_journal_is_sealed_whole(damaged: Damaged) -> None:
    damaged.home.run("seal", "out.flist")
    assert set(read_flist(damaged.home.path / "out.flist")) == {b"", *damaged.names}


@pytest.mark.parametrize("schema", ["2", "", "1\n", "later"])
def test_a_session_of_another_version_is_refused(damaged: Damaged, schema: str) -> None:
    (damaged.session.path / "schema").write_text(schema)
    journal = sorted(path.name for path in damaged.session.journal.iterdir())
    for command in (["mount", damaged.mountpoint], ["seal", "out.flist"]):
        refused = damaged.home.run(*command, code=5)
        assert len(refused.stderr.splitlines()) == 1
        assert "another version of flistfs" in refused.stderr
        assert repr(schema) in refused.stderr
    assert not is_mounted(damaged.mountpoint)
    assert sorted(path.name for path in damaged.session.journal.iterdir()) == journal


def test_unreadable_settings_are_reported(damaged: Damaged) -> None:
    (damaged.session.path / "session.json").write_text("{")
    for command in (["mount", damaged.mountpoint], ["seal", "out.flist"]):
        assert_refused(damaged.home.run(*command, code=5), damaged.session)
    assert not is_mounted(damaged.mountpoint)


def test_umount_after_a_resume_leaves_a_session_that_is_sealed(damaged: Damaged) -> None:
    damaged.home.run("mount", damaged.mountpoint)
    umount(damaged.mountpoint)
    wait_ended(damaged.home)
    damaged.home.run("seal", "out.flist")
    assert set(read_flist(damaged.home.path / "out.flist")) == {b"", *damaged.names}


@pytest.mark.parametrize("state", ["busy", "detached"])
def test_a_signal_ends_a_daemon_whose_writers_wait(home: Home, mountpoint: Path, state: str) -> None:
    home.expected_log += ["127.0.0.1", "writers are waiting", "is in use", "uploads are waiting"]
    store = f"redis://127.0.0.1:{free_port()}"
    home.run("mount", mountpoint, "--store", store, "--offline", "--spool-size", "1M")
    (mountpoint / "closed").write_bytes(b"x" * 1000)
    command = ["dd", "if=/dev/urandom", f"of={mountpoint}/large", "bs=1M", "count=20", "status=none"]
    writer = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    with watched(writer):
        wait_until(lambda: home.status()["waiting_writers"], "the writer waits")
        if state == "detached":
            subprocess.run(["fusermount3", "-uz", str(mountpoint)], check=True)
        signal_daemon(home, signal.SIGTERM)
        wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
    assert writer.returncode != 0
    home.run("mount", mountpoint, "--offline")
    assert (mountpoint / "closed").read_bytes() == b"x" * 1000
    home.run("abort", "--yes")
