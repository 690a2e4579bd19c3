"""A pool of connections to one server, each lent to one thread at a time, and made within a deadline.

A deadline is a time on the monotonic clock. It covers the whole exchange: waiting for a free connection,
connecting, the TLS handshake, the password. redis-py's connections have a time limit for each of these, and
one for each `recv`, so that a server that trickles could block a reader for minutes.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_CONNECTIONS: Final = 16
"""If there are more threads, they take turns; a handful saturates any server."""

CONNECT_TIMEOUT: Final = 10.0
"""Seconds to connect, and again for a TLS handshake: Linux resends a lost SYN after 1, 3 and 7."""

_PING: Final = b"*1\r\n$4\r\nPING\r\n"


class Connections:
    """A pool of connections to a server; idle ones are kept for reuse."""

    def __init__(self, host: str, port: int, *, tls: bool, silence: float) -> None:
        """Connect on demand; `silence` is how many seconds a server may take for each step."""
        self._host = host
        self._port = port
        self._tls = tls
        self._silence = min(silence, CONNECT_TIMEOUT)
        self._context: ssl.SSLContext | None = None  # loading the system's certificates takes 20 ms
        self._turns = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._lock = threading.Lock()  # guards the attributes below
        self._idle: list[socket.socket] = []
        weakref.finalize(self, _close_all, self._idle).atexit = False  # of a store that was never closed
        self._used: set[socket.socket] = set()
        self._closed = False

    @contextlib.contextmanager
    def lent(self, deadline: float, greet: Callable[[socket.socket, float], None]) -> Iterator[socket.socket]:
        """Lend a connection; any error closes it. `greet` is called for each new one.

        Raises:
            TimeoutError: none was free by the deadline.
            OSError: the server cannot be reached.
        """
        if not self._turns.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise TimeoutError("all connections are in use")
        try:
            sock = self._idle_one() or self._connect(deadline, greet)
            try:
                yield sock
            except BaseException:
                self._drop(sock)
                raise
            self._give_back(sock)
        finally:
            self._turns.release()

    def close(self) -> None:
        """Close all connections; threads that use one get an error."""
        with self._lock:
            self._closed = True
            for sock in self._used:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown, which would drop the session while another thread uses it.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
            _close_all(self._idle)

    def _idle_one(self) -> socket.socket | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                sock = self._idle.pop()
                self._used.add(sock)
            if not _is_readable(sock):
                return sock
            self._drop(sock)

    def _connect(self, deadline: float, greet: Callable[[socket.socket, float], None]) -> socket.socket:
        sock = reach(self._host, self._port, deadline, self._silence)
        try:
            if self._tls:
                sock.settimeout(seconds_left(deadline, self._silence))
                self._context = self._context or ssl.create_default_context()
                sock = self._context.wrap_socket(sock, server_hostname=self._host)
            self._use(sock)
            greet(sock, deadline)
        except BaseException:
            self._drop(sock)
            raise
        return sock

    def _use(self, sock: socket.socket) -> None:
        with self._lock:
            if self._closed:
                raise ConnectionAbortedError("the store was closed")
            self._used.add(sock)

    def _give_back(self, sock: socket.socket) -> None:
        with self._lock:
            self._used.discard(sock)
            if not self._closed:
                self._idle.append(sock)
                return
        sock.close()

    def _drop(self, sock: socket.socket) -> None:
        with self._lock:
            self._used.discard(sock)
        sock.close()


def _close_all(sockets: list[socket.socket]) -> None:
    while sockets:
        sockets.pop().close()


def reach(host: str, port: int, deadline: float, silence: float) -> socket.socket:
    """Connect to the first address of a host that answers within `silence` seconds.

    Raises:
        OSError: none does; a TimeoutError if the deadline passed.
    """
    failure: OSError = OSError("the host has no address")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(seconds_left(deadline, silence))
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            sock.close()
            failure = error
        else:
            return sock
    raise failure


def seconds_left(deadline: float, most: float) -> float:
    """Return the seconds until a deadline, but at most `most`.

    Raises:
        TimeoutError: it has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the exchange takes too long")
    return min(left, most)


def speaks_tls(host: str, port: int, seconds: float) -> bool:
    """Return whether a server answers a TLS handshake, whatever its certificate; no data is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with reach(host, port, time.monotonic() + seconds, seconds) as sock:
            sock.settimeout(seconds)
            context.wrap_socket(sock, server_hostname=host).close()
    except OSError:
        return False
    return True


def speaks_plain(host: str, port: int, seconds: float) -> bool:
    """Return whether a server answers a PING without TLS, even with an error."""
    try:
        with reach(host, port, time.monotonic() + seconds, seconds) as sock:
            sock.settimeout(seconds)
            sock.sendall(_PING)
            return sock.recv(1) in {b"+", b"-"}
    except OSError:
        return False


def _is_readable(sock: socket.socket) -> bool:
    """Return whether an idle connection has anything to read, which means that the server closed it."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
