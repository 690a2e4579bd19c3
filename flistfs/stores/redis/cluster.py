"""Blocks on a Redis Cluster.

redis-py's cluster client knows which server has which block, and learns of it when that changes. The servers
themselves are asked as any other (see `redis`), in pipelines with bounded replies and bounded time: of
redis-py's cluster pipelines each command that failed is tried again by itself, with a time limit for each.

A block that is just being moved to another server is asked for by redis-py's client, one by one, which
follows the redirections. When a server fails, what the cluster looks like is asked anew, as another one may
have taken its place.
"""

from __future__ import annotations

import inspect
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

import redis.exceptions
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import AbstractConnection
from redis.retry import Retry

from flistfs.errors import BlockMissingError, StoreError, StoreRefusedError, StoreUnavailableError
from flistfs.stores.base import MAX_BLOCK_SIZE, check_size, reading_deadline
from flistfs.stores.combined.fanout import ask_all, most_telling, only_copy
from flistfs.stores.redis.refusals import RedirectedError, meaning_of, presentable
from flistfs.stores.redis.server import RedisStore
from flistfs.stores.url import PASSWORD_VARIABLE, StoreUrl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flistfs.format.base import Block, Codec

_REDIRECTIONS: Final = 3
"""How often redis-py's client tries a command that is redirected; each time it knows more."""

_SILENCE: Final = 5.0
"""Seconds until a server counts as hung that is asked what the cluster looks like, or for what was moved: so
that all that redis-py tries then takes no longer than an exchange with a server may."""

# Keeps redis-py from sending CLIENT SETINFO. Newer releases warn about the old names, older ones do not know
# the new one.
_ANONYMOUS: Final[dict[str, None]] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection).parameters
    else {"lib_name": None, "lib_version": None}
)

_T = TypeVar("_T")


class _Node(Protocol):
    """What is used of redis-py's servers of a cluster."""

    host: str
    port: int


class _Client(Protocol):
    """What is used of redis-py's cluster client (its own methods have other types)."""

    nodes_manager: Any

    def get_node_from_key(self, key: bytes) -> _Node | None: ...
    def get_primaries(self) -> list[_Node]: ...
    def execute_command(self, *words: str | bytes | int) -> object: ...
    def close(self) -> None: ...


