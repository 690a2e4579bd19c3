"""Cores are kept awake from one request to the next, and no longer."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from flistfs.fuse.cores import WakefulCores, obstacle
from flistfs.fuse.loop import _QuickWait

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core waits for nobody")


def is_open(path: Path) -> bool:
    return any(os.path.realpath(opened) == str(path) for opened in Path("/proc/self/fd").iterdir())


@pytest.fixture
def device(tmp_path: Path) -> Path:
    path = tmp_path.resolve() / "cpu_dma_latency"
    path.write_bytes(b"")
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    path.write_text("POLL\n")
    return path


def test_they_are_awake_from_hold_to_release(device: Path, state: Path) -> None:
    cores = WakefulCores(device, state, wanted=True)
    assert not is_open(device)
    assert cores.hold()
    assert cores.hold()
    assert is_open(device)
    assert device.read_bytes() == bytes(4)  # 0 µs, as the kernel wants it
    cores.release()
    cores.release()
    assert not is_open(device)


def test_where_it_cannot_be_had_nothing_is_lost(tmp_path: Path, state: Path) -> None:
    cores = WakefulCores(tmp_path / "missing", state, wanted=True)
    assert not cores.hold()
    cores.release()
    assert "cannot be written" in (obstacle(tmp_path / "missing", state) or "")


def test_they_sleep_as_they_like_unless_it_was_asked_for(device: Path, state: Path) -> None:
    assert obstacle(device, state) is None
    assert not WakefulCores(device, state, wanted=False).hold()
    assert not is_open(device)


def test_cores_that_would_sleep_all_the_same_are_not_said_to_be_awake(device: Path, state: Path) -> None:
    state.write_text("WFI\n")
    assert "no state in which they stay awake" in (obstacle(device, state) or "")
    assert not WakefulCores(device, state, wanted=True).hold()
    state.unlink()
    assert not WakefulCores(device, state, wanted=True).hold()
    assert not is_open(device)


def test_a_device_that_refuses_is_closed(state: Path) -> None:
    cores = WakefulCores(Path("/dev/full"), state, wanted=True)
    assert not cores.hold()
    assert not is_open(Path("/dev/full"))


def test_who_waits_for_the_next_request_lets_them_sleep_when_none_comes(device: Path, state: Path) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, trio.fail_after(10):
            wait = _QuickWait(WakefulCores(device, state, wanted=True))
            theirs.send(b"x")
            await wait.wait_readable(ours.fileno())
            assert is_open(device)
            ours.recv(1)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait.wait_readable, ours.fileno())
                while is_open(device):  # noqa: ASYNC110  nobody tells
                    await trio.sleep(0.01)
                theirs.send(b"x")

    trio.run(main)


def test_they_may_sleep_when_nobody_asks_any_more_and_when_all_is_over(device: Path, state: Path) -> None:
    async def main() -> None:
        cores = WakefulCores(device, state, wanted=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cores.watch)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(4):
                assert cores.hold()
                await trio.sleep(0.6)
                assert is_open(device)  # watched for 2.4 s
            await trio.sleep(2.5)
            assert not is_open(device)
            assert cores.hold()
            nursery.cancel_scope.cancel()
        assert not is_open(device)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_others_have_their_turn_while_requests_come_without_end(device: Path, state: Path) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs, trio.fail_after(10):
            wait = _QuickWait(WakefulCores(device, state, wanted=True))
            theirs.send(b"x")
            turns = 0

            async def other() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(other)
                while turns < 5:
                    await wait.wait_readable(ours.fileno())
                nursery.cancel_scope.cancel()

    trio.run(main)
