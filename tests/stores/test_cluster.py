"""What only a Redis Cluster does: blocks move between servers, and servers take each other's place."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from flistfs.errors import BlockMissingError, StoreRefusedError, StoreUnavailableError
from flistfs.stores.redis import server as redis_store
from tests.generation1 import open_store
from tests.redis_server import (
    RedisCluster,
    RedisServer,
    bulk_reply,
    free_port,
    running_cluster,
    running_cluster_server,
    running_redis,
)
from tests.stores.blocks import block, blocks, value_of
from tests.stores.fake_server import fake_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flistfs.format.base import Block

if shutil.which("redis-cli") is None:
    pytest.skip("redis-cli, which makes a cluster, is not there", allow_module_level=True)

SECRET = "hunter2hunter2"
SOME = blocks(60)
ALL_HASHES = [one.hash for one in SOME]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "_PAUSES", (0.01,))


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    with running_cluster() as running:
        yield running


def other_owner(cluster: RedisCluster, moved: Block) -> tuple[int, int, int]:
    """Return a block's slot, the number of the server that has it, and that of another."""
    slot, owner = cluster.owner(moved.hash)
    return slot, owner, (owner + 1) % 3


def set_slot(server: RedisServer, slot: int, *words: str) -> None:
    assert server.command("CLUSTER", "SETSLOT", str(slot), *words) == b"+OK\r\n"


def test_every_server_gets_its_part(cluster: RedisCluster) -> None:
    store = open_store(cluster.url)
    store.put(SOME)
    assert store.missing(ALL_HASHES) == set()
    sizes = [int(server.command("DBSIZE")[1:]) for server in cluster.servers]
    assert sum(sizes) >= len(SOME)
    assert all(sizes)
    store.close()


def test_any_server_names_the_cluster(cluster: RedisCluster) -> None:
    for server in cluster.servers:
        store = open_store(f"redis+cluster://127.0.0.1:{server.port}")
        store.check()
        store.close()


def test_a_block_whose_place_has_moved(cluster: RedisCluster) -> None:
    moved = block(seed=1000)
    slot, _, target = other_owner(cluster, moved)
    writing, asking, reading = (open_store(cluster.url) for _ in range(3))
    for store in (writing, asking, reading):
        store.check()  # from now on it knows who has what
    for server in cluster.servers:
        set_slot(server, slot, "NODE", cluster.name(target))
    assert asking.missing([moved.hash]) == {moved.hash}
    writing.put([moved])
    assert cluster.servers[target].command("EXISTS", moved.hash.decode()) == b":1\r\n"
    assert reading.get(moved.hash) == value_of(moved)
    assert asking.missing([moved.hash]) == set()
    with pytest.raises(BlockMissingError):
        reading.get(b"ff" * 32)
    for store in (writing, asking, reading):
        store.close()


def test_a_block_whose_place_is_just_being_moved(cluster: RedisCluster) -> None:
    # What is in the slot stays reachable, what is new goes to where the slot goes.
    moved = block(seed=2000)
    slot, owner, target = other_owner(cluster, moved)
    store = open_store(cluster.url)
    store.check()
    set_slot(cluster.servers[target], slot, "IMPORTING", cluster.name(owner))
    set_slot(cluster.servers[owner], slot, "MIGRATING", cluster.name(target))
    assert store.missing([moved.hash]) == {moved.hash}
    with pytest.raises(BlockMissingError, match=moved.hash.decode()):
        store.get(moved.hash)
    store.put([moved, *SOME])
    assert store.missing([moved.hash, *ALL_HASHES]) == set()
    assert store.get(moved.hash) == value_of(moved)
    for server in cluster.servers:
        set_slot(server, slot, "NODE", cluster.name(target))
    assert store.get(moved.hash) == value_of(moved)
    store.close()


def test_a_plain_url_of_a_cluster_says_what_to_write(cluster: RedisCluster) -> None:
    store = open_store(cluster.servers[0].url)
    with pytest.raises(StoreRefusedError, match=r"part of a Redis Cluster: use redis\+cluster://"):
        store.put(SOME)
    store.close()


