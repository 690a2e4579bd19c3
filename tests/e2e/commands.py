"""The real command line, in a home of its own, and what tests ask of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flistfs.fuse import mounts
from tests.e2e.schemas import check_answer

FLISTFS = Path(sys.executable).with_name("flistfs")

# Long for a busy machine; a test that gets here has failed.
TIMEOUT = 120


@dataclass
class Home:
    """A user's home: state and blocks of their own, and a way to run commands."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)
    expected_log: list[str] = field(default_factory=list)
    """Texts of warnings and errors that the test asks for; any other in a log fails it."""

    @property
    def format(self) -> str:
        """The format of what is sealed here."""
        return self.env.get("FLISTFS_FORMAT", "rocksdb")

    @property
    def blocks(self) -> Path:
        """The default store."""
        return self.path / "data/flistfs/blocks"

    @property
    def sessions(self) -> Path:
        """Where sessions lie."""
        return self.path / "state/flistfs/sessions"

    def environment(self, **extra: str) -> dict[str, str]:
        """The environment of a command."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("FLISTFS_")}
        inherited.pop("SOURCE_DATE_EPOCH", None)
        own = {f"XDG_{kind.upper()}_HOME": str(self.path / kind) for kind in ("state", "data", "cache")}
        return {**inherited, **own, **self.env, **extra}

    def run(
        self,
        *arguments: str | Path,
        code: int = 0,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Run `flistfs`, by another command if one is given, and expect an exit code; never a traceback."""
        done = subprocess.run(
            [*prefix, FLISTFS, *arguments],
            env=self.environment(**env or {}),
            cwd=cwd or self.path,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
        said = f"{done.stdout}\n{done.stderr}"
        assert done.returncode == code, (
            f"flistfs {arguments} ended with {done.returncode}:\n{said}{self.logs()}"
        )
        assert "Traceback" not in said
        words = list(map(str, arguments))
        if "--json" in words:
            check_answer(words[0], done.stdout, code)
        return done

    @contextmanager
    def started(
        self, *arguments: str | Path, env: dict[str, str] | None = None, stdin: int = subprocess.DEVNULL
    ) -> Iterator[subprocess.Popen[str]]:
        """Run `flistfs` beside the block, which waits at its end for the command's."""
        process = subprocess.Popen(
            [FLISTFS, *arguments],
            env=self.environment(**env or {}),
            cwd=self.path,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with watched(process):
            yield process
            process.communicate()

    def json(self, *arguments: str | Path, code: int = 0) -> Any:  # noqa: ANN401  whatever JSON holds
        """Run `flistfs … --json`, expect an exit code, and return its answer."""
        return json.loads(self.run(*arguments, "--json", code=code).stdout)

    def listed(self, *arguments: str | Path) -> list[dict[str, Any]]:
        """Run `flistfs … --json`, and return the list that its answer is."""
        (values,) = [value for value in self.json(*arguments).values() if isinstance(value, list)]
        assert isinstance(values, list)
        return values

    def status(self) -> dict[str, Any]:
        """The status of the only session."""
        (session,) = self.listed("status")
        return session

    def logs(self) -> str:
        """All sessions' logs."""
        return "\n".join(path.read_text() for path in self.sessions.glob("*/log"))

    def daemons(self) -> list[int]:
        """The processes that hold this home's sessions now."""
        return [int(lock.read_text() or 0) for lock in self.sessions.glob("*/lock")]

    def processes(self) -> dict[int, str]:
        """The command lines of all processes that were started in this home: daemons, and what they start."""
        here = f"XDG_STATE_HOME={self.path / 'state'}\0".encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended, or is another user's
                if here in (process / "environ").read_bytes():
                    found[int(process.name)] = (process / "cmdline").read_bytes().decode(errors="replace")
        return found


# Root may read everything, unless it gives that right up.
LIKE_OTHERS = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    if os.geteuid() == 0
    else []
)


@contextmanager
def watched(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Let no process outlive a block that failed, nor keep it for more than `TIMEOUT`."""
    watchdog = threading.Timer(TIMEOUT, process.kill)
    watchdog.start()
    try:
        with process:
            try:
                yield
            except BaseException:
                process.kill()
                raise
    finally:
        watchdog.cancel()


def is_mounted(path: Path) -> bool:
    """Say whether something is mounted exactly there."""
    return mounts.mount_at(path) is not None


def umount(path: Path) -> None:
    """Unmount as a user would."""
    subprocess.run(["fusermount3", "-u", str(path)], check=True, timeout=TIMEOUT)


def umount_soon(path: Path, *command: str) -> None:
    """Unmount what was mounted a moment ago: its daemon may still be asking it its own first question."""
    words = [*(command or ("fusermount3", "-u")), str(path)]
    wait_until(
        lambda: subprocess.run(words, stderr=subprocess.DEVNULL, check=False).returncode == 0,
        "it is unmounted",
    )


def let_others_reach(path: Path) -> None:
    """Open the directories on the way to a test's path, which pytest makes for their owner alone."""
    for directory in path.parents:
        if directory.is_relative_to("/tmp") and directory != Path("/tmp"):
            directory.chmod(0o755)


def shell(command: str, cwd: Path, **env: str) -> str:
    """Run a shell command that has to succeed."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=cwd,
        env={**os.environ, "LC_ALL": "C", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def wait_until(is_true: Callable[[], object], what: str, seconds: float = TIMEOUT) -> None:
    """Poll until something holds."""
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        time.sleep(0.02)