class ClusterStore:
    """A `Store` on a cluster. Makes no connection before the first call."""

    def __init__(
        self,
        url: StoreUrl,
        codec: Codec,
        *,
        timeout: float,
        password_variable: str | None = PASSWORD_VARIABLE,
    ) -> None:
        self._url = url
        self._codec = codec
        self._password_variable = password_variable
        self._timeout = timeout
        self._connecting = threading.Lock()  # held for as long as that takes, so never by `close`
        self._lock = threading.Lock()  # of what follows
        self._client: _Client | None = None
        self._servers: dict[tuple[str, int], RedisStore] = {}
        self._closed = False

    @property
    def codec(self) -> Codec:
        """How its blocks are made."""
        return self._codec

    @property
    def url(self) -> str:
        """The URL of the server that the cluster was named by, without a password."""
        return str(self._url)

    @property
    def readers_router(self) -> None:
        """Nothing: readers of generation 1 follow no redirections."""

    @property
    def unreadable(self) -> str:
        """All of it."""
        return f"readers do not know clusters such as {self.url}"

    @property
    def trouble(self) -> None:
        """Nothing: it works or not."""

    def check(self) -> None:
        """Reach every server that has blocks."""
        client = self._connected()
        servers = [self._server(node) for node in client.get_primaries()]
        for answer in ask_all({server: partial(_check, server) for server in servers}).values():
            if isinstance(answer, StoreError):
                raise answer

    def missing(self, hashes: Sequence[bytes], sizes: Mapping[bytes, int] | None = None) -> set[bytes]:
        """Ask each server for what it has."""

        def question(server: RedisStore, batch: Sequence[bytes]) -> set[bytes]:
            try:
                return server.missing(batch, sizes)
            except RedirectedError:
                return {hash_ for hash_ in batch if self._follow("EXISTS", hash_) != 1}

        return set().union(*self._each(hashes, lambda hash_: hash_, question))

    def put(self, blocks: Sequence[Block]) -> None:
        """Send each server what is its."""
        for block in blocks:
            check_size(block, self._codec, self.url)

        def question(server: RedisStore, batch: Sequence[Block]) -> None:
            try:
                server.put(batch)
            except RedirectedError:
                for block in batch:
                    self._follow("SET", block.hash, block.stored)

        self._each(blocks, lambda block: block.hash, question)

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002 - the format's word
        """Fetch one block from the server that has it."""
        by = deadline or reading_deadline(self._timeout)

        def question(server: RedisStore, batch: Sequence[bytes]) -> bytes:
            try:
                return server.get(batch[0], by)
            except RedirectedError:
                return self._fetch(batch[0])

        try:
            (value,) = self._each([hash], lambda hash_: hash_, question)
        except BlockMissingError:
            raise BlockMissingError(f"{self.url} does not hold block {self._codec.show(hash)}") from None
        return cast("bytes", value)

    def copies(self, hash: bytes) -> list[bytes]:  # noqa: A002 - the format's word
        """Fetch the block."""
        return only_copy(hash, self.get)

    def wrong(self, hashes: Sequence[bytes], *, thorough: bool) -> set[bytes]:
        """Fetch blocks, if it is to be thorough, and compare each."""

        def question(server: RedisStore, batch: Sequence[bytes]) -> set[bytes]:
            try:
                return server.wrong(batch, thorough=thorough)
            except RedirectedError:
                has_hash = self._codec.has_hash
                return {hash_ for hash_ in batch if not all(has_hash(v, hash_) for v in self.copies(hash_))}

        return set().union(*self._each(hashes if thorough else (), lambda hash_: hash_, question))

    def sync(self) -> None:
        """Do nothing: how durable an acknowledged SET is, is the cluster's own policy."""

    def close(self) -> None:
        """Close all connections; calls in other threads end with an error at once."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        for server in list(self._servers.values()):
            server.close()
        if client is not None:
            client.close()

    def _each(
        self,
        items: Sequence[_T],
        hash_of: Callable[[_T], bytes],
        question: Callable[[RedisStore, Sequence[_T]], Any],
    ) -> list[Any]:
        """Put a question about items to the servers that have them, and once more where one does not answer.

        Returns the answers. Everything asked here may be asked twice.
        """
        answers, left = self._try(items, hash_of, question)
        if left:
            self._look_again()
            more, left = self._try([item for batch, _ in left for item in batch], hash_of, question)
            answers += more
        if left:
            raise most_telling([error for _, error in left])
        return answers

    def _try(
        self,
        items: Sequence[_T],
        hash_of: Callable[[_T], bytes],
        question: Callable[[RedisStore, Sequence[_T]], Any],
    ) -> tuple[list[Any], list[tuple[list[_T], StoreError]]]:
        """Return the answers, and what got none because its server does not answer, with the error."""
        batches: dict[RedisStore, list[_T]] = {}
        client = self._connected()
        for item in items:
            batches.setdefault(self._owner(client, hash_of(item)), []).append(item)
        answers: list[Any] = []
        left: list[tuple[list[_T], StoreError]] = []
        asked = {server: partial(question, server, batch) for server, batch in batches.items()}
        for server, answer in ask_all(asked).items():
            if isinstance(answer, StoreUnavailableError):
                left.append((batches[server], answer))
            elif isinstance(answer, StoreError):
                raise answer
            else:
                answers.append(answer)
        return answers, left

    # The cluster

    def _connected(self) -> _Client:
        """Return redis-py's client, which asks the cluster what it looks like when it is made."""
        with self._connecting:
            client = self._client or self._explained(self._connect)
            with self._lock:
                if not self._closed:
                    self._client = client
                    return client
        client.close()
        raise self._gone()

    def _gone(self) -> StoreUnavailableError:
        return StoreUnavailableError(f"{self.url} is no longer in use")

    def _connect(self) -> _Client:
        if self._closed:
            raise self._gone()
        secret = self._url.password
        return cast("Callable[..., _Client]", RedisCluster)(
            host=self._url.host,
            port=self._url.port,
            password=None if secret is None else secret.encode("utf-8", "surrogateescape"),
            protocol=2,
            **_ANONYMOUS,
            socket_timeout=min(self._timeout, _SILENCE),
            socket_connect_timeout=min(self._timeout, _SILENCE),
            retry=Retry(NoBackoff(), _REDIRECTIONS),
        )

    def _look_again(self) -> None:
        """Ask the cluster what it looks like now."""
        client = self._connected()
        self._explained(client.nodes_manager.initialize)

    def _owner(self, client: _Client, hash_: bytes) -> RedisStore:
        node = self._explained(lambda: client.get_node_from_key(hash_))
        if node is None:
            raise StoreUnavailableError(f"{self.url} has no server for block {self._codec.show(hash_)} now")
        return self._server(node)

    def _server(self, node: _Node) -> RedisStore:
        with self._lock:
            if self._closed:
                raise self._gone()
            address = node.host, node.port
            if address not in self._servers:
                url = StoreUrl("redis", node.host, node.port, self._url.password)
                self._servers[address] = RedisStore(
                    url, self._codec, timeout=self._timeout, password_variable=self._password_variable
                )
            return self._servers[address]

    def _fetch(self, hash_: bytes) -> bytes:
        # A range, so that no larger value is sent than a block can have; of nothing it is empty.
        value = self._follow("GETRANGE", hash_, 0, MAX_BLOCK_SIZE)
        if not isinstance(value, bytes) or len(value) > MAX_BLOCK_SIZE:
            raise StoreError(f"{self.url}: what is stored as {self._codec.show(hash_)} is not a block")
        if not value:
            raise BlockMissingError(f"{self.url} does not hold block {self._codec.show(hash_)}")
        return value

    def _follow(self, *words: str | bytes | int) -> object:
        """Send one command to wherever the cluster says that it belongs."""
        client = self._connected()
        return self._explained(lambda: client.execute_command(*words))

    def _explained(self, work: Callable[[], _T]) -> _T:
        """Do something with redis-py's client; whatever goes wrong leaves as one of our errors."""
        try:
            return work()
        except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException) as error:
            raise self._meaning(error) from error
        except OSError as error:
            raise StoreUnavailableError(f"cannot reach {self.url}: {error.strerror or error}") from error

    def _meaning(self, error: Exception) -> StoreError:
        reasons = [error, *_causes(error)]
        said = next((one for one in reversed(reasons) if isinstance(one, _REPLIES)), None)
        if said is not None and "cluster support disabled" in str(said):
            return StoreRefusedError(f"{self.url} is not a cluster: use redis://")
        if said is not None:
            return meaning_of(str(said), self.url, self._url.password, self._password_variable)
        if any(isinstance(one, (TimeoutError, redis.exceptions.TimeoutError)) for one in reasons):
            return StoreUnavailableError(f"{self.url} does not answer: check the servers and the network")
        reason = getattr(reasons[-1], "strerror", None) or presentable(str(reasons[-1]), self._url.password)
        return StoreUnavailableError(f"cannot reach {self.url}: {reason}: check that the servers run there")


# What a server answered, where other errors are of the connection.
_REPLIES: Final = (redis.exceptions.ResponseError, redis.exceptions.AuthenticationError)


def _causes(error: BaseException) -> Iterable[BaseException]:
    while (cause := error.__cause__ or error.__context__) is not None:
        yield cause
        error = cause


def _check(server: RedisStore) -> None:
    try:
        server.check()
    except RedirectedError:
        return  # it answers, and knows the password
