"""An encoder in a process of its own, so that encoding and sending leave the daemon's interpreter alone.

In threads of the daemon they made every request of the kernel wait for the interpreter: handlers of
`create`, `write` and `release` took 150 µs a file alone and 350 µs beside uploads (12 KB files, 2 cores).

The process shares the spool file and talks over a socket: it is told its `Settings`, then batches. It ends
when the other end goes, however that dies. A program forks its encoders with `prepare` while it has one
thread, which costs 2 ms each; otherwise, and in place of one that was killed, a process is started from
nothing, which costs 0.3 s of a core.
"""

from __future__ import annotations

import ctypes
import logging
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing import reduction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Protocol

from flistfs.authoring.upload.encoder import Batch, LocalEncoder
from flistfs.authoring.upload.known_blocks import KnownBlocks
from flistfs.errors import StoreError, StoreUnavailableError
from flistfs.format.base import Codec
from flistfs.format.opening import format_named
from flistfs.sources.data import Source
from flistfs.stores import open_store
from flistfs.util.logs import with_format

# Processes at most. The second is started only when the first is busy: many small files need just one.
_PROCESSES = 3

# Seconds for a process that has nothing to do to end by itself.
_PATIENCE = 1.0

_NOT_STARTED = "the process that encodes cannot be started"

# Of what a process says that cannot start, so much is read, in bytes.
_LAST_WORDS = 1 << 16

# malloc.h: from which size on memory comes straight from the system, and how much that is free is kept.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

# Larger than any buffer of a chunk, and than what a batch needs in all; in bytes.
_LARGEST_BUFFER = 4 << 20
_KEPT_MEMORY = 32 << 20


@dataclass(frozen=True, slots=True)
class Settings:
    """Where chunks go, and in which format; handed over the socket, so that the password shows nowhere.

    `known` is the user's database of known blocks; without `log`, what is logged goes to standard error.
    """

    store: str
    format: str
    password: str | None = field(repr=False)
    known: Path | None = None
    log: Path | None = None


class EncoderProcess:
    """An `Encoder` that has a process do the work."""

    def __init__(self, settings: Settings, spool: int, spares: SpareProcesses) -> None:
        """Take a process for the first batch; `spool` is the spool file's descriptor."""
        self._settings = settings
        self._spool = spool
        self._spares = spares
        self._lock = threading.Lock()  # of what `close` and a restart in another thread both change
        self._closed = False
        self._running: _Running | None = None

    def start(self) -> None:
        """Start the process now, so that the first batch need not wait for it."""
        with suppress(OSError):  # the first batch will tell
            self._connect()

    def store(self, sources: Sequence[Source], *, check_content: bool = False) -> Batch:
        """Do what `Encoder` says.

        Raises:
            StoreUnavailableError: the process has ended or cannot be started; the next call starts another.
        """
        try:
            connection = self._connect()
            connection.send((sources, check_content))
            answer = connection.recv()
        except (EOFError, OSError, pickle.PickleError) as error:
            answer = self._why_gone(error)
        if isinstance(answer, str):  # why there is no process
            self._stop()
            raise StoreUnavailableError(answer)
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
                self._running = self._spares.take()
                self._running.connection.send(self._settings)
                reduction.send_handle(self._running.connection, self._spool, self._running.process.pid)
            return self._running.connection

    def _why_gone(self, error: Exception) -> str:
        """Return why there is no process: an error kept it from starting, or it has ended."""
        with self._lock:
            running = self._running
        if running is None and isinstance(error, OSError):
            return f"{_NOT_STARTED}: {error}"
        said = None if running is None else _last_words(running)
        return said or "the process that encodes has ended; starting another"

    def _stop(self) -> None:
        with self._lock:
            running, self._running = self._running, None
        if running is None:
            return
        process, connection = running.process, running.connection
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
        if running.said is not None:
            os.close(running.said)


class _Process(Protocol):
    """What is used of a process that was started, by whichever way."""

    @property
    def pid(self) -> int: ...
    def wait(self, timeout: float | None = None) -> object: ...
    def kill(self) -> None: ...