def test_a_server_that_is_no_cluster() -> None:
    with running_redis() as server:
        store = open_store(server.url.replace("redis://", "redis+cluster://"))
        with pytest.raises(StoreRefusedError, match="is not a cluster: use redis://"):
            store.check()
        store.close()


def test_a_wrong_password() -> None:
    with running_cluster_server(SECRET) as server:
        bare = f"redis+cluster://127.0.0.1:{server.port}"
        for url, hint in ((bare, "needs"), (bare.replace("//", f"//:{SECRET}x@"), "password is wrong")):
            store = open_store(url)
            with pytest.raises(StoreRefusedError, match=hint) as caught:
                store.check()
            assert SECRET not in str(caught.value) + store.url
            store.close()


def test_a_cluster_that_is_not_whole() -> None:
    with running_cluster_server() as server:
        store = open_store(server.url.replace("redis://", "redis+cluster://"))
        with pytest.raises(
            StoreUnavailableError, match=r"cannot reach redis\+cluster://.*slots are not covered"
        ):
            store.put(SOME)
        store.close()


def test_nobody_listens() -> None:
    store = open_store(f"redis+cluster://:{SECRET}@127.0.0.1:{free_port()}", timeout=2)
    with pytest.raises(StoreUnavailableError, match=r"cannot reach redis\+cluster://.*refused") as caught:
        store.check()
    assert SECRET not in str(caught.value)
    store.close()


def test_a_hung_server_is_given_up() -> None:
    with running_cluster_server() as server:
        server.hang()
        store = open_store(server.url.replace("redis://", "redis+cluster://"), timeout=0.3)
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            store.missing(ALL_HASHES)
        server.resume()
        store.close()


def test_after_close_every_call_ends_with_an_error(cluster: RedisCluster) -> None:
    store = open_store(cluster.url)
    store.put(SOME)
    store.close()
    for attempt in (store.check, lambda: store.put(SOME), lambda: store.get(ALL_HASHES[0])):
        with pytest.raises(StoreUnavailableError, match="no longer in use"):
            attempt()


def test_closing_does_not_wait_for_a_server_that_hangs() -> None:
    with fake_server(lambda _words: None) as server:
        store = open_store(f"redis+cluster://127.0.0.1:{server.port}", timeout=60)
        checking = threading.Thread(target=store.check, daemon=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(threading, "excepthook", lambda _args: None)
            checking.start()
            deadline = time.monotonic() + 60
            while not server.commands:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            started = time.monotonic()
            store.close()
            assert time.monotonic() - started < 20
            server.sockets[0].shutdown(2)
            checking.join(60)
        assert not checking.is_alive()


def test_a_server_that_is_gone_and_one_that_takes_its_place() -> None:
    with running_cluster() as cluster, running_cluster_server() as replica:
        first, *others = cluster.servers
        store = open_store(cluster.url)
        store.put(SOME)
        follow(replica, first)
        first.kill()
        with pytest.raises(StoreUnavailableError):
            store.missing(ALL_HASHES)
        wait_for(replica, b"role:master", "INFO", "replication")
        for server in (replica, *others):
            wait_for(server, b"cluster_state:ok", "CLUSTER", "INFO")
        assert store.missing(ALL_HASHES) == set()
        more = blocks(60, size=50)
        store.put(more)
        assert [store.get(one.hash) for one in more] == [value_of(one) for one in more]
        store.close()


def follow(replica: RedisServer, server: RedisServer) -> None:
    """Let a server follow one of the cluster, and wait until it has all."""
    own = server.command("CLUSTER", "MYID")
    addresses = [f"127.0.0.1:{replica.port}", f"127.0.0.1:{server.port}"]
    options = ["--cluster-slave", "--cluster-master-id", bulk_reply(own).decode(), "--cluster-yes"]
    done = subprocess.run(
        ["redis-cli", "--cluster", "add-node", *addresses, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wait_for(replica, b"master_link_status:up", "INFO", "replication")


def wait_for(server: RedisServer, text: bytes, *words: str) -> None:
    deadline = time.monotonic() + 60
    while text not in server.command(*words):
        assert time.monotonic() < deadline, f"{text!r} never comes"
        time.sleep(0.05)
