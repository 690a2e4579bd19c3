"""Forms as they arrive, in any pieces."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from flistfs.hub import forms
from flistfs.hub.errors import HubError, StalledError


class Kept:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.name = ""
        self.data = b""

    async def write(self, data: bytes) -> None:
        self.data += data

    async def opened(self, name: str) -> Kept:
        self.name = name
        return self


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    body = b""
    for name, file_name, content in parts:
        shown = "" if file_name is None else f'; filename="{file_name}"'
        body += (
            f'--x\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'.encode()
            + content
            + b"\r\n"
        )
    return body + b"--x--\r\n"


def received(
    data: bytes,
    sizes: list[int],
    clock: trio.abc.Clock | None = None,
    *,
    pause: float = 0.0,
    at_end: float = 0.0,
) -> tuple[forms.Form, Kept]:
    sink = Kept()

    async def stream() -> AsyncGenerator[bytes, None]:
        left = data
        for size in [*sizes, len(data)]:
            yield left[:size]
            left = left[size:]
            await trio.sleep(pause)
        await trio.sleep(at_end)

    async def work() -> forms.Form:
        async with aclosing(stream()) as arriving:
            kind = "multipart/form-data; boundary=x"
            return await forms.receive(kind, arriving, sink.opened, max_size=10_000)

    return trio.run(work, clock=clock), sink


@given(st.binary(max_size=300), st.lists(st.integers(0, 50), max_size=30))
def test_a_file_arrives_in_any_pieces(content: bytes, sizes: list[int]) -> None:
    data = form(("before", None, b"1"), ("file", "a.tar", content), ("metadata-x", None, "ü".encode()))
    if b"\r\n--x" in b"\r\n" + content:
        return
    found, sink = received(data, sizes)
    assert (sink.name, sink.data) == ("a.tar", content)
    assert found.fields == {"before": "1", "metadata-x": "ü"}


def test_only_the_first_file_counts() -> None:
    _, sink = received(
        form(("file", "a.tar", b"first"), ("file", "b.tar", b"second"), ("other", "c", b"x")), []
    )
    assert (sink.name, sink.data) == ("a.tar", b"first")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (form(("file", "", b"x")), "no file selected"),
        (form(("x", None, b"x")), "no file found"),
        (form(("file", "a.tar", b"x"))[:-6], "cut off"),
        (b"", "no file found|cut off"),
        (form(("file", "a.tar", bytes(20_000))), "too large"),
        (form(("x", None, b"x" * 9_000), ("file", "a", b"x" * 2_000)), "too large"),
    ],
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(HubError, match=message):
        received(data, [])


@pytest.mark.parametrize(
    ("size", "pause", "at_end"),
    [
        (5_000, 0.0, 61.0),  # nothing arrives any more
        (10, 1.0, 0.0),  # as it takes to keep a place for nothing
    ],
)
def test_an_upload_that_stalls_gives_its_place_up(size: int, pause: float, at_end: float) -> None:
    data = form(("file", "a.tar", b"x" * 5_000))[:-10]
    clock = trio.testing.MockClock(autojump_threshold=0)
    with pytest.raises(StalledError):
        received(data, [size] * (len(data) // size), clock, pause=pause, at_end=at_end)


def test_an_upload_may_be_slow() -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    _, sink = received(form(("file", "a.tar", b"x" * 9_000)), [1100] * 8, clock, pause=1.0, at_end=50.0)
    assert len(sink.data) == 9_000
