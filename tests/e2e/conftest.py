"""Homes and mounts for tests, which are gone afterwards whatever happened."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import pytest

from flistfs.fuse import mounts
from tests.e2e.commands import Home, wait_until
from tests.e2e.proxy import Proxy
from tests.redis_server import RedisServer, running_redis

if not os.access("/dev/fuse", os.R_OK | os.W_OK):
    pytest.skip("there is no /dev/fuse that this user may open", allow_module_level=True)

# What a shell runs in the background is deaf to Ctrl-C, and so would be the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# pyfuse3 says so when the kernel no longer waits for an answer: a mount ended while files were released.
ANSWERED_TOO_LATE = "fuse_reply_* failed with No such file or directory"


def _detach_below(directory: Path) -> list[Path]:
    """Take away every mount below a directory, innermost first; return those that were there."""
    below = [mount.path for mount in mounts.mounts() if mount.path.is_relative_to(directory)]
    for path in reversed(below):
        helper = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
        subprocess.run([*helper, str(path)], check=False, capture_output=True)
    return below


def _has_ended(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


@pytest.fixture
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Home]:
    """A user's home; sessions that a test leaves behind, and complaints in logs, fail it.

    Its usual format is the parameter, if there is one: see `both_formats`.
    """
    path = tmp_path.resolve() / "home"
    path.mkdir()
    format_ = getattr(request, "param", None)
    home = Home(path, {"FLISTFS_FORMAT": format_} if format_ else {})
    yield home
    left = _detach_below(tmp_path.resolve())
    for pid in filter(None, home.daemons()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
            wait_until(partial(_has_ended, pid), f"daemon {pid} ends")
    assert not left, f"still mounted after the test: {left}"
    complaints = [
        line
        for line in home.logs().splitlines()
        if re.search(r" (WARNING|ERROR|CRITICAL) |Traceback|Exception", line)
        and not any(text in line for text in [*home.expected_log, ANSWERED_TOO_LATE])
    ]
    assert not complaints, "\n".join(complaints)


@pytest.fixture
def mountpoint(tmp_path: Path) -> Path:
    """An empty directory to mount on."""
    path = tmp_path.resolve() / "mnt"
    path.mkdir()
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """An empty directory for a tree to copy from."""
    path = tmp_path.resolve() / "source"
    path.mkdir()
    return path


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A redis-server that many tests share."""
    with running_redis() as server:
        yield server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A redis-server that a test may stop and start; what it acknowledged is kept."""
    # Without "always" it may acknowledge before it has written, while the disk is busy with what came before.
    with running_redis("--appendonly", "yes", "--appendfsync", "always") as running:
        yield running


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    """What the mounts of a test take for their store."""
    with Proxy(server.port) as running:
        yield running


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    path = tmp_path.resolve() / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "flistfs-test", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def servers() -> Iterator[list[RedisServer]]:
    """Two servers, which keep what they have when they are stopped."""
    with ExitStack() as stack:
        yield [stack.enter_context(running_redis("--appendonly", "yes")) for _ in range(2)]
