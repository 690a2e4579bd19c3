"""What a returned close() or fsync() covers survives the daemon, however it ends."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import pytest

from flistfs.authoring import offline
from flistfs.authoring.request import Passwords, SealRequest
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.errors import SessionError
from tests.e2e.commands import FLISTFS, TIMEOUT, Home, is_mounted, umount, umount_soon, wait_until, watched
from tests.e2e.killing import Campaign, compare_flist, differences
from tests.independent_reader import CHUNK, read_flist
from tests.redis_server import free_port


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


# Damage


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
