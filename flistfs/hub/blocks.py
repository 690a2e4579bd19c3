"""The blocks of a hub, served as a 0-db serves them: what mounts flists needs no other server.

Anybody may read. Who writes has authenticated with a token, and may put a value only under its own hash, so
that nobody can change what an flist of another is made of.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import trio

from flistfs.errors import BlockMissingError, FlistfsError
from flistfs.format.base import Block
from flistfs.format.opening import formats
from flistfs.hub.accounts import Scope
from flistfs.hub.hub import Hub
from flistfs.hub.rates import Asker, Rates
from flistfs.stores import MAX_BLOCK_SIZE, Store
from flistfs.util.closing import Closing

log = logging.getLogger(__name__)

_MAX_ARGUMENTS: Final = 1024  # as many keys as 0-db's MGET takes, and the command
_MAX_LINE: Final = 64  # a length, and what stands before it
_MAX_REQUEST: Final = 64 << 20  # bytes
_MAX_CONNECTIONS: Final = 1000
_MAX_CONNECTIONS_EACH: Final = 200  # of one address
_MAX_THREADS: Final = 16  # at work on blocks: a slow store must not take those of everything else
_AT_ONCE: Final = 64  # commands of a pipeline that are carried out together
_RECEIVED: Final = 256 << 10
_MAX_ANSWERS: Final = 64 << 20  # bytes of answers that are in memory at a time
_IDLE: Final = 600.0  # seconds

_OK: Final = b"+OK\r\n"
_NOTHING: Final = b"$-1\r\n"

# What clients tell a 0-db by.
_INFO: Final = b"# server\nserver_name: 0-db (zdb)\nserver_revision: flistfs\n"


class ProtocolError(Exception):
    """What was received is no request."""


class BlockStores(Closing):
    """The store of a hub's blocks, for the names of every format."""

    def __init__(self, hub: Hub) -> None:
        """Open the store; raises as `open_store`."""
        self._stores: dict[int, Store] = {}
        self._opened = ExitStack()
        with ExitStack() as opened:
            for each in formats():
                store = hub.open_store(each.codec)
                opened.callback(store.close)
                self._stores[len(each.codec.no_block)] = store
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close it."""
        self._opened.close()

    def check(self) -> None:
        """Reach the store; raises as `Store.check`."""
        for store in self._stores.values():
            store.check()

    def get(self, key: bytes) -> bytes | None:
        """Return a block; None if there is none."""
        store = self._of(key)
        try:
            return None if store is None else store.get(key)
        except BlockMissingError:
            return None

    def has(self, keys: Sequence[bytes]) -> int:
        """Count the blocks that are there."""
        return sum((store := self._of(key)) is not None and not store.missing([key]) for key in keys)

    def put(self, key: bytes, value: bytes) -> bool | None:
        """Store a block; return whether it was not there, None if this is not its name."""
        store = self._of(key)
        if store is None or not store.codec.has_hash(value, key):
            return None
        if not store.missing([key]):
            return False
        store.put([Block(key, b"", (value,))])
        return True

    def _of(self, key: bytes) -> Store | None:
        store = self._stores.get(len(key))
        return store if store is not None and _is_name(key) else None


def _is_name(key: bytes) -> bool:
    """Return whether a key is the hash of a block: no store is asked for others."""
    return len(key) != 64 or all(byte in b"0123456789abcdef" for byte in key)


@dataclass
class _Client:
    """What a connection may do."""

    may_write: bool = False


class BlockServer:
    """Serves the blocks of a hub."""

    def __init__(self, hub: Hub, stores: BlockStores) -> None:
        self._hub = hub
        self._stores = stores
        self._connections = 0
        self._rates = Rates(hub.settings.max_rate, _MAX_CONNECTIONS_EACH)
        self._threads = trio.CapacityLimiter(_MAX_THREADS)

    async def serve(self, listener: trio.SocketListener) -> None:
        """Serve connections until this is cancelled."""
        await trio.serve_listeners(self._serve_one, [listener])

    async def _serve_one(self, stream: trio.SocketStream) -> None:
        self._connections += 1
        try:
            with self._rates.connected(stream.socket.getpeername()[0]) as asker:
                if asker is not None and self._connections <= _MAX_CONNECTIONS:
                    await self._converse(stream, asker)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
            pass  # the client has gone
        finally:
            self._connections -= 1
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.SocketStream, asker: Asker) -> None:
        client, received = _Client(), Requests()
        while True:
            try:
                requests = received.take(_AT_ONCE)
            except ProtocolError as error:
                await stream.send_all(_error(f"Protocol error: {error}"))
                return
            if not requests:
                with trio.move_on_after(_IDLE) as scope:
                    data = await stream.receive_some(_RECEIVED)
                if scope.cancelled_caught or not data:
                    return
                received.feed(data)
                continue
            await self._rates.pay(asker, sum(max(1, len(request) - 1) for request in requests))
            is_over = await self._reply(stream, client, requests)
            if is_over:
                return

    async def _reply(
        self, stream: trio.SocketStream, client: _Client, requests: Sequence[Sequence[bytes]]
    ) -> bool:
        """Send the answers to requests; return whether the conversation is over."""
        done = 0
        while done < len(requests):
            answers = await trio.to_thread.run_sync(
                self._answers, client, requests[done:], limiter=self._threads
            )
            with trio.move_on_after(_IDLE) as scope:  # who does not read its answers is let go
                await stream.send_all(b"".join(answers))
            done += len(answers)
            if scope.cancelled_caught or requests[done - 1][0].upper() == b"QUIT":
                return True
        return False

    def _answers(self, client: _Client, requests: Sequence[Sequence[bytes]]) -> list[bytes]:
        """Return the answers to the first of the requests: as many as memory should hold at a time."""
        answers: list[bytes] = []
        size = 0
        for command, *arguments in requests:
            name = command.upper()
            try:
                answers.append(self._answer(client, name, arguments))
            except FlistfsError as error:
                log.warning("blocks: %r failed: %s", command[:20], error)
                answers.append(_error("The hub's store of blocks cannot be used"))
            size += len(answers[-1])
            if name == b"QUIT" or size > _MAX_ANSWERS:
                break
        return answers

    def _answer(self, client: _Client, name: bytes, arguments: Sequence[bytes]) -> bytes:
        match name, arguments:
            case b"PING", _:
                return b"+PONG\r\n"
            case b"INFO", _:
                return _bulk(_INFO)
            case b"QUIT", _:
                return _OK
            case b"AUTH" | b"SELECT", _:
                return self._admit(client, name, arguments)
        return self._of_blocks(client, name, arguments)

    def _admit(self, client: _Client, name: bytes, arguments: Sequence[bytes]) -> bytes:
        """Answer what a client says of itself, and where it wants to be."""
        match name, arguments:
            case (b"AUTH", [token]) | (b"SELECT", [b"default" | b"0", token]):
                known = self._hub.accounts.token(token.decode(errors="surrogateescape"))
                client.may_write = known is not None and known.scope.allows(Scope.WRITE)
                return _OK if client.may_write else _error("Access denied")
            case b"SELECT", [b"default" | b"0"]:
                return _OK
            case b"SELECT", [_] | [_, _]:
                return _error("Namespace not found")
        return _error("Invalid argument")

    def _of_blocks(self, client: _Client, name: bytes, arguments: Sequence[bytes]) -> bytes:
        match name, arguments:
            case b"GET", [key]:
                return _bulk(self._stores.get(key))
            case b"MGET", [_, *_]:
                return self._several(arguments)
            case b"EXISTS", [_, *_]:
                return b":%d\r\n" % self._stores.has(arguments)
            case b"SET", [key, value]:
                return self._set(client, key, value)
            case b"GET" | b"MGET" | b"EXISTS" | b"SET", _:
                return _error("Invalid argument")
        return _error("Command not supported")

    def _several(self, keys: Sequence[bytes]) -> bytes:
        found: list[bytes] = []
        size = 0
        for key in keys:
            found.append(_bulk(self._stores.get(key)))
            size += len(found[-1])
            if size > _MAX_ANSWERS:
                return _error("Payload too big")
        return b"*%d\r\n%b" % (len(found), b"".join(found))

    def _set(self, client: _Client, key: bytes, value: bytes) -> bytes:
        if not client.may_write and not self._hub.settings.is_open:
            return _error("Authentication required")
        if len(value) > MAX_BLOCK_SIZE:
            return _error("Payload too big")
        is_new = self._stores.put(key, value)
        if is_new is None:
            return _error("Invalid key, it is not the hash of the value")
        return _bulk(key if is_new else None)  # as 0-db answers


class Requests:
    """Requests as they arrive: arrays of byte strings (RESP2)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what has arrived."""
        self._buffer += data

    def take(self, most: int) -> list[list[bytes]]:
        """Return the requests that are complete, up to a number; raises `ProtocolError` for what is none."""
        found: list[list[bytes]] = []
        at = 0
        while len(found) < most and (request := self._parse(at)) is not None:
            arguments, at = request
            if arguments:
                found.append(arguments)
        del self._buffer[:at]
        if not found and len(self._buffer) > _MAX_REQUEST:
            raise ProtocolError("too big a request")
        return found

    def _parse(self, at: int) -> tuple[list[bytes], int] | None:
        head = self._number(at, b"*", _MAX_ARGUMENTS)
        if head is None:
            return None
        count, at = head
        arguments = []
        for _ in range(count):
            length = self._number(at, b"$", MAX_BLOCK_SIZE + (1 << 20))
            if length is None:
                return None
            size, at = length
            if len(self._buffer) < at + size + 2:
                return None
            if self._buffer[at + size : at + size + 2] != b"\r\n":
                raise ProtocolError("a string does not end where it should")
            arguments.append(bytes(self._buffer[at : at + size]))
            at += size + 2
        return arguments, at

    def _number(self, at: int, kind: bytes, most: int) -> tuple[int, int] | None:
        """Return the number of a line, and where the next begins; None if it is not whole yet."""
        end = self._buffer.find(b"\r\n", at, at + _MAX_LINE)
        start = self._buffer[at : at + 1]
        if start and start != kind:
            raise ProtocolError(f"expected '{kind.decode()}'")
        if end < 0:
            if len(self._buffer) - at >= _MAX_LINE:
                raise ProtocolError("too long a line")
            return None
        digits = bytes(self._buffer[at + 1 : end])
        if not digits.isdigit() or len(digits) > 9 or int(digits) > most:
            raise ProtocolError("invalid length")
        return int(digits), end + 2


def _bulk(value: bytes | None) -> bytes:
    return _NOTHING if value is None else b"$%d\r\n%b\r\n" % (len(value), value)


def _error(text: str) -> bytes:
    return b"-" + text.encode() + b"\r\n"
