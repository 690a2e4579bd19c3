"""What could not be read in a long time is not waited for a second time."""

from __future__ import annotations

import time

import pytest

from flistfs.errors import StoreUnavailableError
from flistfs.stores.slow import SlowFailures


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def read(failures: SlowFailures, clock: list[float], seconds: float, name: bytes = b"hash") -> bool:
    """Fail to read within so many seconds; return whether it was tried at all."""
    tried = []

    def hang() -> None:
        with failures.watched(name):
            tried.append(name)
            clock[0] += seconds
            raise StoreUnavailableError("it hangs")

    with pytest.raises(StoreUnavailableError, match="hangs"):
        hang()
    return bool(tried)


def test_a_slow_failure_is_repeated_once_at_once(clock: list[float]) -> None:
    failures = SlowFailures()
    assert read(failures, clock, 30)
    assert read(failures, clock, 30, b"other")
    clock[0] += 0.5
    assert not read(failures, clock, 30, b"other")
    assert read(failures, clock, 30, b"other")


def test_it_is_forgotten_within_a_moment(clock: list[float]) -> None:
    failures = SlowFailures()
    assert read(failures, clock, 30)
    clock[0] += 2
    assert read(failures, clock, 30)


def test_a_quick_failure_is_tried_again(clock: list[float]) -> None:
    failures = SlowFailures()
    assert read(failures, clock, 1)
    assert read(failures, clock, 1)
    with failures.watched(b"hash"):
        pass
