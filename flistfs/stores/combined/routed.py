"""Blocks on several servers, by a router: shards, replicas, or both.

The servers of a block are those whose ranges contain its hash, in the router's order of lookup; one that is
named several times counts once. `min-replicas` is how many of them must hold a block: by default all; where
a range has fewer, all of those.

For writing:

- `check`: that many servers of every range answer.
- `put` sends a block to all of its servers; that many must accept it.
- `missing`: a block is present if that many hold it, and missing if fewer do and that many answered.
- A router with a hash that has no server, or fewer than `min-replicas`, is rejected.

For reading:

- `check`: one server of every range answers.
- `missing`: a block is present if one server holds it, and missing if all answered and none does.
- Blocks that have no server are missing.

For both, `get` asks the servers of a block one after the other until one has it, with the bytes that its name
says. It is missing if all answered, and wrong if no server has a right one.

Where too few servers answer, the error is that of one which does not: the same call may succeed later.
So with one of two replicas down, writing waits; with `min-replicas=1` it continues, and what was written
meanwhile has one replica until somebody copies it (`flistfs push` does).

A server that failed is not tried for a while where the others suffice: finding out that it is still down
costs a second, and a minute if it hangs.
"""

from __future__ import annotations

import re
from bisect import insort
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from flistfs.errors import FormatError, StoreError, StoreRefusedError, UsageError
from flistfs.format.router import Router, without_passwords
from flistfs.stores.base import check_size, reading_deadline
from flistfs.stores.combined.fanout import all_copies, ask_all, first_that_has, most_telling
from flistfs.stores.combined.servers import DIGITS, Route, Server, Table
from flistfs.stores.readers import read_router, usable_router
from flistfs.stores.redis.server import RedisStore
from flistfs.stores.url import PASSWORD_VARIABLE, StoreUrl, parse_store_url, why_unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flistfs.format.base import Block, Codec
    from flistfs.stores.base import Store


_MAX_TROUBLES: Final = 3  # servers named in a message

_DIGITS: Final = re.compile(r"[0-9a-fA-F]{1,64}")

_MAX_PLACES: Final = 1_000_000
"""Servers in all segments together. A router of the maximum size has some 50,000 segments; if each of its
ranges contained all the others, this would take minutes and gigabytes."""


@dataclass(slots=True)
class _Tally:
    """The servers' answers about one block."""

    route: Route
    answered: int = 0
    held: int = 0
    failed: list[StoreError] = field(default_factory=list)


