"""A real redis-server for a test, on a port of its own and in a folder of its own."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_START_SECONDS = 60.0

# Below the ports that Linux gives to whoever asks for any (32768 and up): of these nobody takes one by chance
# while a server is down, and a client that finds nobody there is not connected to itself.
_PORTS = range(10_000, 32_768)

# Ports that are tried: several test processes may choose the same at the same time.
_TRIES = 5


@dataclass(slots=True)
class RedisServer:
    """A redis-server on 127.0.0.1; `url` carries the password, if there is one."""

    port: int
    password: str | None
    folder: Path
    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, or start it again after `stop` or `kill`, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), *self.arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"redis-server did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Ask it to end, and see that it has."""
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(_START_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it on the spot, as a crash would."""
        self.process.kill()
        self.process.wait(_START_SECONDS)

    def hang(self) -> None:
        """Stop it from running: connections stay open and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on after `hang`."""
        self.process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """Send one command past the code under test and return the raw reply (up to 64 KiB)."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=_START_SECONDS) as plain:
            if self.password:
                plain.sendall(_spelled(("AUTH", self.password)))
                assert plain.recv(64) == b"+OK\r\n"
            plain.sendall(_spelled(words))
            return plain.recv(65536)

    def _is_ready(self) -> bool:
        """Say whether it answers, and itself at that: another server may have got the port first."""
        with contextlib.suppress(OSError, AssertionError):
            itself = b"process_id:%d\r\n" % self.process.pid in self.command("INFO", "server")
            return itself and self.command("PING") == b"+PONG\r\n"  # else it still loads its file
        return False


def _spelled(words: tuple[str, ...]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w.encode()), w.encode()) for w in words)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at the moment."""
    while True:
        port = random.SystemRandom().choice(_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def running_redis(*extra_args: str, password: str | None = None) -> Iterator[RedisServer]:
    """Run a redis-server until the block ends; without persistence unless `extra_args` ask for it."""
    arguments = ["--save", "", "--appendonly", "no", "--databases", "16"]
    if password:
        arguments += ["--requirepass", password]
    with tempfile.TemporaryDirectory(prefix="flistfs-redis-") as folder:
        server = _started(Path(folder), password, (*arguments, *extra_args))
        try:
            yield server
        finally:
            server.stop()


def _started(folder: Path, password: str | None, arguments: tuple[str, ...]) -> RedisServer:
    server = RedisServer(free_port(), password, folder, arguments)
    for _ in range(_TRIES - 1):
        with contextlib.suppress(RuntimeError):
            server.start()
            return server
        server.port = free_port()
    server.start()
    return server
