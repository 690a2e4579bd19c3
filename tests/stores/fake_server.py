"""A server that says what it is told to, and remembers every command that it was sent."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Hangup:
    """Send these bytes, then close the connection."""

    last: bytes = b""


Answer = bytes | Hangup | None  # None: say nothing and go on listening


@dataclass(slots=True)
class FakeServer:
    """`commands` holds what was received, `connections` how many there were."""

    script: Callable[[list[bytes]], Answer]
    listener: socket.socket
    commands: list[list[bytes]] = field(default_factory=list)
    connections: int = 0
    sockets: list[socket.socket] = field(default_factory=list)

    @property
    def port(self) -> int:
        number: int = self.listener.getsockname()[1]
        return number

    @property
    def names(self) -> list[bytes]:
        """The first word of each command."""
        return [words[0] for words in self.commands]

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                self.connections += 1
                self.sockets.append(client)
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError, ValueError), client, client.makefile("rb") as incoming:
            while words := _command(incoming):
                self.commands.append(words)
                answer = self.script(words)
                if isinstance(answer, Hangup):
                    client.sendall(answer.last)
                    client.shutdown(socket.SHUT_RDWR)
                    return
                if answer is not None:
                    client.sendall(answer)


def _command(incoming: BinaryIO) -> list[bytes]:
    head = incoming.readline()
    if not head:
        return []
    if not head.startswith(b"*"):
        raise ValueError(head)  # a client that tries TLS, say
    words = []
    for _ in range(int(head[1:])):
        size = int(incoming.readline()[1:])
        words.append(incoming.read(size))
        if incoming.read(2) != b"\r\n":
            raise EOFError("the client gave up in the middle of a command")
    return words


@contextlib.contextmanager
def fake_server(script: Callable[[list[bytes]], Answer]) -> Iterator[FakeServer]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = FakeServer(script, listener)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        yield server
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        for client in server.sockets:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        thread.join(60)
        assert not thread.is_alive()


class Shelf:
    """A script: a well-behaved server with a dictionary; 0-db's replies with `zdb`."""

    def __init__(self, *, zdb: bool = False) -> None:
        self.values: dict[bytes, bytes] = {}
        self.zdb = zdb

    def __call__(self, words: list[bytes]) -> Answer:
        match words:
            case [b"PING"]:
                return b"+PONG\r\n"
            case [b"INFO"]:
                return bulk(
                    b"# Server\r\nserver_name: 0-db (zdb)\r\n" if self.zdb else b"ardb_version:0.10.0\r\n"
                )
            case [b"AUTH", _] | [b"SELECT", _]:
                return b"+OK\r\n"
            case [b"EXISTS", key]:
                return b":%d\r\n" % (key in self.values)
            case [b"GET", key]:
                return bulk(self.values.get(key))
            case [b"SET", key, value]:
                return self._set(key, value)
            case _:  # as ARDB does
                return Hangup(b"-ERR unknown command:%b\r\n" % words[0].lower())

    def _set(self, key: bytes, value: bytes) -> bytes:
        same = self.values.get(key) == value
        self.values[key] = value
        if self.zdb:
            return bulk(None if same else key)
        return b"+OK\r\n"


def bulk(value: bytes | None) -> bytes:
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)
