"""Stores that are slow, hung, full, restarted, lying or gone, and a disk that is full: nothing gets lost."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self, cast

import pytest
import redis as redis_client

from tests.e2e.commands import TIMEOUT, Home, is_mounted, umount, wait_until
from tests.e2e.proxy import LOADING, NOAUTH, OOM, READONLY, Proxy
from tests.independent_reader import read_content, read_flist
from tests.redis_server import RedisServer, running_redis

AS_ROOT = os.geteuid() == 0

Contents = Mapping[str, bytes]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A redis-server that a test may stop and start; what it acknowledged is kept."""
    # Without "always" it may acknowledge before it has written, while the disk is busy with what came before.
    with running_redis("--appendonly", "yes", "--appendfsync", "always") as running:
        yield running


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    """What the mounts of a test take for their store."""
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    path = tmp_path.resolve() / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "flistfs-test", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def content(number: int, size: int) -> bytes:
    """Bytes that no other number has."""
    return random.Random(number).randbytes(size)


class Writer:
    """Writes one file after the other while its `with` block runs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stop = threading.Event()
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run)
        self.written: dict[str, bytes] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        if self._error:
            raise self._error

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.01):
                number = len(self.written)
                name, data = f"file{number}", content(number, number * 37_003 % 1_500_000)
                (self._directory / name).write_bytes(data)
                self.written[name] = data
        except OSError as error:
            self._error = error

    def write_more(self) -> None:
        """Wait until some more files are written."""
        before = len(self.written)
        wait_until(lambda: len(self.written) >= before + 10, "more files are written")


def seal_and_compare(home: Home, server: RedisServer, contents: Contents) -> None:
    """Seal, and read every byte back from the real server."""
    home.run("seal", "out.flist")
    client = redis_client.Redis(port=server.port)
    nodes = read_flist(home.path / "out.flist")
    found = {
        os.fsdecode(path): read_content(node, lambda name: cast("bytes | None", client.get(name)), fast=True)
        for path, node in nodes.items()
        if node.kind == "file"
    }
    assert found.keys() == contents.keys()
    assert not [name for name, data in contents.items() if found[name] != data]


def trouble(home: Home) -> str:
    """What the status says is wrong with the store, if anything."""
    return home.status()["trouble"] or ""


def wait_unmounted(home: Home, mountpoint: Path) -> None:
    """Unmount, and wait for the daemon to end; the session stays."""
    umount(mountpoint)
    home.run("wait", "--mount", mountpoint, code=5)


# Down from the start


def test_down_at_mount_is_refused_and_with_offline_it_waits(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy
) -> None:
    home.expected_log += ["cannot reach"]
    proxy.go_down()
    refused = home.run("mount", mountpoint, "--store", proxy.url, code=3)
    assert refused.stderr.startswith(f"flistfs: cannot reach {proxy.url}: Connection refused")
    assert len(refused.stderr.splitlines()) == 1
    assert not is_mounted(mountpoint)

    before = time.time()
    home.run("mount", mountpoint, "--store", proxy.url, "--offline")
    contents = {f"file{number}": content(number, 700_000) for number in range(5)}
    for name, data in contents.items():
        (mountpoint / name).write_bytes(data)
    wait_until(lambda: "Connection refused" in trouble(home), "the status tells of it")
    status = home.status()
    assert before < status["trouble_since"] < time.time()
    assert status["queued"] == status["spooled_chunks"] == 10
    assert "trouble since" in home.run("status").stdout
    proxy.come_back()
    wait_until(lambda: home.status()["queued"] == 0, "everything is stored without being asked for")
    status = home.status()
    assert (status["trouble"], status["trouble_since"], status["spooled_chunks"]) == (None, None, 0)
    assert redis_client.Redis(port=server.port).dbsize() == 10
    seal_and_compare(home, server, contents)


# While files are written


def outage(proxy: Proxy) -> None:
    proxy.go_down()


def cuts(proxy: Proxy) -> None:
    proxy.faults.cut_every = 1


def refusal(reply: bytes) -> Callable[[Proxy], None]:
    def refuse(proxy: Proxy) -> None:
        proxy.faults.refusal = reply

    return refuse


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param(outage, "Connection refused", id="down"),
        pytest.param(cuts, "cannot reach", id="cuts"),
        pytest.param(refusal(LOADING), "is still loading its data", id="loading"),
        pytest.param(refusal(OOM), "is full", id="full"),
        pytest.param(refusal(READONLY), "is read-only", id="read-only"),
        pytest.param(refusal(NOAUTH), "needs a password", id="password"),
    ],
)
def test_what_lasts_is_told_and_nothing_is_lost(
    home: Home,
    mountpoint: Path,
    server: RedisServer,
    proxy: Proxy,
    fault: Callable[[Proxy], None],
    reason: str,
) -> None:
    home.expected_log += [
        f"uploads are waiting: {proxy.url}",
        f"uploads are waiting: cannot reach {proxy.url}",
    ]
    home.run("mount", mountpoint, "--store", proxy.url)
    with Writer(mountpoint) as writer:
        writer.write_more()
        assert trouble(home) == ""
        before = time.time()
        fault(proxy)
        writer.write_more()
        wait_until(lambda: reason in trouble(home), "the status tells of it")
        assert before < home.status()["trouble_since"] < time.time()
        writer.write_more()
        proxy.heal()
        if fault is outage:
            proxy.come_back()
        writer.write_more()
    home.run("sync")
    assert (home.status()["trouble"], home.status()["spooled_chunks"]) == (None, 0)
    seal_and_compare(home, server, writer.written)
    log = home.logs()
    told = re.search(rf"^(\S+ \S+) WARNING .*uploads are waiting: .*{re.escape(reason)}", log, re.MULTILINE)
    assert told
    began = time.mktime(time.strptime(told[1].partition(",")[0], "%Y-%m-%d %H:%M:%S"))
    assert int(before) <= began <= time.time()
    assert "the store works again" in log[told.end() :]


def slowness(proxy: Proxy, server: RedisServer, writer: Writer) -> None:
    proxy.faults.delay = 0.02
    writer.write_more()


def stall(proxy: Proxy, server: RedisServer, writer: Writer) -> None:
    # Shorter than the client waits for a sign of life, so that the reply comes in the end.
    proxy.stall()
    time.sleep(3)
    writer.write_more()


def stall_and_cut(proxy: Proxy, server: RedisServer, writer: Writer) -> None:
    proxy.stall()
    writer.write_more()
    proxy.disconnect()


def some_cuts(proxy: Proxy, server: RedisServer, writer: Writer) -> None:
    proxy.faults.cut_every = 7
    writer.write_more()


def restart(proxy: Proxy, server: RedisServer, writer: Writer) -> None:
    server.stop()
    writer.write_more()
    server.start()


def crash(proxy: Proxy, server: RedisServer, writer: Writer) -> None:
    server.kill()
    writer.write_more()
    server.start()


@pytest.mark.parametrize("fault", [slowness, stall, stall_and_cut, some_cuts, restart, crash])
def test_what_passes_is_survived(
    home: Home,
    mountpoint: Path,
    server: RedisServer,
    proxy: Proxy,
    fault: Callable[[Proxy, RedisServer, Writer], None],
) -> None:
    home.expected_log += ["uploads are waiting: "]
    home.run("mount", mountpoint, "--store", proxy.url)
    with Writer(mountpoint) as writer:
        writer.write_more()
        fault(proxy, server, writer)
        proxy.heal()
        writer.write_more()
    seal_and_compare(home, server, writer.written)


# Lying servers


def test_what_a_lying_server_dropped_is_sent_again(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy
) -> None:
    home.expected_log += ["the store lost"]
    client = redis_client.Redis(port=server.port)
    home.run("mount", mountpoint, "--store", proxy.url)
    proxy.faults.is_lying = True
    contents = {f"file{number}": content(number // 2, 800_000) for number in range(6)}
    for name, data in contents.items():
        (mountpoint / name).write_bytes(data)
    home.run("sync")
    assert client.dbsize() == 0
    proxy.heal()
    seal_and_compare(home, server, contents)
    assert client.dbsize() == 6


def test_a_server_that_goes_on_lying_is_blamed(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy
) -> None:
    home.expected_log += ["the store lost", "sealing failed"]
    home.run("mount", mountpoint, "--store", proxy.url)
    proxy.faults.is_lying = True
    contents = {"file": content(1, 800_000)}
    (mountpoint / "file").write_bytes(contents["file"])
    refused = home.run("seal", "out.flist", code=7)
    assert re.fullmatch(r"flistfs: the store .*(lost|losing) .*\n", refused.stderr)
    assert is_mounted(mountpoint)
    proxy.heal()
    seal_and_compare(home, server, contents)


@pytest.mark.parametrize("is_mounted_again", [True, False])
def test_files_whose_blocks_are_gone_are_named_each_time(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy, *, is_mounted_again: bool
) -> None:
    home.expected_log += ["the store lost", "sealing failed"]
    client = redis_client.Redis(port=server.port)
    home.run("mount", mountpoint, "--store", proxy.url)
    contents = {"kept": content(0, 600_000), "lost": content(1, 600_000), "same": content(1, 600_000)}
    (mountpoint / "kept").write_bytes(contents["kept"])
    home.run("sync")
    kept = set(cast("list[bytes]", client.keys()))
    for name in ("lost", "same"):
        (mountpoint / name).write_bytes(contents[name])
    home.run("sync")
    wait_unmounted(home, mountpoint)
    # Whoever opens the session again has no copies of what was stored before.
    if is_mounted_again:
        home.run("mount", mountpoint)
    gone = set(cast("list[bytes]", client.keys())) - kept
    assert len(gone) == 2
    client.delete(*gone)
    for _ in range(2):
        refused = home.run("seal", "out.flist", code=7)
        assert "the store has lost 2 blocks of 2 files: lost, same." in refused.stderr
        error = json.loads(home.run("seal", "out.flist", "--json", code=7).stdout)["error"]
        assert (error["paths"], error["count"]) == ([{"path": "lost"}, {"path": "same"}], 2)
        assert len(refused.stderr.splitlines()) == 1
        assert not (home.path / "out.flist").exists()
    if not is_mounted_again:
        home.run("mount", mountpoint)
    (mountpoint / "lost").write_bytes(contents["lost"])  # brings back the other file's blocks as well
    seal_and_compare(home, server, contents)


# Commands while the store is down


def test_seal_and_sync_give_up_and_the_mount_stays_in_use(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy
) -> None:
    home.expected_log += ["uploads are waiting", "sealing failed"]
    home.run("mount", mountpoint, "--store", proxy.url)
    contents = {"before": content(1, 600_000), "after": content(2, 600_000)}
    (mountpoint / "before").write_bytes(contents["before"])
    home.run("sync")
    proxy.go_down()
    # There is nothing to store yet: the store is asked whether it has everything.
    for command in (["seal", "out.flist"], ["sync"]):
        (mountpoint / "after").write_bytes(contents["after"])
        refused = home.run(*command, "--timeout", "1", code=3)
        assert re.fullmatch(
            rf"flistfs: gave up after 1 s: cannot reach {proxy.url}: Connection refused: .*\n", refused.stderr
        )
        assert home.status()["state"] == "mounted"
        assert not list(home.path.glob("*out.flist*"))
        assert (mountpoint / "before").read_bytes() == contents["before"]
    proxy.come_back()
    seal_and_compare(home, server, contents)


def test_a_seal_that_only_has_to_check_the_store_gives_up_too(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy
) -> None:
    home.expected_log += ["sealing failed"]
    home.run("mount", mountpoint, "--store", proxy.url)
    contents = {"file": content(1, 600_000), "etc/passwd": b"user:x:1:1::/:/bin/sh\n"}
    (mountpoint / "etc").mkdir()
    for name, data in contents.items():
        (mountpoint / name).write_bytes(data)
    home.run("sync")
    proxy.go_down()
    refused = home.run("seal", "out.flist", "--timeout", "1", code=3)
    assert "Connection refused" in refused.stderr
    assert is_mounted(mountpoint)
    proxy.come_back()
    seal_and_compare(home, server, contents)


def test_a_hung_store_holds_up_neither_a_seal_with_a_timeout_nor_an_unmount(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy
) -> None:
    home.expected_log += ["uploads are waiting", "sealing failed"]
    home.run("mount", mountpoint, "--store", proxy.url)
    contents = {"file": content(1, 600_000)}
    proxy.stall()
    (mountpoint / "file").write_bytes(contents["file"])
    started = time.monotonic()
    refused = home.run("seal", "out.flist", "--timeout", "1", code=3)
    assert re.fullmatch(rf"flistfs: gave up after 1 s: {proxy.url} .*\n", refused.stderr)
    assert is_mounted(mountpoint)
    umount(mountpoint)
    wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
    # About 5 s on an idle machine; a call of the store itself would go on for a minute, three tries of 20 s.
    assert time.monotonic() - started < 45
    proxy.heal()
    seal_and_compare(home, server, contents)


def test_a_seal_that_has_to_wait_long_gets_its_answer(
    home: Home, mountpoint: Path, server: RedisServer, proxy: Proxy
) -> None:
    home.expected_log += ["uploads are waiting"]
    home.run("mount", mountpoint, "--store", proxy.url)
    contents = {"file": content(1, 600_000)}
    proxy.go_down()
    (mountpoint / "file").write_bytes(contents["file"])
    timer = threading.Timer(11, proxy.come_back)  # longer than a command may take to say what it wants
    timer.start()
    try:
        seal_and_compare(home, server, contents)
    finally:
        timer.join()


# A spool that is full


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
    assert re.search("the disk is nearly full: writ(ers wait|ing fails)", home.logs())
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
