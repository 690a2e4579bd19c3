"""Container images as sources."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from flistfs.api import process
from flistfs.api.arguments import AnyPath
from flistfs.errors import UsageError
from flistfs.images.places import Place, parse_place, parse_platform

if TYPE_CHECKING:
    from flistfs.images.image import Image

_PLAIN: Final = ("dir:", "tar:")


@dataclass(frozen=True, slots=True)
class OpenedSource:
    """A source, as `offline.pack` takes it: the image that it is, or what was read of standard input."""

    name: str
    image: Image | None = None
    start: bytes = b""


@contextmanager
def opened_source(source: AnyPath | None, platform: str | None) -> Iterator[OpenedSource]:
    """Open the image that a source is, if it is one.

    Args:
        source: What a user names: a path, an image by a transport, or None for an archive on standard input.
        platform: Which one of an image for several.

    Raises:
        SourceError: the image cannot be read.
        UsageError: several are there, and none is chosen; or a platform is named for what is no image.
    """
    text = "-" if source is None else os.fsdecode(source)
    wanted = None if platform is None else parse_platform(platform)
    is_plain = text.startswith(_PLAIN)
    start = _start_of_input() if source is None else b""
    place = None if is_plain else _place(text, start, is_input=source is None)
    if place is None:
        if wanted is not None:
            raise UsageError(f"`platform` chooses among container images, and {text} is none")
        path = text[text.index(":") + 1 :] if is_plain else text
        is_input = source is None or text == "tar:-"
        # `open_tree` takes `-` for standard input.
        yield OpenedSource("./-" if path == "-" and not is_input else path, start=start)
        return
    with process.loading():
        from flistfs.images.blobs import Given  # noqa: PLC0415  it takes longer to load than --help
        from flistfs.images.image import Image  # noqa: PLC0415
    with Image.open(place, wanted, Given(start)) as image:
        yield OpenedSource(str(place), image)


def _place(text: str, start: bytes, *, is_input: bool) -> Place | None:
    """Return the image that a source is, by its transport or by what it looks like."""
    place = None if is_input else parse_place(text)
    if place is not None:
        return place
    from flistfs.images.detecting import begins_like_one, detected  # noqa: PLC0415  as above

    if is_input:
        return Place("archive", "-") if begins_like_one(start) else None
    return detected(text)


def _start_of_input() -> bytes:
    from flistfs.images.detecting import start_of  # noqa: PLC0415  as above

    return start_of(0)