class _Forked:
    """A child of this process, used like `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def wait(self, timeout: float | None = None) -> None:
        descriptor = os.pidfd_open(self.pid)
        try:
            if not select.select([descriptor], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("encoder", timeout or 0)
        finally:
            os.close(descriptor)
        os.waitpid(self.pid, 0)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


class _Running(NamedTuple):
    """A process, and the file with what it says on standard error until it is at work, if that is kept."""

    process: _Process
    connection: Connection
    said: int | None = None


def _last_words(running: _Running) -> str | None:
    """Return why a process never got to work."""
    with suppress(EOFError, OSError, pickle.PickleError):
        if running.connection.poll():
            answer = running.connection.recv()
            if isinstance(answer, str):
                return answer
    said = b"" if running.said is None else os.pread(running.said, _LAST_WORDS, 0)
    last = said.decode(errors="replace").strip().rpartition("\n")[2]
    return f"{_NOT_STARTED}: {last}" if last else None


class SpareProcesses:
    """Processes for encoders, some of them started ahead of time; the rest end with this process."""

    def __init__(self, waiting: Iterable[_Running] = ()) -> None:
        """Hold processes that wait for their settings."""
        self._waiting = list(waiting)

    def take(self) -> _Running:
        """Return a process that waits, or start one; from any thread."""
        with suppress(IndexError):
            return self._waiting.pop()
        return _start()


def prepare(store: str, codec: Codec) -> SpareProcesses:
    """Fork processes for encoders that will store in the store of that URL, with what that needs loaded.

    Only where there is no other thread, and never was one.

    Raises:
        UsageError: the URL is invalid.
        StoreUnavailableError: the system takes no more processes or files.
    """
    open_store(store, codec).close()
    codec.encode(b"")  # loads its libraries, once for all
    forked: list[_Running] = []
    try:
        while len(forked) < _PROCESSES:
            forked.append(_fork())
    except OSError as error:
        if not forked:
            reason = f"no process that encodes can be started: {error.strerror} (see ulimit -a)"
            raise StoreUnavailableError(reason) from error
    return SpareProcesses(forked)


def _fork() -> _Running:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pid = os.fork()
        if pid == 0:
            _become(theirs)
        return _Running(_Forked(pid), Connection(ours.detach()))


def _become(connection: socket.socket) -> NoReturn:
    """Be an encoder from now on, with nothing of the program that forked."""
    try:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        keep = {0, 1, 2, connection.fileno()}
        # The lock of the session among them: it must be free when the daemon dies.
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  numbers
            if int(name) not in keep:
                with suppress(OSError):  # the one that listed them
                    os.close(int(name))
        os.chdir("/")
        _serve(connection.detach())
    finally:
        os._exit(0)


def make_encoders(settings: Settings, spares: SpareProcesses, spool: int) -> list[EncoderProcess]:
    """Make as many encoders as keep two cores busy, the first of them started."""
    encoders = [EncoderProcess(settings, spool, spares) for _ in range(_PROCESSES)]
    encoders[0].start()
    return encoders


def _start() -> _Running:
    with ExitStack() as held:
        ours, theirs = map(held.enter_context, socket.socketpair())
        # Until it is at work, what it says is for one error, and not for a terminal or a log each time.
        said = os.memfd_create("said")
        failing = held.enter_context(ExitStack())
        failing.callback(os.close, said)
        standard_error = os.dup(2)
        held.callback(os.close, standard_error)
        descriptors = [theirs.fileno(), standard_error]
        process = subprocess.Popen(
            # -P: the directory that the user happens to be in must not be searched for modules.
            [sys.executable, "-P", "-m", "flistfs.authoring.upload.encoder_process", *map(str, descriptors)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=descriptors,
            cwd="/",
        )
        failing.pop_all()
        return _Running(process, Connection(ours.detach()), said)


def _serve(descriptor: int, standard_error: int | None = None) -> None:
    """Store what the other end of a socket sends, until it goes.

    Once that can begin, errors go to `standard_error`.
    """
    # Ctrl-C in a terminal is for the process that started this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _keep_memory()
    connection: Any = Connection(descriptor)
    with suppress(EOFError, ConnectionError):
        settings: Settings = connection.recv()
        spool = reduction.recv_handle(connection)
        try:
            _log_to(settings.log)
            store = open_store(settings.store, format_named(settings.format).codec, settings.password)
            encoder = LocalEncoder(store, spool, KnownBlocks(settings.known))
        except Exception as error:  # noqa: BLE001  the other side tells the user
            connection.send(f"{_NOT_STARTED}: {error}")
            return
        if standard_error is not None:
            os.dup2(standard_error, 2)
            os.close(standard_error)
        while True:
            sources, check_content = connection.recv()
            connection.send(_answer(encoder, sources, check_content=check_content))


def _keep_memory() -> None:
    """Let the C library keep what a batch has used for the next one.

    Else it gives buffers of half a MiB back to the system each time, and to get them anew, page by page, is a
    seventh of an encoder's time.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_BUFFER)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_MEMORY)


def _log_to(path: Path | None) -> None:
    handler = logging.StreamHandler() if path is None else logging.FileHandler(path)
    root = logging.getLogger()
    root.handlers = [with_format(handler)]  # what was forked may have others
    root.setLevel(logging.INFO)


def _answer(encoder: LocalEncoder, sources: Sequence[Source], *, check_content: bool) -> Batch | Exception:
    try:
        # The daemon's own store asks the servers other things at other times.
        batch = encoder.store(sources, check_content=check_content)
        return batch._replace(store_trouble=encoder.store_trouble)
    except StoreError as error:
        return type(error)(str(error))
    except Exception as error:  # the other side tells the user, and tries again
        logging.getLogger(__name__).exception("storing %d chunks failed", len(sources))
        return RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    _serve(*map(int, sys.argv[1:]))
