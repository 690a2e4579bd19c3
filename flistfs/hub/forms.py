"""Forms with a file, as they arrive: the file goes on at once, however large it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from flistfs.hub.errors import HubError, StalledError, TooLargeError

_MAX_PARTS: Final = 200
_MAX_FIELD: Final = 1 << 20  # bytes of a field that is no file
_SILENT: Final = 60.0  # seconds without a byte
_LEAST_RATE: Final = 1024  # bytes a second, on average
_MAX_FIELDS: Final = 4 << 20  # bytes of all those together


class Sink(Protocol):
    """Where the bytes of a file go."""

    async def write(self, data: bytes) -> None:
        """Take the next bytes; raises what stops the upload."""


@dataclass
class Form:
    """What a form has besides its file."""

    fields: dict[str, str] = field(default_factory=dict)
    has_file: bool = False


async def receive(
    content_type: str,
    stream: AsyncIterator[bytes],
    opened: Callable[[str], Awaitable[Sink]],
    *,
    max_size: int,
) -> Form:
    """Read a form with one file, the first of its parts named `file`, to its end.

    Args:
        content_type: The header of the request.
        stream: Its body.
        opened: Called with the name of the file; returns where its bytes go.
        max_size: Bytes of the whole body.

    Raises:
        HubError: it is no such form, is too large, or ends before it should.
    """
    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data" or "boundary" not in options:
        raise HubError("no file found")
    reader = _Reader(opened)
    size = 0
    try:
        # Not strict: a line break behind the end would be an error where it arrives on its own.
        parser = PushMultipartParser(options["boundary"], max_header_size=4096, max_segment_count=_MAX_PARTS)
        async with aclosing(_awaited(stream)) as arriving:
            async for part in arriving:
                size += len(part)
                if size > max_size:
                    raise TooLargeError("the upload is too large")
                for event in _events(parser, part):
                    await reader.take(event)
        parser.close()
    except MultipartError as error:
        raise HubError(f"no file found: the form is invalid or was cut off ({error})") from None
    if not reader.form.has_file:
        raise HubError("no file found")
    return reader.form


async def _awaited(stream: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield what arrives, as long as enough does: others wait for the place of an upload.

    Only the time counts that the client is waited for, not that of packing.

    Raises:
        StalledError: nothing arrives, or hardly anything.
    """
    waited, size = 0.0, 0
    while True:
        started = trio.current_time()
        with trio.move_on_after(_SILENT) as scope:
            part = await anext(stream, None)
        waited += trio.current_time() - started
        if scope.cancelled_caught or (waited > _SILENT and size < waited * _LEAST_RATE):
            raise StalledError("the upload has stalled")
        if part is None:
            return
        size += len(part)
        yield part


def _events(parser: PushMultipartParser, part: bytes) -> Iterator[MultipartSegment | bytes | None]:
    if part:  # an empty one would mean the end to the parser
        yield from parser.parse(part)


class _Reader:
    """Sorts what is in a form."""

    def __init__(self, opened: Callable[[str], Awaitable[Sink]]) -> None:
        self.form = Form()
        self._opened = opened
        self._sink: Sink | None = None
        self._name: str | None = None
        self._text = bytearray()
        self._size = 0

    async def take(self, event: MultipartSegment | bytes | bytearray | None) -> None:
        match event:
            case None:
                self._end()
            case bytes() | bytearray():
                await self._take_bytes(bytes(event))
            case _:
                await self._begin(event)

    async def _begin(self, segment: MultipartSegment) -> None:
        if segment.name == "file" and segment.filename is not None and not self.form.has_file:
            if not segment.filename:
                raise HubError("no file selected")
            self.form.has_file = True
            self._sink = await self._opened(segment.filename)
        else:
            self._name = segment.name or ""

    async def _take_bytes(self, data: bytes) -> None:
        if self._sink is not None:
            await self._sink.write(data)
            return
        self._size += len(data)
        self._text += data
        if len(self._text) > _MAX_FIELD or self._size > _MAX_FIELDS:
            raise HubError("a field of the form is too large")

    def _end(self) -> None:
        if self._sink is None and self._name is not None:
            self.form.fields[self._name] = self._text.decode(errors="replace")
        self._sink = self._name = None
        self._text.clear()
