"""What is in an flist, as an answer. It is written while it is read: there may be millions of entries."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

import trio
from starlette.responses import StreamingResponse

from flistfs.errors import FormatError
from flistfs.hub.answers import FOR_ALL
from flistfs.hub.hub import Hub
from flistfs.reading.flist import Faults, Flist
from flistfs.tree.node import Kind

_COUNTED: Final = {Kind.FILE: "regular", Kind.LINK: "symlink", Kind.DIRECTORY: "directory"}
_KINDS: Final = ("regular", "symlink", "directory", "special")

_IN_MEMORY: Final = 1 << 20  # bytes of an answer; a longer one is on the disk
_PART: Final = 1 << 18
_AT_ONCE: Final = trio.CapacityLimiter(2)  # walks; what is in flists is seldom asked for, and costs seconds


@dataclass(frozen=True, slots=True)
class Contents:
    """The contents of an flist: a file with the JSON text, and the counts that are at its end."""

    text: IO[bytes]
    counts: Mapping[str, int]


async def contents_of(hub: Hub, user: str, name: str) -> StreamingResponse:
    """Return the answer with the contents of an flist; empty for what is no flist.

    Raises:
        NotFoundError: there is none of that name.
    """

    def written() -> IO[bytes]:
        package = hub.repositories.package(user, name)
        try:
            return contents(package).text
        except FormatError:
            return _spooled(b"{}")

    text = await trio.to_thread.run_sync(written, limiter=_AT_ONCE)
    return answer(text, FOR_ALL)


def contents(package: Path) -> Contents:
    """Return all paths of an flist with their sizes, and counts (blocks).

    Raises:
        FormatError: it is no flist, or damaged.
    """
    found: Counter[str] = Counter()
    with Flist.open(package, Faults.READ_PAST) as flist:
        text = _spooled(b'{"content": [')
        try:
            separator = b""
            for node in flist.walk(flist.find(b"")):
                found[_COUNTED.get(node.kind, "special")] += 1
                found["fullsize"] += node.size if node.kind is Kind.FILE else 0
                entry = {"path": f"/{node.path.decode(errors='replace')}", "size": node.size}
                text.write(separator + json.dumps(entry).encode())
                separator = b", "
            counts = {
                **{name: found[name] for name in _KINDS},
                "failure": flist.accepted_faults,
                "fullsize": found["fullsize"],
            }
            text.write(b"], " + json.dumps(counts).encode()[1:])
        except BaseException:
            text.close()
            raise
    return Contents(text, counts)


def answer(
    text: IO[bytes], headers: Mapping[str, str], before: bytes = b"", after: bytes = b""
) -> StreamingResponse:
    """Return the answer of JSON that has a text, which is closed with it, and what stands around that."""
    size = text.seek(0, 2)
    length = len(before) + size + len(after) + 1

    async def parts() -> AsyncIterator[bytes]:
        with closing(text):
            text.seek(0)
            yield before
            while part := await trio.to_thread.run_sync(text.read, _PART):
                yield part
            yield after + b"\n"

    return StreamingResponse(
        parts(), media_type="application/json", headers={**headers, "Content-Length": str(length)}
    )


def _spooled(begun: bytes) -> IO[bytes]:
    text = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115  answers close it
    text.write(begun)
    return text
