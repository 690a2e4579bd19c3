"""Homes in which this process works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.working import move_to
from tests.e2e.commands import Home
from tests.redis_server import RedisServer, running_redis


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A user's home, in which this process works."""
    home = Home(tmp_path.resolve() / "home")
    home.path.mkdir()
    move_to(home, monkeypatch)
    return home


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server
