"""A TCP proxy in front of a redis-server, whose faults are switched on and off while it runs."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import BinaryIO, Self

_HOST = "127.0.0.1"

# Replies that servers give to a SET which they do not take.
LOADING = b"-LOADING Redis is loading the dataset in memory\r\n"
OOM = b"-OOM command not allowed when used memory > 'maxmemory'.\r\n"
READONLY = b"-READONLY You can't write against a read only replica.\r\n"
NOAUTH = b"-NOAUTH Authentication required.\r\n"


@dataclass(slots=True)
class Faults:
    """What is wrong with the server, as its clients see it.

    Attributes:
        delay: Seconds before each reply.
        cut_every: Every so many replies half of one is sent, and then the connection is cut; 0 for never.
        refusal: The reply to each SET, which the server does not get.
        is_lying: Each SET is answered with OK, and the server does not get it.
    """

    delay: float = 0
    cut_every: int = 0
    refusal: bytes | None = None
    is_lying: bool = False


class Proxy:
    """Stands between clients and the server on a port of 127.0.0.1; to be used in a `with` block.

    Each connection has a thread, which forwards one command after the other and waits for its reply: replies
    that the proxy makes itself keep their places among the others in a pipeline.
    """

    def __init__(self, server_port: int) -> None:
        self.faults = Faults()
        self._server_port = server_port
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._replies = count(1)
        self._is_up = False
        self._moving = threading.Event()
        self._moving.set()
        self._listener = _bound(0)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"redis://{_HOST}:{self.port}"

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_up = False
        self._moving.set()
        _shut(self._listener)
        self.disconnect()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        self._listener.close()

    def heal(self) -> None:
        """Be a good server again; one that is down stays down."""
        self.faults = Faults()
        self._moving.set()

    def stall(self) -> None:
        """Forward nothing in either direction until `heal`; connections are taken and stay open."""
        self._moving.clear()

    def disconnect(self) -> None:
        """Cut all connections, wherever they are."""
        with self._lock:
            for one in self._sockets:
                _shut(one)

    def go_down(self) -> None:
        """Cut all connections and refuse new ones."""
        self._is_up = False
        _shut(self._listener)
        self._listener.close()
        # Bound and not listening, a socket refuses connections, and nobody else gets the port meanwhile.
        self._listener = _bound(self.port)
        self.disconnect()

    def come_back(self) -> None:
        """Take connections again."""
        self._listen()

    def _listen(self) -> None:
        self._is_up = True
        self._listener.listen()
        self._start(threading.Thread(target=self._accept, args=(self._listener,)))

    def _start(self, thread: threading.Thread) -> None:
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                self._start(threading.Thread(target=self._serve, args=(client,)))

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), self._known(client):
            server = socket.create_connection((_HOST, self._server_port), timeout=60)
            server.settimeout(None)
            with (
                self._known(server),
                client.makefile("rb") as commands,
                server.makefile("rb") as replies,
            ):
                while command := _read(commands):
                    self._moving.wait()
                    self._reply(client, self._answer(command, server, replies))

    @contextlib.contextmanager
    def _known(self, one: socket.socket) -> Iterator[None]:
        """Let a socket be cut from outside, until it is closed."""
        with one:
            with self._lock:
                self._sockets.add(one)
            try:
                if not self._is_up:
                    raise EOFError
                yield
            finally:
                with self._lock:
                    self._sockets.discard(one)
                _shut(one)

    def _answer(self, command: bytes, server: socket.socket, replies: BinaryIO) -> bytes:
        if command.startswith(b"*3\r\n$3\r\nSET\r\n"):
            if self.faults.refusal is not None:
                return self.faults.refusal
            if self.faults.is_lying:
                return b"+OK\r\n"
        server.sendall(command)
        if reply := _read(replies):
            return reply
        raise EOFError

    def _reply(self, client: socket.socket, reply: bytes) -> None:
        faults = self.faults
        if faults.delay:
            threading.Event().wait(faults.delay)
        self._moving.wait()
        if faults.cut_every and next(self._replies) % faults.cut_every == 0:
            client.sendall(reply[: len(reply) // 2])
            raise EOFError
        client.sendall(reply)


def _bound(port: int) -> socket.socket:
    """A socket that has a port."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((_HOST, port))
    return one


def _shut(one: socket.socket) -> None:
    """End what others wait for on a socket."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


def _read(stream: BinaryIO) -> bytes:
    """One command or reply, as it was sent; empty at the end."""
    line = stream.readline()
    size = int(line[1:]) if line[:1] in {b"*", b"$"} else -1
    if size < 0:
        return line
    if line[:1] == b"*":
        return b"".join([line, *(_read(stream) for _ in range(size))])
    value = stream.read(size + 2)
    if len(value) < size + 2:
        raise EOFError
    return line + value