class RoutedStore:
    """A `Store` on the servers of a router. Makes no connection before the first call."""

    def __init__(
        self,
        router: Router,
        url: str,
        codec: Codec,
        *,
        password: str | None = None,
        timeout: float,
        min_replicas: int | None = None,
        reading: bool = False,
        password_variable: str | None = PASSWORD_VARIABLE,
    ) -> None:
        """Set up the servers of a router.

        Args:
            router: The servers and their ranges.
            url: The store's name in messages.
            password: For the servers whose URLs have none.
            timeout: Seconds without progress until a server counts as hung.
            min_replicas: How many servers must hold a block; None: all that its hash belongs to.
            reading: Whether it is only read from: see above.
            password_variable: The environment variable that the password may come from, for messages.

        Raises:
            UsageError: a URL is invalid; or, unless for reading, a hash has too few servers.
        """
        self._router = router
        self._url = url
        self._codec = codec
        self._reading = reading
        self._timeout = timeout
        self._min_replicas = 1 if reading else min_replicas
        self._servers: dict[StoreUrl, Server] = {}
        open_server = partial(
            RedisStore, codec=codec, timeout=timeout, reading=reading, password_variable=password_variable
        )
        self._table = self._make_table(password, open_server)
        if not reading:
            self._table.check_complete(min_replicas or 1)

    @classmethod
    def of_package(cls, router: Router, codec: Codec, *, timeout: float, reading: bool = True) -> Self:
        """Return the store of a package's own router.

        Raises:
            FormatError: it is invalid.
        """
        try:
            return cls(
                router,
                "the flist's router.yaml",
                codec,
                timeout=timeout,
                reading=reading,
                password_variable=None,
            )
        except UsageError as error:
            raise FormatError(f"the flist's router.yaml cannot be used: {error}") from None

    @property
    def codec(self) -> Codec:
        """The codec of its blocks."""
        return self._codec

    @property
    def url(self) -> str:
        """The router's URL, which shows none of its servers."""
        return self._url

    @property
    def readers_router(self) -> Router | None:
        """The part of the router that readers can use, if that has a server for every block."""
        usable = usable_router(self._router)
        if usable is None or usable == without_passwords(self._router):
            return usable
        try:
            RoutedStore(usable, self._url, self._codec, timeout=self._timeout)
        except UsageError:  # a range has no server left
            return None
        return usable

    @property
    def unreadable(self) -> str | None:
        """The servers that readers cannot use."""
        reasons = [reason for url in self._servers if (reason := why_unreadable(url))]
        more = f" and {len(reasons) - 1} more" if len(reasons) > 1 else ""
        return f"{reasons[0]}{more}" if reasons else None

    @property
    def trouble(self) -> str | None:
        """The errors of the servers whose last query failed."""
        said = [server.trouble for server in self._servers.values() if server.trouble]
        return "; ".join(said[:_MAX_TROUBLES]) or None

    def check(self) -> None:
        """Connect to enough servers of every range, and verify the passwords."""
        routes = [route for route in dict.fromkeys(self._table.routes) if route]

        def question(store: Store, numbers: list[int]) -> set[int]:
            store.check()
            return set(numbers)

        for tally in self._tallies(routes, question):
            _require_answers(tally, self._needed(tally.route))

    def missing(self, hashes: Sequence[bytes], sizes: Mapping[bytes, int] | None = None) -> set[bytes]:
        """Query the servers of each hash."""
        return self.missing_and_lacking(hashes, sizes)[0]

    def missing_and_lacking(
        self, hashes: Sequence[bytes], sizes: Mapping[bytes, int] | None = None
    ) -> tuple[set[bytes], dict[str, int]]:
        """Do what `missing` does, and count the blocks that each queried server lacks, by its URL."""
        lacking: dict[str, int] = {}

        def question(store: Store, numbers: list[int]) -> set[int]:
            absent = store.missing([hashes[number] for number in numbers], sizes)
            lacking[store.url] = len(absent)
            return {number for number in numbers if hashes[number] not in absent}

        absent: set[bytes] = set()
        tallies = self._tallies([self._route(hash_) for hash_ in hashes], question)
        for hash_, tally in zip(hashes, tallies, strict=True):
            if tally.held >= self._needed(tally.route) > 0:
                continue
            _require_answers(tally, len(tally.route) if self._reading else self._needed(tally.route))
            absent.add(hash_)
        return absent, lacking

    def put(self, blocks: Sequence[Block]) -> None:
        """Send each block to all of its servers."""
        if self._reading:
            raise StoreRefusedError(f"{self.url} was opened for reading")
        routes = []
        for block in blocks:
            check_size(block, self._codec, self.url)
            route = self._route(block.hash)
            if not route:
                raise StoreRefusedError(f"{self.url} has no server for block {self._codec.show(block.hash)}")
            routes.append(route)

        def question(store: Store, numbers: list[int]) -> set[int]:
            store.put([blocks[number] for number in numbers])
            return set(numbers)

        for tally in self._tallies(routes, question):
            _require_answers(tally, self._needed(tally.route))

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002 - the format's word
        """Try the block's servers one after the other; those that failed recently come last."""
        servers = sorted(self._route(hash), key=lambda server: server.rests)
        return first_that_has(
            hash, servers, self._codec, self.url, deadline or reading_deadline(self._timeout)
        )

    def copies(self, hash: bytes) -> list[bytes]:  # noqa: A002 - the format's word
        """Query all of the block's servers."""
        return all_copies(hash, self._route(hash))

    def wrong(self, hashes: Sequence[bytes], *, thorough: bool) -> set[bytes]:
        """Query all servers of each hash if `thorough`; otherwise none."""
        if not thorough:
            return set()

        def question(store: Store, numbers: list[int]) -> set[int]:
            found = store.wrong([hashes[number] for number in numbers], thorough=True)
            return {number for number in numbers if hashes[number] in found}

        found: set[bytes] = set()
        tallies = self._tallies([self._route(hash_) for hash_ in hashes], question)
        for hash_, tally in zip(hashes, tallies, strict=True):
            _require_answers(tally, self._needed(tally.route))
            if tally.held:
                found.add(hash_)
        return found

    def sync(self) -> None:
        """Do nothing: each server has its own policy on the durability of an acknowledged SET."""

    def close(self) -> None:
        """Close all servers' connections; calls in other threads end with an error at once."""
        for server in self._servers.values():
            server.close()

    # Routes

    def _make_table(self, password: str | None, open_server: Callable[[StoreUrl], Store]) -> Table:
        """Divide the hashes into segments that have the same servers."""
        begins: dict[int, list[int]] = {}
        ends: dict[int, list[int]] = {}
        servers: list[Server] = []
        pools = {pool.name: pool for pool in self._router.pools}
        for name in self._router.lookup:
            for rule in pools[name].rules:
                begins.setdefault(int(rule.range.first.ljust(DIGITS, "0"), 16), []).append(len(servers))
                ends.setdefault(int(rule.range.last.ljust(DIGITS, "F"), 16) + 1, []).append(len(servers))
                servers.append(self._server(parse_store_url(rule.url, password), open_server))
        starts = sorted({0, *begins, *ends} - {16**DIGITS})
        routes: list[Route] = []
        active: list[int] = []  # numbers of rules, in their order
        places = 0
        for start in starts:
            for number in ends.get(start, ()):
                active.remove(number)
            for number in begins.get(start, ()):
                insort(active, number)
            places += len(active)
            if places > _MAX_PLACES:
                raise UsageError("it has too many ranges that overlap")
            routes.append(tuple(dict.fromkeys(servers[number] for number in active)))
        return Table(starts, routes)

    def _server(self, url: StoreUrl, open_server: Callable[[StoreUrl], Store]) -> Server:
        if url not in self._servers:
            self._servers[url] = Server(open_server(url))
        return self._servers[url]

    def _route(self, hash_: bytes) -> Route:
        digits = self._codec.show(hash_)
        if not _DIGITS.fullmatch(digits):
            raise StoreRefusedError(f"{self.url} names blocks in hex; {digits!r:.40} is not")
        return self._table.route(digits)

    def _needed(self, route: Route) -> int:
        return min(self._min_replicas or len(route), len(route))

    # Asking

    def _tallies(
        self, routes: Sequence[Route], question: Callable[[Store, list[int]], set[int]]
    ) -> list[_Tally]:
        """Query all servers of each item about it; items are numbered as their routes are.

        The answer to a question is the numbers of the items that a server holds. Servers that failed
        recently are queried only where the others do not settle the matter.
        """
        tallies = [_Tally(route) for route in routes]
        resting = {server for server in self._servers.values() if server.rests}
        for late in (False, True):
            wanted: dict[Server, list[int]] = {}
            for number, tally in enumerate(tallies):
                if late and self._is_settled(tally):
                    continue
                for server in tally.route:
                    if (server in resting) is late:
                        wanted.setdefault(server, []).append(number)
            answers = ask_all(
                {
                    server: partial(server.ask, partial(_ask, question, numbers))
                    for server, numbers in wanted.items()
                }
            )
            for server, answer in answers.items():
                _count(answer, [(number, tallies[number]) for number in wanted[server]])
            if not resting:
                break
        return tallies

    def _is_settled(self, tally: _Tally) -> bool:
        return (tally.held if self._reading else tally.answered) >= self._needed(tally.route)


