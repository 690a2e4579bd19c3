"""The redis-server of the tests is the one that a test has started."""

from __future__ import annotations

import pytest

from tests import redis_server
from tests.redis_server import free_port, running_redis


@pytest.mark.parametrize("password", [None, "secret"])
def test_a_port_that_another_server_took_first_is_left_to_it(
    monkeypatch: pytest.MonkeyPatch, password: str | None
) -> None:
    with running_redis(password=password) as first:
        ports = iter([first.port, first.port, free_port()])
        monkeypatch.setattr(redis_server, "free_port", lambda: next(ports))
        with running_redis(password=password) as second:
            second.command("SET", "whose", "second")
            assert first.command("EXISTS", "whose") == b":0\r\n"


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="no-such-option"), running_redis("--no-such-option", "1"):
        pass
