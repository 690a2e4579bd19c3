"""Async work for callers that have no event loop, or one of their own."""

from __future__ import annotations

import asyncio
import signal
import threading

import pytest
import trio

from flistfs.util.loop_thread import run_in_thread


async def work() -> int:
    await trio.lowlevel.checkpoint()
    return threading.get_ident()


async def failing() -> None:
    raise KeyError("mine")


def use_it() -> None:
    """It is another thread's loop, and an error comes out as itself."""
    assert run_in_thread(work) != threading.get_ident()
    with pytest.raises(KeyError, match="mine"):
        run_in_thread(failing)


def test_callers_of_all_kinds() -> None:
    async def caller() -> None:
        use_it()

    use_it()
    asyncio.run(caller())
    trio.run(caller)


def test_ctrl_c_cancels_the_work_and_waits_for_its_end(hears_ctrl_c: None) -> None:
    steps = []

    async def endless() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.05)
            steps.append("ended")

    with pytest.raises(KeyboardInterrupt):
        run_in_thread(endless)
    assert steps == ["ended"]
