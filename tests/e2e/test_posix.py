"""What programs rely on in a file system, through the kernel."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.commands import Home, let_others_reach
from tests.e2e.test_roundtrip import drop_kernel_cache
from tests.independent_reader import read_flist

AS_ROOT = os.geteuid() == 0
MIB = 1 << 20


@pytest.fixture
def mounted(home: Home, mountpoint: Path) -> Path:
    """A mount that others may enter, so that the kernel checks permissions."""
    let_others_reach(mountpoint)
    home.run("mount", mountpoint, *(["--allow-other"] if AS_ROOT else []))
    return mountpoint


@pytest.fixture(autouse=True)
def sealed(home: Home, mounted: Path) -> Iterator[None]:
    """Whatever a test does, the session can be sealed afterwards."""
    yield
    home.run("seal", "out.flist")
    read_flist(home.path / "out.flist")


def errno_of(action: Callable[[], object]) -> int:
    with pytest.raises(OSError, match=r"\[Errno ") as caught:
        action()
    return caught.value.errno or 0


def test_unlinked_files_live_while_they_are_open(mounted: Path) -> None:
    with (mounted / "file").open("w+b", buffering=0) as file:
        file.write(b"a" * MIB)
        (mounted / "file").unlink()
        assert os.fstat(file.fileno()).st_nlink == 0
        file.seek(2 * MIB)
        file.write(b"b" * MIB)
        file.seek(0)
        assert file.read() == b"a" * MIB + bytes(MIB) + b"b" * MIB
        os.ftruncate(file.fileno(), 10)
        assert os.fstat(file.fileno()).st_size == 10
    assert not list(mounted.iterdir())


def test_a_removed_working_directory(mounted: Path) -> None:
    (mounted / "dir").mkdir()
    script = """
import os
os.chdir('dir'); os.rmdir('../dir')
print(os.stat('.').st_nlink, os.listdir('.'))
open('x', 'w')
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=mounted, capture_output=True, text=True, check=False
    )
    assert done.stdout == "0 []\n"
    assert "FileNotFoundError" in done.stderr


def test_rename_replaces_and_moves(mounted: Path) -> None:
    (mounted / "a").write_text("a")
    (mounted / "dir").mkdir()
    (mounted / "dir/b").write_text("b")
    with (mounted / "dir/b").open() as old:
        (mounted / "a").rename(mounted / "dir/b")
        assert old.read() == "b"
    assert (mounted / "dir/b").read_text() == "a"
    (mounted / "other").mkdir()
    (mounted / "dir").rename(mounted / "other/dir")
    assert (mounted / "other/dir/b").read_text() == "a"
    assert (mounted.stat().st_nlink, (mounted / "other").stat().st_nlink) == (3, 3)
    assert errno_of(lambda: (mounted / "other").rename(mounted / "other/dir/inside")) == errno.EINVAL
    (mounted / "empty").mkdir()
    (mounted / "empty").rename(mounted / "again")
    assert errno_of(lambda: (mounted / "again").rename(mounted / "other")) == errno.ENOTEMPTY


