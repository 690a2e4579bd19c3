"""What a routed store says and does, for every state that its servers can be in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flistfs.errors import BlockMissingError, StoreUnavailableError
from flistfs.format.router import Pool, Range, Router, Rule
from flistfs.stores.combined import routed, servers
from flistfs.stores.combined.routed import RoutedStore
from tests.generation1 import CODEC
from tests.stores.blocks import blocks, value_of

if TYPE_CHECKING:
    from flistfs.format.base import Block
    from flistfs.stores.url import StoreUrl

BLOCKS = blocks(4)
HASHES = [one.hash for one in BLOCKS]


class Server:
    """A server in memory: real ones do not go down and come back within a microsecond."""

    def __init__(self, url: StoreUrl, **_options: object) -> None:  # as a real one takes
        self.url = str(url)
        self.held: dict[bytes, bytes] = {}
        self.is_down = False

    def check(self) -> None:
        if self.is_down:
            raise StoreUnavailableError(f"{self.url} is down")

    def missing(self, hashes: Sequence[bytes], _sizes: object = None) -> set[bytes]:
        self.check()
        return set(hashes) - self.held.keys()

    def put(self, some: Sequence[Block]) -> None:
        self.check()
        self.held.update((one.hash, value_of(one)) for one in some)

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002, ARG002  the protocol's
        self.check()
        if hash not in self.held:
            raise BlockMissingError(self.url)
        return self.held[hash]


@dataclass(frozen=True, slots=True)
class State:
    """How a server is: `is_backing_off` if it failed a while ago, whatever it would say now."""

    is_down: bool
    is_backing_off: bool
    held: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class World:
    """Three servers, the first of which has only hashes up to a digit."""

    states: tuple[State, State, State]
    last: str
    replicas: int | None
    reading: bool

    def store(self) -> RoutedStore:
        ranges = [Range("0", self.last), Range("0", "F"), Range("0", "F")]
        rules = tuple(Rule(one, f"ardb://host{number}") for number, one in enumerate(ranges))
        store = RoutedStore(
            Router((Pool("p", rules),), ("p",)),
            "router",
            CODEC,
            timeout=1,
            min_replicas=self.replicas,
            reading=self.reading,
        )
        for state, server in zip(self.states, store._servers.values(), strict=True):
            inner = inside(server)
            inner.is_down = state.is_down
            inner.held = {one.hash: value_of(one) for one in BLOCKS if one.hash in state.held}
            server.trouble = "it failed" if state.is_backing_off else None
            server._backoff_until = float("inf") if state.is_backing_off else 0.0
        return store

    def route(self, name: bytes) -> list[State]:
        return list(self.states[0 if name[:1].decode().upper() <= self.last else 1 :])

    def needed(self, name: bytes) -> int:
        return 1 if self.reading else self.replicas or len(self.route(name))

    def asked(self, name: bytes, *, holding: bool) -> list[State]:
        """The servers that are asked: those that rest only where the others do not settle it."""
        route = self.route(name)
        awake = [state for state in route if not state.is_backing_off]
        good = [state for state in awake if not state.is_down and (not holding or name in state.held)]
        return awake if len(good) >= self.needed(name) else route


def inside(server: servers.Server) -> Server:
    assert isinstance(server.store, Server)
    return server.store


@pytest.fixture(autouse=True, scope="module")
def servers_in_memory() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routed, "RedisStore", Server)
        yield


states = st.builds(State, st.booleans(), st.booleans(), st.frozensets(st.sampled_from(HASHES)))
worlds = st.builds(
    World,
    st.tuples(states, states, states),
    st.sampled_from("37BF"),
    st.none() | st.integers(1, 2),
    st.booleans(),
)
some_blocks = st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4)
thorough = settings(max_examples=300)


@given(worlds, some_blocks)
@thorough
def test_missing(world: World, some: list[Block]) -> None:
    names = {one.hash for one in some}
    unknown, absent = set(), set()
    for name in names:
        asked = world.asked(name, holding=world.reading)
        answered = [state for state in asked if not state.is_down]
        if sum(name in state.held for state in answered) >= world.needed(name):
            continue
        if len(answered) < (len(world.route(name)) if world.reading else world.needed(name)):
            unknown.add(name)
        else:
            absent.add(name)
    if unknown:
        with pytest.raises(StoreUnavailableError):
            world.store().missing([one.hash for one in some])
    else:
        assert world.store().missing([one.hash for one in some]) == absent


@given(worlds.filter(lambda world: not world.reading), some_blocks)
@thorough
def test_put(world: World, some: list[Block]) -> None:
    store = world.store()
    takers = {
        one.hash: [state for state in world.asked(one.hash, holding=False) if not state.is_down]
        for one in some
    }
    if all(len(taken) >= world.needed(name) for name, taken in takers.items()):
        store.put(some)
    else:
        with pytest.raises(StoreUnavailableError):
            store.put(some)
    # Whatever it says, all that could be asked have what is theirs.
    for state, server in zip(world.states, store._servers.values(), strict=True):
        added = {name for name, taken in takers.items() if any(one is state for one in taken)}
        assert inside(server).held.keys() == state.held | added


@given(worlds, st.sampled_from(BLOCKS))
@thorough
def test_get(world: World, one: Block) -> None:
    route = world.route(one.hash)
    if any(one.hash in state.held and not state.is_down for state in route):
        assert world.store().get(one.hash) == value_of(one)
    else:
        expected = StoreUnavailableError if any(state.is_down for state in route) else BlockMissingError
        with pytest.raises(expected):
            world.store().get(one.hash)


@given(worlds)
@thorough
def test_check(world: World) -> None:
    # A hash of each of the segments that the first server's range makes.
    names = [b"0" * 64, b"F" * 64]
    if all(sum(not state.is_down for state in world.route(name)) >= world.needed(name) for name in names):
        world.store().check()
    else:
        with pytest.raises(StoreUnavailableError):
            world.store().check()


def test_blocks_differ_in_their_servers() -> None:
    assert {one.hash[:1] <= b"7" for one in BLOCKS} == {True, False}
