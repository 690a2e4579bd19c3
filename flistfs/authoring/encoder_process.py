"""An encoder in a process of its own, so that encoding and sending leave the daemon's interpreter alone.

In threads of the daemon they made every request of the kernel wait for the interpreter: handlers of
`create`, `write` and `release` took 150 µs a file alone and 350 µs beside uploads (12 KB files, 2 cores).

The process shares the spool file and talks over a socket: it is told its `Settings`, then batches. It ends
when the other end goes, however that dies. One that was killed is started again by the next batch.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from flistfs.authoring.encoder import Batch, LocalEncoder, Source
from flistfs.authoring.known import KnownBlocks
from flistfs.errors import StoreError, StoreUnavailableError
from flistfs.stores import open_store

# Processes at most. The second is started only when the first is busy: many small files need just one.
_PROCESSES = 2

# Seconds for a process that has nothing to do to end by itself.
_PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Settings:
    """Where chunks go; handed over the socket, so that the password shows nowhere.

    What the process logs goes to the file `log`, or to standard error.
    """

    store: str
    password: str | None = field(repr=False)
    known: Path | None = None
    log: Path | None = None


class EncoderProcess:
    """An `Encoder` that has a process do the work."""

    def __init__(self, settings: Settings, spool: int) -> None:
        """Start a process for the first batch; `spool` is the spool file's descriptor."""
        self._settings = settings
        self._spool = spool
        self._lock = threading.Lock()  # of what `close` and a restart in another thread both change
        self._closed = False
        self._running: tuple[subprocess.Popen[bytes], Connection] | None = None

    def start(self) -> None:
        """Start the process now, so that the first batch need not wait for it (about 0.2 s)."""
        self._connect()

    def store(self, sources: Sequence[Source]) -> Batch:
        """Do what `Encoder` says.

        Raises:
            StoreUnavailableError: the process has ended; the next call starts another.
        """
        try:
            connection = self._connect()
            connection.send(sources)
            answer = connection.recv()
        except (EOFError, OSError, pickle.PickleError) as error:
            self._stop()
            raise StoreUnavailableError("the process that encodes has ended; starting another") from error
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, Batch)  # noqa: S101  the type checker's
        return answer

    def close(self) -> None:
        """End the process, whatever it does."""
        with self._lock:
            self._closed = True
        self._stop()

    def _connect(self) -> Connection:
        with self._lock:
            if self._closed:
                raise EOFError
            if self._running is None:
                self._running = _start(self._settings, self._spool)
            return self._running[1]

    def _stop(self) -> None:
        with self._lock:
            running, self._running = self._running, None
        if running is None:
            return
        process, connection = running
        # A thread that waits for an answer keeps the socket open until the process is gone.
        with suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as end:
            end.shutdown(socket.SHUT_RDWR)
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        with suppress(OSError):
            connection.close()


def make_encoders(settings: Settings, spool: int) -> list[EncoderProcess]:
    """Make as many encoders as keep two cores busy, the first of them started."""
    encoders = [EncoderProcess(settings, spool) for _ in range(_PROCESSES)]
    encoders[0].start()
    return encoders


def _start(settings: Settings, spool: int) -> tuple[subprocess.Popen[bytes], Connection]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            # -P: the directory that the user happens to be in must not be searched for modules.
            [
                sys.executable,
                "-P",
                "-m",
                "flistfs.authoring.encoder_process",
                str(theirs.fileno()),
                str(spool),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno(), spool],
            cwd="/",
        )
        connection = Connection(ours.detach())
    connection.send(settings)
    return process, connection


def _serve(connection: Connection, spool: int) -> None:
    settings: Settings = connection.recv()
    logging.basicConfig(
        filename=settings.log, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    store = open_store(settings.store, settings.password)
    encoder = LocalEncoder(store, spool, KnownBlocks(settings.known))
    while True:
        sources = connection.recv()
        connection.send(_answer(encoder, sources))


def _answer(encoder: LocalEncoder, sources: Sequence[Source]) -> Batch | Exception:
    try:
        return encoder.store(sources)
    except StoreError as error:
        return type(error)(str(error))
    except Exception as error:  # the other side tells the user, and tries again
        logging.getLogger(__name__).exception("storing %d chunks failed", len(sources))
        return RuntimeError(f"{type(error).__name__}: {error}")


def main(arguments: Sequence[str]) -> NoReturn:
    """Serve until the other end goes. Arguments: the descriptors of the socket and of the spool."""
    # Ctrl-C in a terminal is for the process that started this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection: Any = Connection(int(arguments[0]))
    with suppress(EOFError, ConnectionError):
        _serve(connection, int(arguments[1]))
    sys.exit()


if __name__ == "__main__":
    main(sys.argv[1:])
