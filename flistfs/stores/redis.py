"""Blocks on a server that speaks Redis' protocol: ARDB, 0-db, Redis, Valkey.

Only what all of them understand is sent: AUTH with one argument, SELECT, PING, plain SET, GET, and EXISTS
with one key; no HELLO, no CLIENT, no MULTI. ARDB closes the connection after a command it does not know.

One exchange is a bounded pipeline on one connection. Every exchange may be sent again as a whole, since the
key of a SET is a hash of its value.

Measured against a redis-server 7.0 without persistence on the same two cores, random content, blocks a
second; beside it a plain redis-py pipeline of the same batches:

| | here | redis-py 8.1 |
| --- | --- | --- |
| put, 512 KiB, batches of 4, two threads | 2,000 to 3,100 | 1,100 to 1,300 |
| put, 4 KiB, batches of 64, one thread | 94,000 | 70,000 |
| missing, 12,800 hashes | 350,000 | |
| get, one by one, one thread: 512 KiB, 4 KiB | 2,400 to 3,200, 8,000 | |
"""

from __future__ import annotations

import inspect
import logging
import ssl
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

import redis.exceptions
from redis.connection import AbstractConnection, BlockingConnectionPool, Connection, SSLConnection

from flistfs.errors import BlockMissingError, StoreError, StoreRefusedError, StoreUnavailableError
from flistfs.format.router import SCHEMES, router_to
from flistfs.stores.base import MAX_BLOCK_SIZE, check_size, printable
from flistfs.stores.refusals import meaning_of
from flistfs.stores.wire import ErrorReply, NonsenseReply, Reply, Status, Wire, command, set_commands

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flistfs.format.codec import Block
    from flistfs.format.router import Router
    from flistfs.stores.url import StoreUrl

_log = logging.getLogger(__name__)

_MAX_CONNECTIONS: Final = 16
"""More threads than this take turns; a handful saturates any server."""

_MAX_COMMANDS: Final = 512
"""Commands in flight. Their replies (at most about 80 bytes each, where 0-db repeats the key) stay below
any socket buffer, so the server never waits for us to read while we wait for it to read."""

_MAX_BYTES: Final = 16 * 1024 * 1024
"""Bytes of blocks in flight: bounds what is sent again after a fault. Larger pipelines gain nothing."""

_SLOWEST: Final = 64 * 1024
"""Bytes a second that any link must manage; sets the time limit of a whole exchange."""

_PAUSES: Final = (0.2, 0.8)
"""Seconds before the second and the third try: a server that restarts is back within a second. Waiting
out a longer outage is up to the caller."""

CONNECT_TIMEOUT: Final = 10.0
"""Seconds to reach a server: Linux sends a lost SYN again after 1, 3 and 7."""

# Keeps redis-py from sending CLIENT SETINFO. Newer releases warn about the old names, older ones do not know
# the new one.
ANONYMOUS: Final[dict[str, None]] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(AbstractConnection).parameters
    else {"lib_name": None, "lib_version": None}
)

_NO_BLOCK: Final = b"0" * 64

_T = TypeVar("_T")

# What redis-py and the socket raise where the connection failed; sending again may help.
_FAULTS: Final = (OSError, redis.exceptions.ConnectionError, redis.exceptions.TimeoutError)


class _Connection(Protocol):
    """What is used of a redis-py connection (its own methods have no types)."""

    _sock: socket.socket | None

    def on_connect(self) -> None: ...
    def disconnect(self) -> None: ...


class _Pool(Protocol):
    """What is used of a redis-py connection pool."""

    def get_connection(self) -> _Connection: ...
    def release(self, connection: _Connection) -> None: ...
    def disconnect(self) -> None: ...


