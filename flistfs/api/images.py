"""Container images as sources."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from flistfs.api import process
from flistfs.api.arguments import AnyPath
from flistfs.errors import UsageError
from flistfs.images.places import Platform, parse_place, parse_platform

if TYPE_CHECKING:
    from flistfs.images.image import Image

_PLAIN: Final = ("dir:", "tar:")


@contextmanager
def opened_source(source: AnyPath | None, platform: str | None) -> Iterator[tuple[str, Image | None]]:
    """Open the image that a source is, if it is one; yield its name, as `offline.pack` takes it, too.

    Args:
        source: What a user names: a path, an image by a transport, or None for an archive on standard input.
        platform: Which one of an image for several.

    Raises:
        SourceError: the image cannot be read.
        UsageError: several are there, and none is chosen; or a platform is named for what is no image.
    """
    text = "-" if source is None else os.fsdecode(source)
    wanted = None if platform is None else parse_platform(platform)
    is_plain = source is None or text.startswith(_PLAIN)
    opened = None if is_plain else _opened(text, wanted)
    if opened is None:
        if wanted is not None:
            raise UsageError(f"`platform` chooses among container images, and {text} is none")
        path = text[text.index(":") + 1 :] if text.startswith(_PLAIN) else text
        is_input = source is None or text == "tar:-"
        # `open_tree` takes `-` for standard input.
        yield "./-" if path == "-" and not is_input else path, None
        return
    name, image = opened
    with image:
        yield name, image


def _opened(text: str, platform: Platform | None) -> tuple[str, Image] | None:
    """Open the image that a source is, by its transport or by what it looks like."""
    place = parse_place(text)
    with process.loading():
        from flistfs.images.detecting import detected  # noqa: PLC0415  it takes longer to load than --help
        from flistfs.images.image import Image  # noqa: PLC0415
    if place is not None:
        return str(place), Image.open(place, platform)
    found = detected(text)
    if found is None:
        return None
    place, blobs = found
    return str(place), Image.of(blobs, place, platform)