def _ask(question: Callable[[Store, list[int]], set[int]], numbers: list[int], store: Store) -> set[int]:
    return question(store, numbers)


def _require_answers(tally: _Tally, enough: int) -> None:
    """Raise the most useful error if too few servers of a block answered."""
    if tally.failed and tally.answered < enough:
        raise most_telling(tally.failed)


def _count(answer: set[int] | StoreError, asked: Iterable[tuple[int, _Tally]]) -> None:
    for number, tally in asked:
        if isinstance(answer, StoreError):
            tally.failed.append(answer)
        else:
            tally.answered += 1
            tally.held += number in answer


def open_router(
    url: StoreUrl,
    codec: Codec,
    password: str | None,
    *,
    timeout: float,
    reading: bool,
    password_variable: str | None,
) -> RoutedStore:
    """Return the store of a `router://` URL.

    Raises:
        UsageError: the file cannot be read, or is not a valid router.
    """
    if url.path is None:
        raise ValueError("the URL names no file")
    router = read_router(url.path)
    try:
        return RoutedStore(
            router,
            str(url),
            codec,
            password=password,
            timeout=timeout,
            min_replicas=url.min_replicas,
            reading=reading,
            password_variable=password_variable,
        )
    except UsageError as error:
        raise UsageError(f"the router {url.path} cannot be used: {error}") from None
