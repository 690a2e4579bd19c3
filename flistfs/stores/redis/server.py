"""Blocks on a server that speaks the Redis protocol: ARDB, 0-db, Redis, Valkey.

Only commands that all of them understand are sent: AUTH with one argument, SELECT, PING, plain SET, GET, and
EXISTS with one key; no HELLO, no CLIENT, no MULTI. ARDB closes the connection after an unknown command.

One exchange is a bounded pipeline on one connection. Every exchange can be repeated as a whole, since the key
of a SET is a hash of its value.

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

import contextlib
import logging
import socket
import ssl
import threading
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from flistfs.errors import (
    BlockMissingError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
    UsageError,
)
from flistfs.format.router import router_to
from flistfs.stores.base import check_size, reading_deadline
from flistfs.stores.combined.fanout import only_copy
from flistfs.stores.redis.connections import Connections, speaks_plain, speaks_tls
from flistfs.stores.redis.exchanges import (
    MAX_COMMANDS,
    ask_missing,
    compare_blocks,
    expect,
    fetch_block,
    in_pipelines,
    is_there,
    is_zero_db,
    log_in_to_zero_db,
    send_command,
    store_blocks,
)
from flistfs.stores.redis.refusals import meaning_of
from flistfs.stores.redis.wire import ErrorReply, InvalidReply, Status, Wire, command
from flistfs.stores.url import PASSWORD_VARIABLE, for_readers, parse_store_url, why_unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flistfs.format.base import Block, Codec
    from flistfs.format.router import Router
    from flistfs.stores.url import StoreUrl

_log = logging.getLogger(__name__)


_MAX_VALUES: Final = 16
"""Blocks fetched at a time for comparison."""

_USUAL_SIZE: Final = 640 * 1024
"""The most bytes of a block; only a value that is not a block can be larger."""

_SLOWEST: Final = 64 * 1024
"""Bytes per second that any link is required to sustain."""

_PAUSES: Final = (0.2, 0.8)
"""Seconds before the second and the third try: a server that restarts is back within a second. Waiting
out a longer outage is up to the caller."""

_PROBE_SECONDS: Final = 3.0
"""Seconds to find out whether a server that does not answer would answer with TLS, or without."""


_T = TypeVar("_T")


class RedisStore:
    """A `Store` on a server. Makes no connection before the first call."""

    def __init__(
        self,
        url: StoreUrl,
        codec: Codec,
        *,
        timeout: float,
        reading: bool = False,
        password_variable: str | None = PASSWORD_VARIABLE,
    ) -> None:
        """Set up a server.

        Args:
            url: Its address.
            codec: The codec of its blocks.
            timeout: Seconds without progress until it counts as hung (see `reading_deadline`).
            reading: Whether it is only read from, so that it need not be writable.
            password_variable: The environment variable that its password may come from, for messages; None
                for a server that gets none because only an flist names it.
        """
        self._url = url
        self._codec = codec
        self._timeout = timeout
        self._reading = reading
        self._password_variable = password_variable
        self._closed = threading.Event()
        self._has_answered = False
        self._is_other: bool | None = None  # whether it speaks TLS where we do not, or the other way around
        self._connections = Connections(url.host, url.port, tls=url.tls, silence=timeout)

    @property
    def codec(self) -> Codec:
        """The codec of its blocks."""
        return self._codec

    @property
    def url(self) -> str:
        """The server's URL without its password."""
        return str(self._url)

    @property
    def readers_router(self) -> Router | None:
        """A router to this server, if readers can use it."""
        url = for_readers(self._url)
        return None if url is None else router_to(str(url))

    @property
    def unreadable(self) -> str | None:
        """Why readers cannot use it: TLS, or another database than the first."""
        return why_unreadable(self._url)

    @property
    def trouble(self) -> None:
        """None: a server works or it does not."""

    def check(self) -> None:
        """Reach the server; a PING may be free for all, so a key is asked for as well.

        A 0-db that chooses its keys itself takes no block, which only a block can show.
        """

        def work(wire: Wire) -> bool:
            wire.send([command(b"PING"), command(b"EXISTS", self._codec.no_block)])
            expect(wire.reply(), Status("PONG"))
            is_there(wire.reply())
            return not self._reading and is_zero_db(wire)

        if self._exchange(work):
            self.put([self._codec.encode(b"\0")])

    def missing(self, hashes: Sequence[bytes], sizes: Mapping[bytes, int] | None = None) -> set[bytes]:  # noqa: ARG002
        """Ask for each hash with a command of its own: neither ARDB nor 0-db take several.

        A server has a value whole or not at all, so sizes say nothing.
        """
        absent: set[bytes] = set()
        for start in range(0, len(hashes), MAX_COMMANDS):
            batch = hashes[start : start + MAX_COMMANDS]
            absent.update(self._exchange(partial(ask_missing, hashes=batch)))
        return absent

    def put(self, blocks: Sequence[Block]) -> None:
        """Store blocks in pipelines of SETs."""
        for block in blocks:
            check_size(block, self._codec, self.url)
        for batch in in_pipelines(blocks):
            size = sum(block.size for block in batch)
            self._exchange(
                partial(store_blocks, blocks=batch), reading_deadline(self._timeout) + size / _SLOWEST
            )

    def get(self, hash: bytes, deadline: float | None = None) -> bytes:  # noqa: A002 - the format's word
        """Fetch one block. Sizes that the server claims are not trusted: see `MAX_BLOCK_SIZE`."""
        value = self._exchange(partial(fetch_block, hash_=hash), deadline)
        if value is None:
            raise BlockMissingError(f"{self.url} does not hold block {self._codec.show(hash)}")
        return value

    def copies(self, hash: bytes) -> list[bytes]:  # noqa: A002 - the format's word
        """Fetch the block."""
        return only_copy(hash, self.get)

    def wrong(self, hashes: Sequence[bytes], *, thorough: bool) -> set[bytes]:
        """Fetch blocks in pipelines and compare each as it arrives, if `thorough`; otherwise do nothing."""
        found: set[bytes] = set()
        for start in range(0, len(hashes) if thorough else 0, _MAX_VALUES):
            batch = hashes[start : start + _MAX_VALUES]
            deadline = reading_deadline(self._timeout) + len(batch) * _USUAL_SIZE / _SLOWEST
            found |= self._exchange(partial(compare_blocks, codec=self._codec, hashes=batch), deadline)
        return found

    def sync(self) -> None:
        """Do nothing: the server has its own policy on the durability of an acknowledged SET."""

    def close(self) -> None:
        """Close all connections, including those in use; calls in other threads end with an error at once."""
        self._closed.set()
        self._connections.close()

    def _exchange(self, work: Callable[[Wire], _T], deadline: float | None = None) -> _T:
        """Do `work` on a connection; retry after a fault as long as there is time."""
        if deadline is None:
            deadline = reading_deadline(self._timeout)
        for pause in _PAUSES:
            try:
                return self._attempt(work, deadline)
            except StoreUnavailableError as fault:
                if self._closed.is_set() or time.monotonic() + pause >= deadline:
                    raise
                _log.debug("trying again in %.1f s: %s", pause, fault)
            self._closed.wait(pause)
        return self._attempt(work, deadline)

    def _attempt(self, work: Callable[[Wire], _T], deadline: float) -> _T:
        """Do `work` once, and convert any exception to one of ours."""
        if self._closed.is_set():
            raise StoreUnavailableError(f"{self.url} is no longer in use")
        try:
            with self._connections.lent(deadline, self._greet) as sock:
                return self._talk(sock, work, deadline)
        except ErrorReply as reply:
            raise self._meaning(reply) from None
        except InvalidReply as reply:
            raise StoreError(f"{self.url} does not behave like a Redis server: it sent {reply}") from None
        except OSError as fault:
            raise self._unreachable(fault, deadline) from fault

    def _greet(self, sock: socket.socket, deadline: float) -> None:
        """Initialize a connection: log in, and select the database or namespace."""
        secret = None if self._url.password is None else _argument(self._url.password)
        name = None if self._url.name is None else _argument(self._url.name)
        if self._url.scheme == "zdb" and secret is not None:
            self._talk(sock, partial(log_in_to_zero_db, secret=secret, name=name or b"default"), deadline)
            return
        for words, answer in self._greeting(secret, name):
            self._talk(sock, partial(send_command, words=words, answer=answer), deadline)

    def _greeting(self, secret: bytes | None, name: bytes | None) -> Iterator[tuple[list[bytes], str]]:
        """Yield the commands that initialize a connection, each with its expected answer."""
        if secret is not None:
            yield [b"AUTH", secret], "OK"
        if name is not None:
            yield [b"SELECT", name], "OK"
        if self._url.tls:
            # A TLS 1.3 server sends session tickets after the handshake. Unless they are read with some
            # reply, they look like the end of an idle connection.
            yield [b"PING"], "PONG"

    def _talk(self, sock: socket.socket, work: Callable[[Wire], _T], deadline: float) -> _T:
        """Do `work` on this connection."""
        wire = Wire(sock, silence=self._timeout, deadline=deadline)
        try:
            result = work(wire)
            wire.finish()
        finally:
            self._has_answered |= wire.has_answered
        return result

    def _meaning(self, reply: ErrorReply) -> StoreError:
        return meaning_of(str(reply), self.url, self._url.password, self._password_variable)

    def _unreachable(self, fault: OSError, deadline: float) -> StoreError:
        if isinstance(fault, ssl.SSLCertVerificationError):
            return StoreRefusedError(
                f"{self.url} has a certificate that this system does not trust: {fault.verify_message}"
            )
        if not isinstance(fault, (ConnectionRefusedError, socket.gaierror)):
            self._check_encryption(deadline)
        if isinstance(fault, TimeoutError):
            return StoreUnavailableError(f"{self.url} does not answer: check the server and the network")
        reason = fault.strerror or fault
        return StoreUnavailableError(f"cannot reach {self.url}: {reason}: check that the server runs there")

    def _check_encryption(self, deadline: float) -> None:
        """Check once whether a server that has never answered does so with TLS, or without.

        Raises:
            StoreRefusedError: it does; the message names the right URL.
        """
        if self._has_answered or self._closed.is_set():
            return
        if self._is_other is None:
            seconds = min(deadline - time.monotonic(), self._timeout, _PROBE_SECONDS)
            if seconds <= 0:
                return
            speaks = speaks_plain if self._url.tls else speaks_tls
            self._is_other = speaks(self._url.host, self._url.port, seconds)
        if self._is_other and self._url.tls:
            raise _without_tls(self._url)
        if self._is_other:
            raise StoreRefusedError(f"{self.url} speaks TLS: write {replace(self._url, scheme='rediss')}")


def refuse_plain_for_tls(url: str) -> None:
    """Check whether a server that is silent with TLS answers without it (blocks for at most 3 s).

    Raises:
        StoreRefusedError: it does.
    """
    with contextlib.suppress(UsageError):  # a description of several servers
        parsed = parse_store_url(url)
        if parsed.scheme == "rediss" and speaks_plain(parsed.host, parsed.port, _PROBE_SECONDS):
            raise _without_tls(parsed)


def _without_tls(url: StoreUrl) -> StoreRefusedError:
    return StoreRefusedError(
        f"{url} does not speak TLS on this port: give the TLS port, or, if the network is trusted, write "
        f"{replace(url, scheme='redis')}"
    )


def _argument(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
