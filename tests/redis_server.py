"""A real redis-server for a test, on a port of its own and in a directory of its own."""

from __future__ import annotations

import contextlib
import os
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
    directory: Path
    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def url(self) -> str:
        secret = f":{self.password}@" if self.password else ""
        return f"redis://{secret}127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, or start it again after `stop` or `kill`, and wait until it answers."""
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), *self.arguments],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"redis-server did not start:\n{(self.directory / 'log').read_text()}")
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


@dataclass(slots=True)
class RedisCluster:
    """Three redis-servers that share the slots; `url` names the first."""

    servers: list[RedisServer]

    @property
    def url(self) -> str:
        return self.servers[0].url.replace("redis://", "redis+cluster://")

    def name(self, number: int) -> str:
        """What a server is called by the others."""
        return bulk_reply(self.servers[number].command("CLUSTER", "MYID")).decode()

    def owner(self, key: bytes) -> tuple[int, int]:
        """Return the slot of a key, and the number of the server that has it."""
        slot = int(self.servers[0].command("CLUSTER", "KEYSLOT", key.decode())[1:])
        moved = (server.command("EXISTS", key.decode()) for server in self.servers)
        return slot, next(number for number, reply in enumerate(moved) if reply.startswith(b":"))


def bulk_reply(reply: bytes) -> bytes:
    """Take the value out of a reply that is one."""
    assert reply.startswith(b"$"), reply
    return reply.partition(b"\r\n")[2][:-2]


@contextlib.contextmanager
def running_cluster(password: str | None = None) -> Iterator[RedisCluster]:
    """Run a Redis Cluster of three until the block ends."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(running_cluster_server(password)) for _ in range(3)]
        addresses = [f"127.0.0.1:{server.port}" for server in servers]
        done = subprocess.run(
            ["redis-cli", "--cluster", "create", *addresses, "--cluster-yes"],
            env={**os.environ, **({"REDISCLI_AUTH": password} if password else {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        deadline = time.monotonic() + _START_SECONDS
        while any(b"cluster_state:ok" not in server.command("CLUSTER", "INFO") for server in servers):
            assert time.monotonic() < deadline, "the cluster does not come to be"
            time.sleep(0.05)
        yield RedisCluster(servers)


def running_cluster_server(
    password: str | None = None,
) -> contextlib.AbstractContextManager[RedisServer]:
    """Run a server that may become one of a cluster until the block ends."""
    # A short time-out, so that what happens when a server is gone does so within a test.
    options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
    secret = ["--masterauth", password] if password else []
    # The usual port for the others is 10,000 higher, which not every free port has above it.
    port = ["--cluster-port", str(free_port())]
    return running_redis(*options, *secret, *port, password=password, databases=1)


@contextlib.contextmanager
def running_redis(
    *extra_args: str, password: str | None = None, databases: int = 16
) -> Iterator[RedisServer]:
    """Run a redis-server until the block ends; without persistence unless `extra_args` ask for it."""
    arguments = ["--save", "", "--appendonly", "no", "--databases", str(databases)]
    if password:
        arguments += ["--requirepass", password]
    with tempfile.TemporaryDirectory(prefix="flistfs-redis-") as directory:
        server = _started(Path(directory), password, (*arguments, *extra_args))
        try:
            yield server
        finally:
            server.stop()


def _started(directory: Path, password: str | None, arguments: tuple[str, ...]) -> RedisServer:
    server = RedisServer(free_port(), password, directory, arguments)
    for _ in range(_TRIES - 1):
        with contextlib.suppress(RuntimeError):
            server.start()
            return server
        server.port = free_port()
    server.start()
    return server