def test_rename_flags(mounted: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def renameat2(old: str, new: str, flags: int) -> int:
        at_cwd = -100
        names = (os.fsencode(mounted / name) for name in (old, new))
        if libc.renameat2(at_cwd, next(names), at_cwd, next(names), flags):
            return ctypes.get_errno()
        return 0

    (mounted / "file").write_text("file")
    (mounted / "dir").mkdir()
    assert renameat2("file", "dir", 1) == errno.EEXIST
    assert renameat2("file", "new", 1) == 0
    assert renameat2("new", "nothing", 2) == errno.ENOENT
    assert renameat2("new", "dir", 2) == 0
    assert (mounted / "dir").read_text() == "file"
    assert (mounted / "new").is_dir()


def test_two_appending_writers_lose_nothing(mounted: Path) -> None:
    path = mounted / "log"
    line = b"x" * 99 + b"\n"

    def append() -> None:
        with path.open("ab", buffering=0) as file:
            for _ in range(500):
                file.write(line)

    writers = [threading.Thread(target=append) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_bytes() == line * 1000


def test_truncating_up_and_down(mounted: Path) -> None:
    path = mounted / "file"
    path.write_bytes(b"x" * (2 * MIB))
    for size in (MIB + 7, 524288, 10, 3 * MIB, 524287, 600_000):
        os.truncate(path, size)
        assert path.stat().st_size == size
    drop_kernel_cache(path)
    content = path.read_bytes()
    assert content == b"x" * 10 + bytes(600_000 - 10)
    with path.open("wb"):
        assert path.stat().st_size == 0


def test_holes_read_as_zeros_and_cost_nothing(home: Home, mounted: Path) -> None:
    with (mounted / "holes").open("wb") as file:
        file.seek(100 * MIB)
        file.write(b"end")
    assert (mounted / "holes").stat().st_size == 100 * MIB + 3
    assert (mounted / "holes").stat().st_blocks <= 1024
    with (mounted / "holes").open("rb") as file:
        file.seek(50 * MIB)
        assert file.read(10) == bytes(10)
    home.run("sync")
    assert home.status()["new_blocks"] == 1
    (mounted / "full").write_bytes(b"x" * 5000)
    assert (mounted / "full").stat().st_blocks == 10


def test_shared_mappings(mounted: Path) -> None:
    path = mounted / "mapped"
    path.write_bytes(bytes(MIB))
    with (
        path.open("r+b") as file,
        mmap.mmap(file.fileno(), MIB) as first,
        mmap.mmap(file.fileno(), MIB) as second,
    ):
        first[1000:1005] = b"hello"
        assert second[1000:1005] == b"hello"
        first.flush()
        second[MIB - 5 :] = b"world"
    drop_kernel_cache(path)
    content = path.read_bytes()
    assert content[1000:1005] == b"hello"
    assert content[-5:] == b"world"


def test_fsync_of_files_and_directories(mounted: Path) -> None:
    for number in range(3):
        with (mounted / f"{number}").open("wb") as file:
            file.write(os.urandom(1000))
            file.flush()
            os.fsync(file.fileno())
            os.fdatasync(file.fileno())
    directory = os.open(mounted, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def test_set_group_id_directories(mounted: Path) -> None:
    if not AS_ROOT:
        pytest.skip("only root can give a directory to another group")
    shared = mounted / "shared"
    shared.mkdir()
    os.chown(shared, 0, 4242)
    shared.chmod(0o2775)
    (shared / "file").touch()
    (shared / "dir").mkdir()
    assert (shared / "file").stat().st_gid == 4242
    assert ((shared / "dir").stat().st_gid, (shared / "dir").stat().st_mode & stat.S_ISGID) == (
        4242,
        stat.S_ISGID,
    )


def test_umask(mounted: Path) -> None:
    before = os.umask(0o027)
    try:
        os.close(os.open(mounted / "file", os.O_CREAT | os.O_WRONLY, 0o666))
        (mounted / "dir").mkdir()
        os.mkfifo(mounted / "pipe", 0o666)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((mounted / name).stat().st_mode) for name in ("file", "dir", "pipe")]
    assert modes == [0o640, 0o750, 0o640]


@pytest.mark.skipif(not AS_ROOT, reason="only root can act for other users")
def test_access_by_user_group_and_sticky_bit(mounted: Path) -> None:
    (mounted / "secret").write_text("secret")
    os.chown(mounted / "secret", 1000, 2000)
    (mounted / "secret").chmod(0o640)
    (mounted / "tmp").mkdir()
    (mounted / "tmp").chmod(0o1777)
    (mounted / "tmp/roots").touch()

    def run_as(uid: int, groups: list[int], *command: str) -> int:
        return subprocess.run(
            command, cwd=mounted, user=uid, group=uid, extra_groups=groups, check=False, capture_output=True
        ).returncode

    assert run_as(1000, [], "cat", "secret") == 0
    assert run_as(1001, [], "cat", "secret") != 0
    assert run_as(1001, [2000], "cat", "secret") == 0
    assert run_as(1001, [2000], "sh", "-c", "echo >> secret") != 0
    assert run_as(1001, [], "touch", "tmp/mine") == 0
    assert run_as(1002, [], "rm", "-f", "tmp/mine") != 0
    assert run_as(1002, [], "mv", "tmp/roots", "tmp/stolen") != 0
    assert run_as(1001, [], "rm", "tmp/mine") == 0
    assert run_as(1001, [], "touch", "file-in-root") != 0


@pytest.mark.skipif(not AS_ROOT, reason="only root can act for other users")
def test_set_id_bits_go_when_a_stranger_changes_the_file(mounted: Path) -> None:
    for name, command in (("write", "echo x >> write"), ("truncate", ": > truncate")):
        (mounted / name).write_text("program")
        (mounted / name).chmod(0o6777)
        subprocess.run(["sh", "-c", command], cwd=mounted, user=1000, group=1000, extra_groups=[], check=True)
        assert stat.S_IMODE((mounted / name).stat().st_mode) == 0o777, name


def test_times_in_nanoseconds(mounted: Path) -> None:
    path = mounted / "file"
    path.touch()
    for times in (
        (1, 2),
        (10**18 + 1, 10**18 + 2),
        (-(10**9) + 3, -5),
        (4417 * 10**15 + 7, 4417 * 10**15 + 8),
    ):
        os.utime(path, ns=times)
        assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == times
    before = path.stat().st_ctime_ns
    path.chmod(0o600)
    assert path.stat().st_ctime_ns > before
    assert path.stat().st_mtime_ns == 4417 * 10**15 + 8
    path.write_text("x")
    assert path.stat().st_mtime_ns > before


def test_long_names(mounted: Path) -> None:
    (mounted / ("n" * 255)).write_text("x")
    assert errno_of((mounted / ("n" * 256)).touch) == errno.ENAMETOOLONG
    assert errno_of((mounted / ("n" * 256)).stat) == errno.ENAMETOOLONG
    (mounted / "link").symlink_to("t" * 4095)
    assert (mounted / "link").readlink() == Path("t" * 4095)


def test_statfs(mounted: Path) -> None:
    found = os.statvfs(mounted)
    assert found.f_namemax == 255
    assert found.f_bavail > 0
    assert found.f_ffree > 1000


def test_listing_while_entries_come_and_go(mounted: Path) -> None:
    names = {f"{number:05}" for number in range(3000)}
    for name in names:
        (mounted / name).touch()
    seen = []
    with os.scandir(mounted) as entries:
        for position, entry in enumerate(entries):
            seen.append(entry.name)
            if position % 3 == 0:
                (mounted / entry.name).unlink()
                (mounted / f"new{position}").touch()
    assert len(seen) == len(set(seen))
    assert names <= set(seen)


def test_copying_what_is_listed_comes_to_an_end(mounted: Path) -> None:
    for number in range(20):
        (mounted / f"{number}").touch()
    made = 0
    with os.scandir(mounted) as entries:
        for entry in entries:
            (mounted / f"{entry.name}~").touch()
            made += 1
            assert made < 100
    assert made == 20
    directory = os.open(mounted, os.O_RDONLY)
    try:
        assert len(os.listdir(directory)) == 40  # noqa: PTH208  the descriptor is listed twice
        (mounted / "late").touch()
        os.lseek(directory, 0, os.SEEK_SET)
        assert len(os.listdir(directory)) == 41  # noqa: PTH208
    finally:
        os.close(directory)


def test_locks(mounted: Path) -> None:
    path = mounted / "lock"
    with path.open("w") as first, path.open("w") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        assert errno_of(lambda: fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)) == errno.EWOULDBLOCK
        fcntl.flock(first, fcntl.LOCK_UN)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_allocating_ahead(mounted: Path) -> None:
    with (mounted / "file").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, MIB)
        file.write(b"start")
    assert (mounted / "file").stat().st_size == MIB
    assert (mounted / "file").read_bytes() == b"start" + bytes(MIB - 5)