class RedisStore:
    """A `Store` on a server. Makes no connection before the first call."""

    def __init__(self, url: StoreUrl, *, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._closed = threading.Event()
        self._pool = cast("Callable[..., _Pool]", BlockingConnectionPool)(
            connection_class=SSLConnection if url.tls else Connection,
            max_connections=_MAX_CONNECTIONS,
            timeout=timeout,  # until another thread gives a connection back
            host=url.host,
            port=url.port,
            protocol=2,  # the default, 3, starts with HELLO
            **ANONYMOUS,
            socket_timeout=timeout,
            socket_connect_timeout=min(timeout, CONNECT_TIMEOUT),
            redis_connect_func=self._greet,
        )

    @property
    def url(self) -> str:
        """The server's URL without its password."""
        return str(self._url)

    @property
    def readers_router(self) -> Router | None:
        """A router to this server; readers know no TLS."""
        return router_to(self.url) if self._url.scheme in SCHEMES else None

    @property
    def trouble(self) -> None:
        """Nothing: it works or not."""

    def check(self) -> None:
        """Reach the server; a PING may be free for all, so a key is asked for as well."""

        def work(wire: Wire) -> None:
            wire.send([command(b"PING"), command(b"EXISTS", _NO_BLOCK)])
            _expect(wire.reply(), Status("PONG"))
            _is_there(wire.reply())

        self._exchange(work)

    def missing(self, hashes: Sequence[bytes], sizes: Mapping[bytes, int] | None = None) -> set[bytes]:  # noqa: ARG002
        """Ask for each hash with a command of its own: neither ARDB nor 0-db take several.

        A server has a value whole or not at all, so sizes say nothing.
        """
        absent: set[bytes] = set()
        for start in range(0, len(hashes), _MAX_COMMANDS):
            batch = hashes[start : start + _MAX_COMMANDS]
            absent.update(self._exchange(partial(_ask, hashes=batch)))
        return absent

    def put(self, blocks: Sequence[Block]) -> None:
        """Store blocks in pipelines of SETs."""
        for block in blocks:
            check_size(block, self.url)
        for batch in _pipelines(blocks):
            size = sum(block.size for block in batch)
            self._exchange(partial(_store, blocks=batch), size)

    def get(self, hash: bytes) -> bytes:  # noqa: A002 - the word the format uses for it
        """Fetch one block. The server is not believed about sizes: see `MAX_BLOCK_SIZE`."""
        value = self._exchange(partial(_fetch, hash_=hash), MAX_BLOCK_SIZE)
        if value is None:
            raise BlockMissingError(f"{self.url} does not hold block {printable(hash)}")
        return value

    def sync(self) -> None:
        """Do nothing: how durable an acknowledged SET is, is the server's own policy."""

    def close(self) -> None:
        """Close all connections, those in use too; calls in other threads end with an error at once."""
        self._closed.set()
        self._pool.disconnect()

    def _exchange(self, work: Callable[[Wire], _T], size: int = 0) -> _T:
        """Do `work` on a connection, again after a fault; `size` is how many bytes it moves at most."""
        for pause in _PAUSES:
            try:
                return self._attempt(work, size)
            except StoreUnavailableError as fault:
                if self._closed.is_set():
                    raise
                _log.debug("trying again in %.1f s: %s", pause, fault)
            self._closed.wait(pause)
        return self._attempt(work, size)

    def _attempt(self, work: Callable[[Wire], _T], size: int) -> _T:
        """Do `work` once; whatever goes wrong leaves as one of our errors."""
        if self._closed.is_set():
            raise StoreUnavailableError(f"{self.url} is no longer in use")
        try:
            connection = self._pool.get_connection()
            try:
                return self._talk(connection, work, size)
            finally:
                if self._closed.is_set():
                    connection.disconnect()  # close() may have missed a connection made at that moment
                self._pool.release(connection)
        except ErrorReply as reply:
            raise meaning_of(str(reply), self.url, self._url.password) from None
        except NonsenseReply as reply:
            raise StoreError(f"{self.url} does not behave like a Redis server: it sent {reply}") from None
        except _FAULTS as fault:
            raise self._unreachable(fault) from fault

    def _greet(self, connection: _Connection) -> None:
        """Take redis-py's place after it has connected: what it would send is not for every server."""
        connection.on_connect()  # with the options above it sets up its parser and sends nothing
        for words, answer in self._greeting():
            self._talk(connection, partial(_tell, words=words, answer=answer), 0)

    def _greeting(self) -> Iterator[tuple[list[bytes], str]]:
        """Give the commands that open a connection, and the answer to each."""
        if self._url.password is not None:
            yield [b"AUTH", self._url.password.encode("utf-8", "surrogateescape")], "OK"
        if self._url.name is not None:
            yield [b"SELECT", self._url.name.encode("utf-8", "surrogateescape")], "OK"
        if self._url.tls:
            # A TLS 1.3 server sends session tickets after the handshake. Unless they are read with some
            # reply, redis-py's pool takes them for a reply that nobody asked for and gives up.
            yield [b"PING"], "PONG"

    def _talk(self, connection: _Connection, work: Callable[[Wire], _T], size: int) -> _T:
        """Do `work` on this connection; anything but success ends the connection."""
        deadline = time.monotonic() + self._timeout + size / _SLOWEST
        try:
            wire = Wire(_socket_of(connection), silence=self._timeout, deadline=deadline)
            result = work(wire)
            wire.finish()
        except BaseException:
            connection.disconnect()
            raise
        return result

    def _unreachable(self, fault: BaseException) -> StoreError:
        cause = fault.__context__ if isinstance(fault, redis.exceptions.RedisError) else fault
        if isinstance(cause, ssl.SSLCertVerificationError):
            return StoreRefusedError(
                f"{self.url} has a certificate that this system does not trust: {cause.verify_message}"
            )
        if isinstance(fault, (TimeoutError, redis.exceptions.TimeoutError)):
            return StoreUnavailableError(f"{self.url} does not answer: check the server and the network")
        reason = getattr(cause, "strerror", None) or cause or fault
        return StoreUnavailableError(f"cannot reach {self.url}: {reason}: check that the server runs there")


def _socket_of(connection: _Connection) -> socket.socket:
    # redis-py has no public way to the socket, and blocks must not go through its packer (see wire.py).
    sock = connection._sock  # noqa: SLF001
    if sock is None:
        raise ConnectionResetError("the connection was closed")  # by close() in another thread
    return sock


def _pipelines(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Cut a batch into pipelines of at most `_MAX_COMMANDS` blocks and about `_MAX_BYTES`."""
    pipeline: list[Block] = []
    size = 0
    for block in blocks:
        if pipeline and (len(pipeline) == _MAX_COMMANDS or size + block.size > _MAX_BYTES):
            yield pipeline
            pipeline, size = [], 0
        pipeline.append(block)
        size += block.size
    if pipeline:
        yield pipeline


def _ask(wire: Wire, hashes: Sequence[bytes]) -> set[bytes]:
    wire.send([b"".join(command(b"EXISTS", hash_) for hash_ in hashes)])
    return {hash_ for hash_ in hashes if not _is_there(wire.reply())}


def _store(wire: Wire, blocks: Sequence[Block]) -> None:
    wire.send(set_commands((block.hash, block.parts) for block in blocks))
    for block in blocks:
        # 0-db answers with the key, or with nil where it had the same value already.
        _expect(wire.reply(), Status("OK"), block.hash, None)


def _fetch(wire: Wire, hash_: bytes) -> bytes | None:
    wire.send([command(b"GET", hash_)])
    value = wire.reply(MAX_BLOCK_SIZE)
    if value is None or type(value) is bytes:
        return value
    raise NonsenseReply(f"{value!r} as the answer to GET")


def _tell(wire: Wire, words: Sequence[bytes], answer: str) -> None:
    wire.send([command(*words)])
    _expect(wire.reply(), Status(answer))


def _is_there(reply: Reply) -> bool:
    _expect(reply, 0, 1)
    return reply == 1


def _expect(reply: Reply, *wanted: Reply) -> None:
    if not any(type(reply) is type(one) and reply == one for one in wanted):
        raise NonsenseReply(f"{reply!r:.80} where {wanted[0]!r} belongs")
