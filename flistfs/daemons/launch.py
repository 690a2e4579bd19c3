"""Starting the daemon of a session.

It is a fresh process and no fork, so that nothing of the command's threads and files is in it. It is handed
its `Config` on standard input, and a password in the environment, so that neither shows in a list of
processes. Its first line on standard output says that the file system answers, or why not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from flistfs.authoring.request import Passwords
from flistfs.authoring.state.directory import SessionDirectory
from flistfs.daemons.config import Config, ReaderConfig
from flistfs.daemons.control import error_of
from flistfs.daemons.process import INTERRUPTS
from flistfs.errors import MountError
from flistfs.stores.url import BASE_PASSWORD_VARIABLE, PASSWORD_VARIABLE
from flistfs.util.progress import Progress, Report

# Of a daemon that ends without a word, this much of its log is read, in bytes.
_LOG_TAIL = 2000


def _command(config: Config | ReaderConfig) -> list[str]:
    module = "flistfs.daemons.session" if isinstance(config, Config) else "flistfs.daemons.reader"
    # -P: the directory that the user happens to be in must not be searched for modules.
    return [sys.executable, "-P", "-m", module]


def _environment(passwords: Passwords) -> dict[str, str]:
    environment = dict(os.environ)
    for name, password in (
        (PASSWORD_VARIABLE, passwords.store),
        (BASE_PASSWORD_VARIABLE, passwords.base),
    ):
        environment.pop(name, None)
        if password is not None:
            environment[name] = password
    return environment


def start(
    config: Config | ReaderConfig,
    passwords: Passwords,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Start a daemon in the background; returns what it says when its file system answers.

    Raises:
        FlistfsError: it could not start; the message says why, the exit code is the daemon's.
    """
    log_path = SessionDirectory(Path(config.state)).log if isinstance(config, Config) else Path(config.log)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        # Ctrl-C between the birth of the daemon and the `try` that ends it would leave it behind. The daemon
        # inherits this and undoes it (`heed_interrupts`).
        signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
        daemon = _spawn(config, passwords, log_path)
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            answer = _introduce(daemon, config, on_progress)
        except BaseException:  # Ctrl-C: no mount may appear after the command has gone
            daemon.terminate()
            assert daemon.stdin is not None  # noqa: S101  the type checker's
            with suppress(BrokenPipeError):
                daemon.stdin.close()  # it may be waiting for its config, deaf to signals
            daemon.wait()
            raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if not answer:
        code = daemon.wait()
        tail = log_path.read_bytes()[-_LOG_TAIL:].decode(errors="replace").strip().rpartition("\n")[2]
        raise MountError(f"the daemon ended with code {code} before it answered: {tail} (log: {log_path})")
    if "error" in answer:
        daemon.wait()
        raise error_of(answer["error"])
    daemon.returncode = 0  # it lives on without us; subprocess need not warn that nobody waited for it
    # A program may outlive the daemon, which would stay a zombie.
    threading.Thread(target=_reap, args=(daemon.pid,), name="reaper", daemon=True).start()
    return answer


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):  # the program waits for any child of its own, or for none
        os.waitpid(pid, 0)


def _spawn(config: Config | ReaderConfig, passwords: Passwords, log_path: Path) -> subprocess.Popen[bytes]:
    with log_path.open("ab") as log_file:
        return subprocess.Popen(
            _command(config),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log_file,
            cwd="/",
            env=_environment(passwords),
            pass_fds=[config.lock] if isinstance(config, Config) else [],
            start_new_session=True,
        )


def _introduce(
    daemon: subprocess.Popen[bytes],
    config: Config | ReaderConfig,
    on_progress: Progress | None,
) -> dict[str, Any]:
    """Tell a daemon its config, and return its answer; an empty one if it has ended without."""
    assert daemon.stdin is not None  # noqa: S101  the type checker's
    assert daemon.stdout is not None  # noqa: S101
    with suppress(BrokenPipeError), daemon.stdin:
        daemon.stdin.write(json.dumps(asdict(config)).encode())
    with daemon.stdout:
        for line in daemon.stdout:
            answer: dict[str, Any] = json.loads(line)
            if "progress" not in answer:
                return answer
            if on_progress is not None:
                on_progress(Report(**answer["progress"]))
    return {}


def exec_daemon(config: Config | ReaderConfig, passwords: Passwords) -> NoReturn:
    """Replace this process by the daemon, in the foreground."""
    # A file in memory: a pipe that nobody reads yet holds 64 KiB, and the text of a router may be longer.
    with os.fdopen(os.memfd_create("config"), "w+b") as told_config:
        told_config.write(json.dumps(asdict(config)).encode())
        told_config.seek(0)
        os.dup2(told_config.fileno(), 0)
    if isinstance(config, Config):
        os.set_inheritable(config.lock, True)
    command = _command(config)
    signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)  # until it can clean up: `heed_interrupts`
    os.execve(command[0], command, _environment(passwords))  # noqa: S606  no shell is wanted
