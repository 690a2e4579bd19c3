"""The process that makes one flist: of an archive on standard input, or of an flist of another format.

python -m flistfs.hub.packer '{"out": PATH, "store": URL, "format": NAME, "entries": N, "size": BYTES,
    "timeout": SECONDS}'

With `package` that flist is read instead, its blocks from the same store. What goes out are JSON objects, one
on each line: how far it is, and at last what was packed, or why not.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn

from flistfs.authoring import offline
from flistfs.authoring.passing import name_of
from flistfs.authoring.request import AddRequest, Passwords, SealRequest
from flistfs.authoring.summaries import SealSummary
from flistfs.errors import FlistfsError
from flistfs.format.metadata import without_backend
from flistfs.images.blobs import Given
from flistfs.images.config import says_start
from flistfs.images.detecting import begins_like_one, start_of
from flistfs.images.image import Image
from flistfs.images.places import Place
from flistfs.sources.decoded import DecodedSource
from flistfs.sources.limited import Limits
from flistfs.sources.sealed import BaseSource
from flistfs.stores import open_store
from flistfs.stores.url import PASSWORD_VARIABLE
from flistfs.util.progress import Report

_EVERY: Final = 0.5  # seconds between two reports

COUNTS: Final = ("files", "links", "directories", "specials", "size")
"""What is said of an flist that was packed."""


def main() -> NoReturn:
    """Pack, say what was packed or why not, and end with the error's exit code."""
    config = json.loads(sys.argv[1])
    passwords = Passwords(os.environ.pop(PASSWORD_VARIABLE, None), None)
    try:
        summary = (_convert if "package" in config else _pack)(config, passwords, _Reporter())
    except FlistfsError as error:
        _say({"error": str(error)})
        sys.exit(error.exit_code)
    _say({"packed": {name: getattr(summary, name) for name in COUNTS}})
    sys.exit(0)


def _pack(config: Mapping[str, Any], passwords: Passwords, progress: _Reporter) -> SealSummary:
    limits = Limits(config["entries"], config["size"])
    start = start_of(sys.stdin.buffer.fileno())
    place = Place("archive", "-") if begins_like_one(start) else None
    given = Given(start, config["size"])
    with ExitStack() as opened:
        image = None if place is None else opened.enter_context(Image.open(place, None, given))
        request = replace(_sealing(config), startup=image is not None and says_start(image))
        _, summary = offline.pack(
            "-" if place is None else str(place),
            config["store"],
            config["format"],
            passwords,
            request,
            AddRequest((), timeout=config["timeout"]),
            progress,
            limits=limits,
            image=image,
            start=start,
        )
    return summary


def _convert(config: Mapping[str, Any], passwords: Passwords, progress: _Reporter) -> SealSummary:
    package = config["package"]
    reading = AddRequest((), timeout=config["timeout"], measure=True)
    with closing(BaseSource.open([package])) as base:
        (layer,) = base.layers
        with closing(open_store(config["store"], layer.flist.codec, passwords.store, reading=True)) as blocks:
            _, summary = offline.convert(
                DecodedSource(base, blocks),
                name_of(Path(package), [config["store"], config["format"]]),
                without_backend(layer.flist.metadata),
                config["store"],
                config["format"],
                passwords,
                _sealing(config),
                reading,
                progress,
            )
    return summary


def _sealing(config: Mapping[str, Any]) -> SealRequest:
    return SealRequest(Path(config["out"]), timeout=config["timeout"])


class _Reporter:
    """Prints how far it is, not too often."""

    def __init__(self) -> None:
        self._phase = ""
        self._next = 0.0

    def __call__(self, report: Report) -> None:
        now = time.monotonic()
        if now < self._next and report.phase == self._phase:
            return
        self._phase, self._next = report.phase, now + _EVERY
        _say({"phase": report.phase, "done": report.done, "total": report.total})


def _say(told: Mapping[str, Any]) -> None:
    os.write(sys.stdout.fileno(), json.dumps(told).encode() + b"\n")  # at once, as several threads report


if __name__ == "__main__":
    main()
