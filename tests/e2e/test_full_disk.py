"""A spool or a disk that is full: writers wait, and nothing is lost."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.commands import TIMEOUT, Home, is_mounted, wait_until
from tests.e2e.proxy import Proxy
from tests.e2e.test_outages import AS_ROOT, content, seal_and_compare, wait_unmounted
from tests.redis_server import RedisServer


def write_in_pieces(path: Path, data: bytes) -> None:
    with path.open("wb", 0) as file:
        for start in range(0, len(data), 1 << 16):
            assert file.write(data[start : start + (1 << 16)]) == 1 << 16


def test_writers_wait_while_the_spool_is_full_and_go_on_by_themselves(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy
) -> None:
    home.expected_log += ["uploads are waiting", "writers are waiting"]
    home.run("mount", mountpoint, "--store", proxy.url, "--spool-size", "8M")
    proxy.go_down()
    contents = {"small": content(1, 100_000), "large": content(2, 40 << 20)}
    (mountpoint / "small").write_bytes(contents["small"])
    # In small pieces, since the kernel tells the size only between two calls of write().
    writer = threading.Thread(target=write_in_pieces, args=(mountpoint / "large", contents["large"]))
    writer.start()
    try:
        wait_until(lambda: home.status()["waiting_writers"] == 1, "the writer waits")
        assert "writers are waiting" in home.run("status").stdout
        size = (mountpoint / "large").stat().st_size
        assert 7 << 20 < size < 12 << 20
        assert home.status()["spooled_bytes"] < 12 << 20
        # Only writers are waiting.
        (mountpoint / "directory").mkdir()
        (mountpoint / "small").rename(mountpoint / "directory/small")
        assert (mountpoint / "directory/small").read_bytes() == contents["small"]
        with (mountpoint / "large").open("rb") as file:
            assert file.read(1 << 20) == contents["large"][: 1 << 20]
        assert (mountpoint / "large").stat().st_size == size
        assert writer.is_alive()
    finally:
        proxy.come_back()
        writer.join(TIMEOUT)
    assert not writer.is_alive()
    wait_until(lambda: home.status()["waiting_writers"] == 0, "nobody waits")
    told = [line for line in home.logs().splitlines() if "writers are waiting" in line]
    assert len(told) < 4, "one line is enough for one wait"
    seal_and_compare(home, server, {"directory/small": contents["small"], "large": contents["large"]})


def looks_within(seconds: float, directory: Path) -> bool:
    """Say whether a directory can be looked into."""
    command = ["stat", str(directory / "first"), str(directory / "none")]
    try:
        looked = subprocess.run(command, capture_output=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return looked.returncode == 1


def test_any_number_of_waiting_writers_leaves_the_tree_usable(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy
) -> None:
    home.expected_log += ["uploads are waiting", "writers are waiting"]
    home.run("mount", mountpoint, "--store", proxy.url, "--spool-size", "1M")
    contents = {f"file{number}": content(number, 20_000) for number in range(150)}
    contents["first"] = content(1000, 1_100_000)
    proxy.go_down()
    (mountpoint / "first").write_bytes(contents["first"])
    writers = [
        threading.Thread(target=(mountpoint / name).write_bytes, args=(data,))
        for name, data in contents.items()
        if name != "first"
    ]
    for writer in writers:
        writer.start()
    try:
        wait_until(lambda: home.status()["waiting_writers"] >= 90, "the writers are waiting")
        is_usable = looks_within(60, mountpoint)
    finally:
        proxy.come_back()
        for writer in writers:
            writer.join(TIMEOUT)
    assert not any(writer.is_alive() for writer in writers)
    assert is_usable
    seal_and_compare(home, server, contents)


# Reading back


def test_only_reading_what_is_away_fails_while_the_store_is_down(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy
) -> None:
    home.expected_log += ["reading back a chunk", "uploads are waiting"]
    home.run("mount", mountpoint, "--store", proxy.url)
    contents = {"away": content(1, 1_300_000), "here": content(2, 600_000)}
    (mountpoint / "away").write_bytes(contents["away"])
    home.run("sync")
    wait_unmounted(home, mountpoint)
    proxy.go_down()
    home.run("mount", mountpoint, "--offline")
    (mountpoint / "here").write_bytes(contents["here"])
    started = time.monotonic()
    with pytest.raises(OSError, match="Input/output") as caught:
        (mountpoint / "away").read_bytes()
    assert caught.value.errno == errno.EIO
    assert time.monotonic() - started < TIMEOUT
    # A part of a chunk that is away cannot be changed either, and is left as it was.
    with pytest.raises(OSError, match="Input/output"), (mountpoint / "away").open("r+b", 0) as file:
        file.write(b"new")
    assert (mountpoint / "here").read_bytes() == contents["here"]
    assert sorted(path.name for path in mountpoint.iterdir()) == ["away", "here"]
    assert (mountpoint / "away").stat().st_size == 1_300_000
    proxy.come_back()
    assert (mountpoint / "away").read_bytes() == contents["away"]
    seal_and_compare(home, server, contents)


# A full disk


def fill(directory: Path) -> dict[str, bytes]:
    """Write files until the disk is full; those that were written whole."""
    written: dict[str, bytes] = {}
    for number in range(1000):
        name, data = f"full{number}", content(number, 900_000)
        try:
            (directory / name).write_bytes(data)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            (directory / name).unlink(missing_ok=True)
            return written
        written[name] = data
    raise AssertionError("the disk is never full")


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount a small disk")
def test_a_full_disk_is_told_and_nothing_is_lost(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy, small_disk: Path
) -> None:
    home.expected_log += ["uploads are waiting", "the disk is nearly full"]
    home.run("mount", mountpoint, "--store", proxy.url, "--state", small_disk / "state", "--spool-size", "1G")
    contents = {"early": content(5000, 2_000_000)}
    (mountpoint / "early").write_bytes(contents["early"])
    home.run("sync")
    proxy.go_down()
    written = fill(mountpoint)
    assert len(written) > 30
    # Whether writers were made to wait before depends on who noticed first: the uploader or the writer.
    assert re.search("the disk is nearly full: writ(ers are waiting|ing fails)", home.logs())
    for name, data in written.items():
        assert (mountpoint / name).read_bytes() == data, name
    # Removing makes room to write in.
    for name in sorted(written)[:10]:
        (mountpoint / name).unlink()
        del written[name]
    contents["later"] = content(5001, 700_000)
    (mountpoint / "later").write_bytes(contents["later"])
    assert (mountpoint / "later").read_bytes() == contents["later"]
    proxy.come_back()
    contents["last"] = content(5002, 8_000_000)
    home.run("sync")
    (mountpoint / "last").write_bytes(contents["last"])
    seal_and_compare(home, server, {**contents, **written})


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount a small disk")
def test_copies_of_what_is_stored_never_fill_the_disk(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy, small_disk: Path
) -> None:
    home.expected_log += ["the disk is nearly full"]
    home.run("mount", mountpoint, "--store", proxy.url, "--state", small_disk / "state")
    contents = {f"file{number}": content(number, 6_000_000) for number in range(10)}
    for name, data in contents.items():
        (mountpoint / name).write_bytes(data)
        home.run("sync")
    for name, data in contents.items():
        assert (mountpoint / name).read_bytes() == data
    seal_and_compare(home, server, contents)


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount a small disk")
def test_a_disk_that_others_filled_to_the_last_byte(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy, small_disk: Path
) -> None:
    home.expected_log += [
        "uploads are waiting",
        "the disk is nearly full",
        "cannot record",
        "journal cannot be written",
    ]
    home.run("mount", mountpoint, "--store", proxy.url, "--state", small_disk / "state")
    contents = {f"file{number}": content(number, 300_000) for number in range(5)}
    for name, data in contents.items():
        (mountpoint / name).write_bytes(data)
    proxy.go_down()
    with (small_disk / "of others").open("wb", 0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    assert shutil.disk_usage(small_disk).free == 0
    codes = set()
    for _ in range(200):
        for attempt in (
            lambda: (mountpoint / "new").write_bytes(b"new"),
            lambda: (mountpoint / "file0").chmod(0o600),
            lambda: os.utime(mountpoint / "file1"),
        ):
            try:
                attempt()
            except OSError as error:
                codes.add(error.errno)
    assert codes == {errno.ENOSPC}
    for name, data in contents.items():
        assert (mountpoint / name).read_bytes() == data
    (small_disk / "of others").unlink()
    (mountpoint / "file0").chmod(0o640)
    (mountpoint / "file4").unlink()
    del contents["file4"]
    contents["new"] = content(9, 600_000)
    (mountpoint / "new").write_bytes(contents["new"])
    proxy.come_back()
    seal_and_compare(home, server, contents)


CHUNK = 512 << 10

# Reads a piece across the border of two chunks of each file at the same time, and says how many were right.
READ_ACROSS = """
import os, sys, threading
directory, count, chunk = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
right = []
together = threading.Barrier(count)

