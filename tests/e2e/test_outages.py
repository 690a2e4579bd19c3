"""Stores that are slow, hung, full, restarted, lying or gone, and a disk that is full: nothing gets lost."""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self, cast

import pytest
import redis as redis_client

from tests.e2e.commands import TIMEOUT, Home, is_mounted, umount, wait_until
from tests.e2e.proxy import LOADING, NOAUTH, OOM, READONLY, Proxy
from tests.independent_reader import read_content, read_flist
from tests.redis_server import RedisServer

AS_ROOT = os.geteuid() == 0

Contents = Mapping[str, bytes]


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
