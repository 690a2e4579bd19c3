"""A real redis-server for a test, on a port of its own and in a folder of its own."""

from __future__ import annotations

import contextlib
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

_START_SECONDS = 15.0


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
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"redis-server did not start:\n{(self.folder / 'log').read_text()}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Ask it to end, and see that it has."""
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it on the spot, as a crash would."""
        self.process.kill()
        self.process.wait(10)

    def hang(self) -> None:
        """Stop it from running: connections stay open and nothing is answered."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on after `hang`."""
        self.process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """Send one command past the code under test and return the raw reply (up to 64 KiB)."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as plain:
            if self.password:
                plain.sendall(_spelled(("AUTH", self.password)))
                assert plain.recv(64) == b"+OK\r\n"
            plain.sendall(_spelled(words))
            return plain.recv(65536)

    def _answers(self) -> bool:
        # A server that loads its file says LOADING, one with a password NOAUTH: the latter is ready.
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), timeout=2) as plain,
        ):
            plain.sendall(_spelled(("PING",)))
            return plain.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        return False


def _spelled(words: tuple[str, ...]) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w.encode()), w.encode()) for w in words)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def running_redis(*extra_args: str, password: str | None = None) -> Iterator[RedisServer]:
    """Run a redis-server until the block ends; without persistence unless `extra_args` ask for it."""
    arguments = ["--save", "", "--appendonly", "no", "--databases", "16"]
    if password:
        arguments += ["--requirepass", password]
    with tempfile.TemporaryDirectory(prefix="flistfs-redis-") as folder:
        server = RedisServer(free_port(), password, Path(folder), (*arguments, *extra_args))
        server.start()
        try:
            yield server
        finally:
            server.stop()