def read(number):
    file = os.open(f"{directory}/stored{number}", os.O_RDONLY)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    together.wait()
    if os.pread(file, 65536, chunk - 32768) == bytes([number]) * 32768 + bytes([number + 100]) * 32768:
        right.append(number)

threads = [threading.Thread(target=read, args=(number,)) for number in range(count)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(right))
"""


def take_all_but(disk: Path, left: int) -> None:
    """Fill a disk, as others do, until so many bytes are free."""
    with (disk / "of others").open("wb", 0) as file:
        os.posix_fallocate(file.fileno(), 0, max(shutil.disk_usage(disk).free - left, 1))


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount a small disk")
@pytest.mark.parametrize("left", [1 << 20, 0], ids=["nearly full", "full"])
def test_on_a_full_disk_what_is_stored_can_be_read_and_removed(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy, small_disk: Path, left: int
) -> None:
    home.expected_log += ["the disk is nearly full"]
    home.run("mount", mountpoint, "--store", proxy.url, "--state", small_disk / "state")
    readers = 24
    contents = {
        f"stored{number}": bytes([number]) * CHUNK + bytes([number + 100]) * CHUNK
        for number in range(readers)
    }
    for name, data in contents.items():
        (mountpoint / name).write_bytes(data)
    home.run("sync")
    wait_unmounted(home, mountpoint)
    home.run("mount", mountpoint)  # nothing of it is cached now
    take_all_but(small_disk, left)

    command = [sys.executable, "-c", READ_ACROSS, str(mountpoint), str(readers), str(CHUNK)]
    read = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert read.stdout == f"{readers}\n", read.stderr
    assert (mountpoint / "stored5").read_bytes() == contents["stored5"]
    assert shutil.disk_usage(small_disk).free >= left - (64 << 10), "reading took space"

    with pytest.raises(OSError, match="No space"):
        (mountpoint / "new").write_bytes(bytes(CHUNK))
    (mountpoint / "new").unlink(missing_ok=True)
    for number in range(10):
        (mountpoint / f"stored{number}").unlink()
        del contents[f"stored{number}"]
    os.truncate(mountpoint / "stored10", 0)
    contents["stored10"] = b""

    (small_disk / "of others").unlink()
    (mountpoint / "new").write_bytes(b"new")
    contents["new"] = b"new"
    seal_and_compare(home, server, contents)


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount a small disk")
def test_a_session_on_a_full_disk_can_be_aborted(
    home: Home, mountpoint: Path, proxy: Proxy, small_disk: Path
) -> None:
    home.expected_log += ["the disk is nearly full", "uploads are waiting"]
    home.run("mount", mountpoint, "--store", proxy.url, "--state", small_disk / "state")
    proxy.go_down()
    (mountpoint / "unstored").write_bytes(content(1, 3_000_000))
    take_all_but(small_disk, 0)
    home.run("abort", "--yes")
    assert not is_mounted(mountpoint)
    assert home.listed("status") == []
    assert not (small_disk / "state/spool").exists()


@pytest.mark.skipif(not AS_ROOT, reason="only root can mount a small disk")
def test_removing_what_is_not_stored_makes_room_on_a_full_disk(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy, small_disk: Path
) -> None:
    home.expected_log += ["the disk is nearly full", "uploads are waiting"]
    home.run("mount", mountpoint, "--store", proxy.url, "--state", small_disk / "state", "--spool-size", "1G")
    proxy.go_down()
    for number in range(8):
        (mountpoint / f"file{number}").write_bytes(content(number, 1 << 20))
    take_all_but(small_disk, 0)
    for number in range(6):
        (mountpoint / f"file{number}").unlink()
    wait_until(lambda: shutil.disk_usage(small_disk).free > 1 << 20, "the space is given back")
    (mountpoint / "new").write_bytes(b"new")
    proxy.come_back()
    kept = {f"file{number}": content(number, 1 << 20) for number in (6, 7)}
    seal_and_compare(home, server, {**kept, "new": b"new"})
