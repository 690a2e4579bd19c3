"""The Redis protocol (RESP2) on a connected socket: buffers out, bounded replies in.

redis-py's sending and reading do not suit blocks:

- it sends one buffer per system call, or joins them first. `sendmsg` takes all buffers of a batch at once: on
  the codec's own two cores plain `SET` calls kept 0.51 to 0.57 of the codec's speed, `send_packed_command`
  0.71 to 0.73, `sendmsg` 0.75 to 0.88.
- neither of its parsers bounds a reply, so a hostile server could exhaust memory. A parser of the few kinds
  of reply that matter here fits on a page, and reading the value straight into its final place is no slower.
- ARDB and 0-db never set TCP_NODELAY: without a TCP_QUICKACK before each read a pipeline stalls 40 ms.
"""

from __future__ import annotations

import io
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from typing_extensions import Buffer

_IOV_MAX: Final = 1024  # UIO_MAXIOV in Linux; sendmsg refuses more
_MAX_LINE: Final = 4096  # bytes; real one-line replies are below 200
_READ_SIZE: Final = 64 * 1024
_KINDS: Final = frozenset({b"+", b"-", b":", b"$"})


class ErrorReply(Exception):  # noqa: N818 - a reply, in the words of the protocol
    """The server answered with an error, whose text is the only argument."""


class InvalidReply(Exception):  # noqa: N818
    """The server sent something that the protocol does not allow here."""


class Status(str):
    """A one-line reply such as OK; values are `bytes`."""

    __slots__ = ()


Reply = Status | int | bytes | None


@dataclass(frozen=True, slots=True)
class _Link:
    """A socket and its time limits. Separate from `Wire`, so that no cycle keeps read buffers alive."""

    sock: socket.socket
    silence: float
    deadline: float

    def ready(self) -> socket.socket:
        """Set the time limit of the next system call, and return the socket for it."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the exchange takes too long")
        self.sock.settimeout(min(left, self.silence))
        return self.sock


class Wire:
    """One exchange on a socket: everything is sent, then every reply is read, then `finish()`.

    `silence` is how many seconds a single send or read may take, `deadline` the time on the monotonic clock
    by which all must be done, so that a server that trickles can't block a thread forever. Both end with a
    TimeoutError. After any exception the connection is in an unknown state: drop it.
    """

    def __init__(self, sock: socket.socket, *, silence: float, deadline: float) -> None:
        self._link = _Link(sock, silence, deadline)
        self._incoming = _Incoming(self._link)
        self._replies = io.BufferedReader(self._incoming, _READ_SIZE)
        self.has_answered = False
        """Whether the beginning of a valid reply arrived."""

    def send(self, buffers: Sequence[bytes]) -> None:
        """Send the buffers one after the other, without joining them."""
        views = [memoryview(buffer) for buffer in buffers if buffer]
        if isinstance(self._link.sock, ssl.SSLSocket):  # has no sendmsg; encrypting copies anyway
            for view in views:
                self._send_encrypted(view)
            return
        for start in range(0, len(views), _IOV_MAX):
            self._send_some(views[start : start + _IOV_MAX])

    def _send_some(self, views: list[memoryview]) -> None:
        first = 0
        while first < len(views):
            sent = self._link.ready().sendmsg(views[first:])
            while first < len(views) and sent >= views[first].nbytes:
                sent -= views[first].nbytes
                first += 1
            if sent:
                views[first] = views[first][sent:]

    def _send_encrypted(self, view: memoryview) -> None:
        while view:
            view = view[self._link.ready().send(view) :]

    def reply(self, limit: int = _MAX_LINE) -> Reply:
        """Read one reply; a value larger than `limit` bytes is an InvalidReply and is not read.

        Raises `ErrorReply`, `InvalidReply`, TimeoutError, and ConnectionError if the server hung up.
        """
        line = self._line()
        kind, rest = line[:1], line[1:]
        self.has_answered |= kind in _KINDS
        if kind == b"+":
            return Status(rest.decode("utf-8", "replace"))
        if kind == b"-":
            raise ErrorReply(rest.decode("utf-8", "replace"))
        if kind == b":":
            return _number(rest)
        if kind == b"$":
            return self._value(_number(rest), limit)
        raise InvalidReply(f"a reply that starts with {kind!r}")

    def finish(self) -> None:
        """Check that the server has sent nothing beyond the expected replies."""
        self._incoming.over = True
        if self._replies.peek(1):
            raise InvalidReply("more replies than commands")

    def _line(self) -> bytes:
        line = self._replies.readline(_MAX_LINE)
        if line.endswith(b"\r\n"):
            return line[:-2]
        if line.endswith(b"\n") or len(line) == _MAX_LINE:
            raise InvalidReply("a line that never ends properly")
        raise ConnectionResetError("the server hung up")

    def _value(self, size: int, limit: int) -> bytes | None:
        if size == -1:
            return None
        if not 0 <= size <= limit:
            raise InvalidReply(f"a value of {size} bytes where at most {limit} are expected")
        value = self._replies.read(size)
        end = self._replies.read(2)
        if len(value) < size or len(end) < 2:
            raise ConnectionResetError("the server hung up in the middle of a value")
        if end != b"\r\n":
            raise InvalidReply("a value that is longer than announced")
        return value


class _Incoming(io.RawIOBase):
    """The socket as the raw stream of a BufferedReader, with a time limit and quick ACKs."""

    def __init__(self, link: _Link) -> None:
        self._link = link
        self.over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int | None:
        if self.over:
            return None  # "nothing now", so that a peek sees only what is buffered already
        sock = self._link.ready()
        # Not sticky: the kernel leaves this mode by itself, so it is set before every read.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return sock.recv_into(buffer)


def command(*words: bytes) -> bytes:
    """Encode a command as an array of values."""
    parts = [b"*%d\r\n" % len(words)]
    parts.extend(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    return b"".join(parts)


def set_commands(pairs: Iterable[tuple[bytes, Sequence[bytes]]]) -> list[bytes]:
    """Encode one SET for each (key, parts of the value); the parts stay separate buffers."""
    buffers: list[bytes] = []
    end = b""  # of the previous value: saves a buffer for each block
    for key, parts in pairs:
        size = sum(map(len, parts))
        buffers.append(b"%b*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (end, len(key), key, size))
        buffers.extend(parts)
        end = b"\r\n"
    buffers.append(end)
    return buffers


def _number(text: bytes) -> int:
    # int() would accept spaces, underscores and thousands of digits.
    digits = text.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 19:
        raise InvalidReply("an invalid number")
    return int(text)
