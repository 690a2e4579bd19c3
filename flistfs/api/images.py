"""Container images as sources."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flistfs.api import process
from flistfs.api.arguments import AnyPath
from flistfs.errors import UsageError
from flistfs.images.places import parse_place, parse_platform

if TYPE_CHECKING:
    from flistfs.images.image import Image

_PLAIN = ("dir:", "tar:")


@contextmanager
def opened_source(source: AnyPath | None, platform: str | None) -> Iterator[tuple[str, Image | None]]:
    """Open the image that a source is, if it is one; yield its name with it.

    Args:
        source: What a user names: a path, an image by a transport, or None for an archive on standard input.
        platform: Which one of an image for several.

    Raises:
        SourceError: the image cannot be read.
        UsageError: several are there, and none is chosen; or a platform is named for what is no image.
    """
    text = "-" if source is None else os.fsdecode(source)
    wanted = None if platform is None else parse_platform(platform)
    plain = next((each for each in _PLAIN if text.startswith(each)), None)
    place = None if plain is not None or source is None else parse_place(text)
    if place is None and plain is None and source is not None:
        from flistfs.images.detecting import detected  # noqa: PLC0415  it takes longer to load than --help

        place = detected(text)
    if place is None:
        if wanted is not None:
            raise UsageError(f"`platform` chooses among container images, and {text} is none")
        yield _plain_name(text.removeprefix(plain or ""), is_input=source is None), None
        return
    with process.loading():
        from flistfs.images.image import Image  # noqa: PLC0415  it takes longer to load than --help
    with Image.open(place, wanted) as image:
        yield str(place), image


def _plain_name(text: str, *, is_input: bool) -> str:
    """Return a source as `open_tree` takes it, to which `-` is standard input."""
    return "./-" if text == "-" and not is_input else text
