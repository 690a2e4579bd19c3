"""Stores of several servers: routers, replicas and clusters."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from flistfs.format.router import parse_router
from tests.e2e.commands import Home, umount, wait_until
from tests.e2e.test_roundtrip import blocks_in_redis
from tests.e2e.test_stores import SECRET, held, router_in, write_files
from tests.independent_reader import read_content, read_flist
from tests.redis_server import RedisServer, running_cluster, running_redis
from tests.stores.routers import router_file


def test_blocks_go_where_the_router_says(home: Home, mountpoint: Path) -> None:
    with running_redis() as one, running_redis(password=SECRET) as two:
        router_file(home.path, {"00:7F": one.url, "80:FF": two.url})
        told = home.run("mount", mountpoint, "--store", "router.yaml")
        assert f"blocks go to {home.path}/router.yaml" in told.stdout
        contents = write_files(mountpoint)
        umount(mountpoint)
        wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
        home.run("mount", mountpoint)  # from what the session kept
        assert (mountpoint / "000").read_bytes() == contents[b"000"]
        umount(mountpoint)
        wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
        home.run("seal", "out.flist")  # without a daemon
        assert held(one) > 0
        assert held(two) > 0
        assert held(one) + held(two) == len(contents)
        for path in home.path.rglob("*"):
            if path.is_file() and path.name != "router.yaml":
                assert SECRET.encode() not in path.read_bytes(), path
        in_package = router_in(home.path / "out.flist")
        assert in_package is not None
        shards = [f"redis://127.0.0.1:{server.port}" for server in (one, two)]
        assert list(parse_router(in_package).all_urls()) == shards
        first, second = blocks_in_redis(one), blocks_in_redis(two)
        for name, node in read_flist(home.path / "out.flist").items():
            if name:
                found = read_content(node, lambda key: first(key) if key < b"8" else second(key), fast=True)
                assert found == contents[name]


def test_the_password_for_all_servers(home: Home, mountpoint: Path) -> None:
    with running_redis(password=SECRET) as one, running_redis(password=SECRET) as two:
        urls = [f"redis://127.0.0.1:{server.port}" for server in (one, two)]
        router_file(home.path, *({"00:FF": url} for url in urls))
        secret = {"FLISTFS_STORE_PASSWORD": SECRET}
        home.run("mount", mountpoint, env={**secret, "FLISTFS_STORE": "router.yaml"})
        write_files(mountpoint, 5)
        home.run("seal", "out.flist")
        assert held(one) == held(two) == 5
        home.expected_log += ["needs a password"]
        # The password of a store that is not used is not for this one.
        other = {"FLISTFS_STORE": f"redis://:{SECRET}@127.0.0.1:1"}
        home.run("mount", mountpoint, "--store", "router.yaml", env=other, code=3)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--store", "nothing.yaml"], "neither the path of a router.yaml nor a URL"),
        (["--store", "gap.yaml"], "gap.yaml cannot be used: it has no server for hashes that begin with 80"),
        (
            ["--store", "whole.yaml", "--min-replicas", "2"],
            "only 1 of 2 servers for hashes that begin with 00",
        ),
        (
            ["--store", "ardb://host", "--min-replicas", "1"],
            "--min-replicas needs a store of several servers",
        ),
        (["--min-replicas", "1"], "--min-replicas needs a store of several servers"),
    ],
)
def test_a_store_that_makes_no_sense_is_refused(
    home: Home, mountpoint: Path, arguments: list[str], hint: str
) -> None:
    home.expected_log += ["cannot be used"]
    (home.path / "gap.yaml").write_text("pools: {x: {00:7f: ardb://one}}\nlookup: [x]\n")
    (home.path / "whole.yaml").write_text("pools: {x: {00:ff: ardb://one}}\nlookup: [x]\n")
    refused = home.run("mount", mountpoint, *arguments, code=2)
    assert hint in refused.stderr
    assert home.listed("status") == []


def test_with_a_replica_down_writing_waits_or_goes_on_as_told_and_reading_goes_on(
    home: Home, mountpoint: Path, servers: list[RedisServer]
) -> None:
    home.expected_log += ["Connection refused"]
    one, two = servers
    router_file(home.path, *({"00:FF": server.url} for server in servers))
    home.run("mount", mountpoint, "--store", "router.yaml")
    contents = write_files(mountpoint, 5)
    home.run("sync")
    assert held(one) == held(two) == 5
    umount(mountpoint)
    wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
    # A new daemon has no copies of what was stored before.
    one.stop()
    home.run("mount", mountpoint, code=3)
    home.run("mount", mountpoint, "--offline")
    assert {name: (mountpoint / os.fsdecode(name)).read_bytes() for name in contents} == contents
    contents[b"more"] = os.urandom(5000)
    (mountpoint / "more").write_bytes(contents[b"more"])
    refused = home.run("sync", "--timeout", "1", code=3)
    assert f"cannot reach redis://127.0.0.1:{one.port}" in refused.stderr
    umount(mountpoint)
    wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
    home.run("mount", mountpoint, "--min-replicas", "1")
    home.run("sync")
    assert home.status()["store"] == f"router://{home.path}/router.yaml?min-replicas=1"
    assert f"others stand in for it: cannot reach redis://127.0.0.1:{one.port}" in home.run("status").stdout
    assert f"note: cannot reach redis://127.0.0.1:{one.port}" in home.run("seal", "out.flist").stdout
    assert held(two) == 6
    get = blocks_in_redis(two)
    nodes = read_flist(home.path / "out.flist")
    assert {name: read_content(nodes[name], get, fast=True) for name in contents} == contents
    verified = home.run("verify", "out.flist", "--store", "router.yaml")
    assert verified.stdout.startswith("no faults")
    assert verified.stderr.startswith("note: others stood in for a server: cannot reach")
    assert len(verified.stderr.splitlines()) == 1
    # Later, the replicas are made equal.
    one.start()
    assert held(one) == 5
    assert home.json("push", "out.flist", "--to", "router.yaml")["new_blocks"] == 1
    assert held(one) == 6


def test_a_replica_that_fails_while_blocks_are_written_is_told_of(
    home: Home, mountpoint: Path, servers: list[RedisServer]
) -> None:
    home.expected_log += ["Connection refused"]
    router_file(home.path, *({"00:FF": server.url} for server in servers))
    home.run("mount", mountpoint, "--store", "router.yaml", "--min-replicas", "1")
    servers[1].stop()
    write_files(mountpoint, 1)
    home.run("sync")
    trouble = f"cannot reach redis://127.0.0.1:{servers[1].port}"
    assert f"others stand in for it: {trouble}" in home.run("status").stdout
    assert trouble in home.logs()
    servers[1].start()
    home.run("seal", "out.flist")


def test_what_one_replica_lost_is_copied_from_the_other(
    home: Home, mountpoint: Path, servers: list[RedisServer]
) -> None:
    home.expected_log += ["the store lost 5 blocks"]
    one, two = servers
    router_file(home.path, *({"00:FF": server.url} for server in servers))
    home.run("mount", mountpoint, "--store", "router.yaml")
    write_files(mountpoint, 5)
    home.run("sync")
    umount(mountpoint)
    wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
    one.command("FLUSHALL")
    home.run("seal", "out.flist")
    assert held(one) == held(two) == 5


def test_a_cluster(home: Home, mountpoint: Path) -> None:
    if shutil.which("redis-cli") is None:
        pytest.skip("redis-cli, which makes a cluster, is not there")
    with running_cluster() as cluster:
        home.run("mount", mountpoint, "--store", cluster.url)
        write_files(mountpoint)
        home.run("seal", "out.flist")
        assert router_in(home.path / "out.flist") is None
        sizes = [held(server) for server in cluster.servers]
        assert sum(sizes) == 40
        assert all(sizes)
        pushed = home.json("push", "out.flist", "--from", cluster.url, "--to", f"dir://{home.path}/copy")
        assert (pushed["new_blocks"], pushed["shared_blocks"]) == (40, 0)
