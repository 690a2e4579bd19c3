"""Blocks on a Redis Cluster.

redis-py's cluster client knows which server has which block, and follows changes. The servers themselves are
queried like any other (see `redis`), in pipelines with bounded replies and bounded time: redis-py's cluster
pipelines retry each failed command by itself, with a time limit for each.

Blocks that are being moved to another server are handled one by one by redis-py's client, which follows the
redirections. When a server fails, the layout of the cluster is fetched again, as another server may have
taken over.
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
"""How often redis-py's client tries a redirected command; each time it has learned more."""

_LAYOUT_TIMEOUT: Final = 5.0
"""Seconds until a server counts as hung when asked for the cluster's layout or for moved blocks, so that all
of redis-py's attempts together take no longer than an exchange with a server may."""

# Keeps redis-py from sending CLIENT SETINFO. Newer releases warn about the old names, older ones lack the
# new one.
_ANONYMOUS: Final[dict[str, None]] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection).parameters
    else {"lib_name": None, "lib_version": None}
)

_T = TypeVar("_T")


class _Node(Protocol):
    """The part in use of redis-py's class for a server of a cluster."""

    host: str
    port: int


class _Client(Protocol):
    """The part in use of redis-py's cluster client (its own annotations differ)."""

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
        self._connecting = threading.Lock()  # held while connecting, so never taken by `close`
        self._lock = threading.Lock()  # guards the attributes below
        self._client: _Client | None = None
        self._servers: dict[tuple[str, int], RedisStore] = {}
        self._closed = False

    @property
    def codec(self) -> Codec:
        """The codec of its blocks."""
        return self._codec

    @property
    def url(self) -> str:
        """The URL that the cluster was opened with, without a password."""
        return str(self._url)

    @property
    def readers_router(self) -> None:
        """None: readers of generation 1 do not follow redirections."""

    @property
    def unreadable(self) -> str:
        """Readers can use none of it."""
        return f"readers do not support clusters such as {self.url}"

    @property
    def trouble(self) -> None:
        """None: a cluster works or it does not."""

    def check(self) -> None:
        """Connect to every server that holds blocks."""
        client = self._connected()
        servers = [self._server(node) for node in client.get_primaries()]
        for answer in ask_all({server: partial(_check, server) for server in servers}).values():
            if isinstance(answer, StoreError):
                raise answer

    def missing(self, hashes: Sequence[bytes], sizes: Mapping[bytes, int] | None = None) -> set[bytes]:
        """Query each server about its own hashes."""

        def question(server: RedisStore, batch: Sequence[bytes]) -> set[bytes]:
            try:
                return server.missing(batch, sizes)
            except RedirectedError:
                return {hash_ for hash_ in batch if self._follow("EXISTS", hash_) != 1}

        return set().union(*self._query(hashes, lambda hash_: hash_, question))

    def put(self, blocks: Sequence[Block]) -> None:
        """Send each server its own blocks."""
        for block in blocks:
            check_size(block, self._codec, self.url)

        def question(server: RedisStore, batch: Sequence[Block]) -> None:
            try:
                server.put(batch)
            except RedirectedError:
                for block in batch:
                    self._follow("SET", block.hash, block.stored)

        self._query(blocks, lambda block: block.hash, question)

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002 - the format's word
        """Fetch one block from the server that has it."""
        by = deadline or reading_deadline(self._timeout)

        def question(server: RedisStore, batch: Sequence[bytes]) -> bytes:
            try:
                return server.get(batch[0], by)
            except RedirectedError:
                return self._fetch(batch[0])

        try:
            (value,) = self._query([hash], lambda hash_: hash_, question)
        except BlockMissingError:
            raise BlockMissingError(f"{self.url} does not hold block {self._codec.show(hash)}") from None
        return cast("bytes", value)

    def copies(self, hash: bytes) -> list[bytes]:  # noqa: A002 - the format's word
        """Fetch the block."""
        return only_copy(hash, self.get)

    def wrong(self, hashes: Sequence[bytes], *, thorough: bool) -> set[bytes]:
        """Fetch and compare all blocks if `thorough`; otherwise do nothing."""

        def question(server: RedisStore, batch: Sequence[bytes]) -> set[bytes]:
            try:
                return server.wrong(batch, thorough=thorough)
            except RedirectedError:
                has_hash = self._codec.has_hash
                return {hash_ for hash_ in batch if not all(has_hash(v, hash_) for v in self.copies(hash_))}

        return set().union(*self._query(hashes if thorough else (), lambda hash_: hash_, question))

    def sync(self) -> None:
        """Do nothing: the cluster has its own policy on the durability of an acknowledged SET."""

    def close(self) -> None:
        """Close all connections; calls in other threads end with an error at once."""
        with self._lock:
            self._closed = True
            client, self._client = self._client, None
        for server in list(self._servers.values()):
            server.close()
        if client is not None:
            client.close()

    def _query(
        self,
        items: Sequence[_T],
        hash_of: Callable[[_T], bytes],
        question: Callable[[RedisStore, Sequence[_T]], Any],
    ) -> list[Any]:
        """Query the servers that hold the items, once more where one does not answer; return the answers.

        Every question must be safe to repeat.
        """
        answers, left = self._query_once(items, hash_of, question)
        if left:
            self._refresh_layout()
            more, left = self._query_once([item for batch, _ in left for item in batch], hash_of, question)
            answers += more
        if left:
            raise most_telling([error for _, error in left])
        return answers

    def _query_once(
        self,
        items: Sequence[_T],
        hash_of: Callable[[_T], bytes],
        question: Callable[[RedisStore, Sequence[_T]], Any],
    ) -> tuple[list[Any], list[tuple[list[_T], StoreError]]]:
        """Return the answers, and the items whose server does not answer, with its error."""
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
        """Return redis-py's client, which fetches the layout of the cluster when it is created."""
        with self._connecting:
            client = self._client or self._with_errors_translated(self._connect)
            with self._lock:
                if not self._closed:
                    self._client = client
                    return client
        client.close()
        raise self._closed_error()

    def _closed_error(self) -> StoreUnavailableError:
        return StoreUnavailableError(f"{self.url} is no longer in use")

    def _connect(self) -> _Client:
        if self._closed:
            raise self._closed_error()
        secret = self._url.password
        return cast("Callable[..., _Client]", RedisCluster)(
            host=self._url.host,
            port=self._url.port,
            password=None if secret is None else secret.encode("utf-8", "surrogateescape"),
            protocol=2,
            **_ANONYMOUS,
            socket_timeout=min(self._timeout, _LAYOUT_TIMEOUT),
            socket_connect_timeout=min(self._timeout, _LAYOUT_TIMEOUT),
            retry=Retry(NoBackoff(), _REDIRECTIONS),
        )

    def _refresh_layout(self) -> None:
        """Fetch the layout of the cluster again."""
        client = self._connected()
        self._with_errors_translated(client.nodes_manager.initialize)

    def _owner(self, client: _Client, hash_: bytes) -> RedisStore:
        node = self._with_errors_translated(lambda: client.get_node_from_key(hash_))
        if node is None:
            raise StoreUnavailableError(f"{self.url} has no server for block {self._codec.show(hash_)} now")
        return self._server(node)

    def _server(self, node: _Node) -> RedisStore:
        with self._lock:
            if self._closed:
                raise self._closed_error()
            address = node.host, node.port
            if address not in self._servers:
                url = StoreUrl("redis", node.host, node.port, self._url.password)
                self._servers[address] = RedisStore(
                    url, self._codec, timeout=self._timeout, password_variable=self._password_variable
                )
            return self._servers[address]

    def _fetch(self, hash_: bytes) -> bytes:
        # A range bounds the reply to the largest block; for a missing key it is empty.
        value = self._follow("GETRANGE", hash_, 0, MAX_BLOCK_SIZE)
        if not isinstance(value, bytes) or len(value) > MAX_BLOCK_SIZE:
            raise StoreError(f"{self.url}: what is stored as {self._codec.show(hash_)} is not a block")
        if not value:
            raise BlockMissingError(f"{self.url} does not hold block {self._codec.show(hash_)}")
        return value

    def _follow(self, *words: str | bytes | int) -> object:
        """Send one command, following the cluster's redirections."""
        client = self._connected()
        return self._with_errors_translated(lambda: client.execute_command(*words))

    def _with_errors_translated(self, work: Callable[[], _T]) -> _T:
        """Run a call of redis-py's client, and convert its exceptions to ours."""
        try:
            return work()
        except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException) as error:
            raise self._error_for(error) from error
        except OSError as error:
            raise StoreUnavailableError(f"cannot reach {self.url}: {error.strerror or error}") from error

    def _error_for(self, error: Exception) -> StoreError:
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


# Error replies of a server; other errors are of the connection.
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
