"""Servers that lie, and commands while the store is down."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import cast

import pytest
import redis as redis_client

from tests.e2e.commands import Home, is_mounted, umount, wait_until
from tests.e2e.proxy import Proxy
from tests.e2e.test_outages import content, seal_and_compare, wait_unmounted
from tests.redis_server import RedisServer


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
