"""Several servers: who gets what, and what one that is down means for writing and for reading.

It is one file because all of it is about one store, and shares what stands in for its servers and disks.
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flistfs.errors import (
    BlockMissingError,
    FormatError,
    StoreRefusedError,
    StoreUnavailableError,
    UsageError,
)
from flistfs.format.router import MAX_SIZE, Pool, Range, Router, Rule, parse_router, router_to
from flistfs.stores import Store, default_store_url
from flistfs.stores.combined import servers as servers_module
from flistfs.stores.combined.routed import RoutedStore
from flistfs.stores.redis import server as redis_store
from tests.generation1 import CODEC, open_flist_store, open_store
from tests.redis_server import RedisServer, free_port, running_redis
from tests.stores.blocks import blocks, value_of
from tests.stores.routers import router_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flistfs.format.base import Block

SECRET = "hunter2hunter2"
SOME = blocks(40)
ALL_HASHES = [one.hash for one in SOME]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_store, "_PAUSES", (0.01,))


@pytest.fixture
def servers() -> Iterator[list[RedisServer]]:
    """Two servers, which keep what they have when they are stopped."""
    with ExitStack() as stack:
        yield [stack.enter_context(running_redis("--appendonly", "yes")) for _ in range(2)]


def held(server: RedisServer) -> set[bytes]:
    """The blocks that a server has."""
    return {one.hash for one in SOME if server.command("EXISTS", one.hash.decode()) == b":1\r\n"}


def opened(file: Path, query: str = "", *, reading: bool = False, password: str | None = None) -> Store:
    return open_store(f"router://{file}{query}", password, timeout=2, reading=reading)


def replicas(directory: Path, servers: list[RedisServer]) -> Path:
    return router_file(directory, *({"00:FF": server.url} for server in servers))


def put_on(server: RedisServer, some: list[Block]) -> None:
    store = open_store(server.url)
    store.put(some)
    store.close()


# Who gets what.


def test_each_server_gets_the_hashes_of_its_ranges(tmp_path: Path, servers: list[RedisServer]) -> None:
    one, two = servers
    store = opened(router_file(tmp_path, {"00:7F": one.url}, {"00:3f": two.url, "8:F": two.url}))
    store.put(SOME)
    assert held(one) == {name for name in ALL_HASHES if name[:1] < b"8"}
    assert held(two) == {name for name in ALL_HASHES if name[:1] < b"4" or name[:1] >= b"8"}
    assert held(one) & held(two)
    assert [store.get(one.hash) for one in SOME] == [value_of(one) for one in SOME]


def test_reading_goes_in_the_order_of_lookup(tmp_path: Path, servers: list[RedisServer]) -> None:
    # Nobody reads headers, so they may differ.
    headers = [b"the first server", b"the second server"[:16]]
    for server, header in zip(servers, headers, strict=True):
        put_on(server, [replace(SOME[0], parts=(header, SOME[0].parts[1]))])
    file = replicas(tmp_path, servers)
    assert opened(file).get(ALL_HASHES[0])[:16] == headers[0]
    file.write_text(re.sub(r"lookup.*", 'lookup": ["1", "0"]}', file.read_text()))
    assert opened(file).get(ALL_HASHES[0])[:16] == headers[1]


def test_a_wrong_copy_is_passed_over_found_and_replaced(tmp_path: Path, servers: list[RedisServer]) -> None:
    store = opened(replicas(tmp_path, servers))
    store.put(SOME)
    first, both = SOME[0], SOME[1]
    servers[0].command("SET", first.hash.decode(), "x" * 100)
    for server in servers:
        server.command("SET", both.hash.decode(), "x" * 100)
    assert store.get(first.hash) == value_of(first)
    assert store.get(both.hash) == b"x" * 100  # whoever opens it says what is wrong
    assert store.copies(first.hash) == [b"x" * 100, value_of(first)]
    assert store.copies(b"ff" * 32) == []
    assert store.missing(ALL_HASHES) == set()
    assert store.wrong(ALL_HASHES, thorough=False) == set()
    assert store.wrong([*ALL_HASHES, b"ff" * 32], thorough=True) == {first.hash, both.hash}
    store.put([first, both])
    assert store.wrong(ALL_HASHES, thorough=True) == set()
    assert store.copies(first.hash) == [value_of(first)] * 2
    servers[1].stop()
    with pytest.raises(StoreUnavailableError):
        store.wrong(ALL_HASHES, thorough=True)
    assert opened(replicas(tmp_path, servers), reading=True).copies(first.hash) == [value_of(first)]


def test_a_server_that_hangs_leaves_time_for_the_next(tmp_path: Path, servers: list[RedisServer]) -> None:
    put_on(servers[1], SOME)
    store = opened(replicas(tmp_path, servers))
    servers[0].hang()
    # By this deadline the one that hangs would have all the time, and its silence alone takes longer.
    assert store.get(ALL_HASHES[0], time.monotonic() + 3.8) == value_of(SOME[0])
    servers[0].resume()


def test_a_server_that_is_named_twice_counts_once(tmp_path: Path, servers: list[RedisServer]) -> None:
    one, _ = servers
    file = router_file(tmp_path, {"00:FF": one.url, "0:F": one.url.replace("redis", "REDIS") + "/"})
    with pytest.raises(UsageError, match=r"only 1 of 2 servers for hashes that begin with 00"):
        opened(file, "?min-replicas=2")
    store = opened(file, "?min-replicas=1")
    store.put(SOME)
    assert store.missing(ALL_HASHES) == set()


def test_a_block_that_a_replica_lacks_is_missing_and_put_brings_it(
    tmp_path: Path, servers: list[RedisServer]
) -> None:
    put_on(servers[0], SOME)
    put_on(servers[1], SOME[1:])
    file = replicas(tmp_path, servers)
    assert opened(file).missing(ALL_HASHES) == {ALL_HASHES[0]}
    assert opened(file, "?min-replicas=1").missing(ALL_HASHES) == set()
    assert opened(file, reading=True).missing(ALL_HASHES) == set()
    opened(file).put(SOME[:1])
    assert held(servers[1]) == set(ALL_HASHES)
    assert opened(file, "?min-replicas=2").missing(ALL_HASHES) == set()


def test_a_block_is_read_from_the_replica_that_has_it(tmp_path: Path, servers: list[RedisServer]) -> None:
    put_on(servers[1], SOME)
    store = opened(replicas(tmp_path, servers))
    assert store.get(ALL_HASHES[0]) == value_of(SOME[0])
    with pytest.raises(BlockMissingError, match="ff" * 32):
        store.get(b"ff" * 32)


prefixes = st.integers(1, 3).flatmap(
    lambda digits: st.lists(
        st.text("0123456789abcdefABCDEF", min_size=digits, max_size=digits), min_size=2, max_size=2
    )
)
ranges = prefixes.map(lambda pair: sorted(prefix.upper() for prefix in pair)).map(lambda pair: Range(*pair))
pools = st.lists(
    st.builds(Rule, ranges, st.sampled_from([f"ardb://server{n}:16379" for n in range(4)])), max_size=6
)


@given(st.lists(pools, min_size=1, max_size=3), st.lists(st.integers(0, 16**64 - 1), max_size=20))
def test_the_servers_of_a_hash_are_those_of_the_router(rules: list[list[Rule]], numbers: list[int]) -> None:
    named = tuple(Pool(str(number), tuple(some)) for number, some in enumerate(rules))
    router = Router(named, tuple(pool.name for pool in reversed(named)))
    store = RoutedStore(router, "router", CODEC, timeout=1, reading=True)
    edges = [int(rule.range.first.ljust(64, "0"), 16) for some in rules for rule in some]
    for number in (*numbers, *edges, *(edge - 1 for edge in edges if edge)):
        name = b"%064x" % number
        assert [one.store.url for one in store._route(name)] == list(dict.fromkeys(router.urls(name)))
    store.close()


def test_no_hash_at_all(tmp_path: Path) -> None:
    store = opened(router_file(tmp_path, {"00:FF": "ardb://host"}))
    for attempt in (lambda: store.get(b"xy"), lambda: store.missing([b""]), lambda: store.missing([b"-1"])):
        with pytest.raises(StoreRefusedError, match="in hex"):
            attempt()


# Faults.


def stop(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    server.stop()
    caplog.clear()


def test_with_a_replica_down_writing_waits_and_reading_goes_on(
    tmp_path: Path, servers: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(replicas(tmp_path, servers))
    store.put(SOME[:20])
    stop(servers[0], caplog)
    for attempt in (
        store.check,
        lambda: store.missing(ALL_HASHES[20:]),
        lambda: store.missing(ALL_HASHES[:20]),
        lambda: store.put(SOME[20:]),
    ):
        with pytest.raises(StoreUnavailableError, match=f"cannot reach redis://127.0.0.1:{servers[0].port}"):
            attempt()
    assert [store.get(one.hash) for one in SOME[:20]] == [value_of(one) for one in SOME[:20]]
    with pytest.raises(StoreUnavailableError):
        store.get(b"ff" * 32)  # who knows
    assert len(caplog.records) == 1  # not one for each time it is asked
    assert f"cannot reach redis://127.0.0.1:{servers[0].port}" in str(store.trouble)
    servers[0].start()
    store.check()
    assert store.trouble is None
    assert store.missing(ALL_HASHES) == set(ALL_HASHES[20:])
    store.put(SOME[20:])
    assert held(servers[0]) == held(servers[1]) == set(ALL_HASHES)


def test_with_a_replica_down_writing_goes_on_if_one_is_enough(
    tmp_path: Path, servers: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    store = opened(replicas(tmp_path, servers), "?min-replicas=1")
    stop(servers[1], caplog)
    store.check()
    assert store.missing(ALL_HASHES) == set(ALL_HASHES)
    store.put(SOME)
    assert store.missing(ALL_HASHES) == set()
    assert held(servers[0]) == set(ALL_HASHES)
    stop(servers[0], caplog)
    with pytest.raises(StoreUnavailableError):
        store.put(SOME)
    with pytest.raises(StoreUnavailableError):
        store.missing(ALL_HASHES)


def test_a_server_that_failed_is_left_alone_and_then_asked_again(
    tmp_path: Path,
    servers: list[RedisServer],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(servers_module, "_MIN_BACKOFF", 600.0)
    monkeypatch.setattr(servers_module, "_MAX_BACKOFF", 600.0)
    store = opened(replicas(tmp_path, servers), "?min-replicas=1")
    assert isinstance(store, RoutedStore)
    servers[0].hang()
    started = time.monotonic()
    store.put(SOME[:10])  # finds out that it hangs
    found_out = time.monotonic() - started
    assert found_out > 3  # it was tried twice
    store.put(SOME[10:20])
    assert store.missing(ALL_HASHES[:20]) == set()
    assert all(store.get(one.hash) == value_of(one) for one in SOME[:20])
    assert time.monotonic() - started - found_out < 20  # of some 80 otherwise
    servers[0].resume()
    store.put(SOME[20:30])
    assert not held(servers[0]) & set(ALL_HASHES[10:30])
    for server in store._servers.values():
        server._backoff_until = 0
    store.put(SOME[30:])
    assert held(servers[0]) >= set(ALL_HASHES[30:])
    assert re.search(r"a server of the router fails.*\n.*works again", caplog.text)


def test_reading_tells_missing_from_unknown(
    tmp_path: Path, servers: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    put_on(servers[0], SOME[:10])
    store = opened(replicas(tmp_path, servers), reading=True)
    assert store.missing(ALL_HASHES) == set(ALL_HASHES[10:])
    stop(servers[1], caplog)
    store.check()
    assert store.missing(ALL_HASHES[:10]) == set()
    for _ in range(2):  # the second time it is known to fail
        with pytest.raises(StoreUnavailableError):
            store.missing(ALL_HASHES)
    with pytest.raises(StoreRefusedError, match="opened for reading"):
        store.put(SOME)


def test_a_refusal_is_shown_before_an_outage(
    tmp_path: Path, servers: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    with running_redis(password=SECRET) as guarded:
        wrong = guarded.url.replace(SECRET, "not%20this")
        file = router_file(tmp_path, {"00:FF": servers[0].url}, {"00:FF": wrong})
        stop(servers[0], caplog)
        with pytest.raises(StoreRefusedError, match="password is wrong") as caught:
            opened(file).put(SOME)
    assert "not this" not in str(caught.value)


def test_after_close_every_call_ends_with_an_error(tmp_path: Path, servers: list[RedisServer]) -> None:
    store = opened(replicas(tmp_path, servers))
    store.check()
    store.close()
    for attempt in (store.check, lambda: store.put(SOME), lambda: store.get(ALL_HASHES[0])):
        with pytest.raises(StoreUnavailableError, match="no longer in use"):
            attempt()


# Passwords and what is refused.


def test_a_password_for_all_goes_to_servers_without_one(tmp_path: Path) -> None:
    with running_redis(password=SECRET) as one, running_redis(password="another") as two:
        bare = one.url.replace(f":{SECRET}@", "")
        file = router_file(tmp_path, {"00:FF": bare}, {"00:FF": two.url})
        store = opened(file, password=SECRET)
        store.put(SOME)
        assert store.missing(ALL_HASHES) == set()
        with pytest.raises(StoreRefusedError, match="needs a password; give `password`"):
            opened(file).check()
    shown = f"{store.url} {store!r} {store.readers_router}"
    assert "another" not in shown
    assert store.readers_router is not None
    assert not any("another" in rule.url for pool in store.readers_router.pools for rule in pool.rules)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "is empty"),
        ("pools: {p: {00: ardb://h}}", "has no lookup"),
        ("pools: {p: {00: 'dir:///blocks'}}\nlookup: [p]", "scheme is not one of"),
        ("pools: {p: {'00:7F': ardb://h}}\nlookup: [p]", "no server for hashes that begin with 80"),
        ("pools: {p: {'0:7': ardb://h, '808:fff': ardb://h}}\nlookup: [p]", "no server .* begin with 80$"),
        ("pools: {p: {'1:f': ardb://h}}\nlookup: [p]", "no server for hashes that begin with 00"),
        ("pools: {p: {}, q: {'0:f': ardb://h}}\nlookup: [p]", "no server for hashes that begin with 00"),
        (f"pools: {{p: {{'0:f': 'ardb://{SECRET}@h..h'}}}}\nlookup: [p]", "malformed host name"),
        (f"pools: {{p: {{'0:f': 'ardb://user:{SECRET}@h'}}}}\nlookup: [p]", "not a user name"),
        ("# " + "x" * MAX_SIZE, "more than"),
    ],
)
def test_a_router_that_makes_no_sense_is_refused(tmp_path: Path, text: str, hint: str) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(UsageError, match=hint) as caught:
        opened(tmp_path / "r.yaml")
    assert str(tmp_path / "r.yaml") in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_router_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"r\.yaml cannot be read: No such file"):
        opened(tmp_path / "r.yaml")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        opened(tmp_path)


def test_ranges_without_bounds_are_refused_in_bounded_time() -> None:
    # Each range lies around all later ones.
    rules = tuple(Rule(Range(f"{n:04X}", f"{0xFFFF - n:04X}"), f"ardb://host{n}") for n in range(12_000))
    started = time.monotonic()
    with pytest.raises(FormatError, match="too many ranges that overlap"):
        RoutedStore.of_package(Router((Pool("p", rules),), ("p",)), CODEC, timeout=1)
    assert time.monotonic() - started < 60


def test_a_gap_is_no_fault_for_reading(tmp_path: Path, servers: list[RedisServer]) -> None:
    file = router_file(tmp_path, {"00:7F": servers[0].url})
    store = opened(file, reading=True)
    store.check()
    assert store.missing([b"ff" * 32]) == {b"ff" * 32}
    with pytest.raises(BlockMissingError):
        store.get(b"ff" * 32)


# The store of a flist.


def test_the_store_of_a_flist() -> None:
    with running_redis(password=SECRET) as named, running_redis() as in_package:
        put_on(named, SOME[:1])
        put_on(in_package, SOME[1:2])
        router = router_to(in_package.url)
        bare = named.url.replace(f":{SECRET}@", "")
        assert open_flist_store(router, bare, SECRET).get(SOME[0].hash) == value_of(SOME[0])
        # The password is the named store's: no server of a package gets it.
        assert open_flist_store(router, None, SECRET).get(SOME[1].hash) == value_of(SOME[1])
        in_package.command("CONFIG", "SET", "requirepass", SECRET)
        with pytest.raises(
            StoreRefusedError, match="needs a password, but servers that only the flist names get none"
        ):
            open_flist_store(router, None, SECRET).get(SOME[1].hash)
        in_package.password = SECRET
    assert open_flist_store(None).url == default_store_url()


def test_a_packages_router_that_makes_no_sense() -> None:
    router = parse_router(b"pools: {p: {00: 'ardb://a..b'}}\nlookup: [p]")
    with pytest.raises(FormatError, match="malformed host name"):
        open_flist_store(router)


def test_a_packages_replica_that_is_down_does_not_matter(
    servers: list[RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    put_on(servers[0], SOME)
    rules = (
        Rule(Range("00", "FF"), f"redis://127.0.0.1:{free_port()}"),
        Rule(Range("0", "F"), servers[0].url),
    )
    store = open_flist_store(Router((Pool("p", rules),), ("p",)))
    store.check()
    assert store.missing(ALL_HASHES) == set()
    assert store.get(ALL_HASHES[0]) == value_of(SOME[0])
