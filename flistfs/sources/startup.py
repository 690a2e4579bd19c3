"""The file that tells Zero-OS what to start in a container: `.startup.toml` at the top of its tree."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from flistfs.sources.data import BytesSource
from flistfs.sources.item import Item, Piece

NAME: Final = ".startup.toml"
"""Its name in the tree."""


class StartupSource:
    """A `TreeSource` of that file alone."""

    def __init__(
        self, entrypoint: Sequence[str], environ: Mapping[str, str], top: Item, directory: str = "/"
    ) -> None:
        """Say what is started, and in which directory; `top` is the one at the top, which stays as it is."""
        self._content = startup_file(entrypoint, environ, directory)
        self._top = top

    def items(self) -> Iterator[Item]:
        """Yield the directory and the file, which is as old as that."""
        top = self._top
        yield top
        yield Item(
            NAME.encode(),
            stat.S_IFREG | 0o644,
            0,
            0,
            top.mtime_ns,
            top.mtime_ns,
            size=len(self._content),
            pieces=[Piece(0, BytesSource(self._content))],
            count=1,
            ctime_ns=top.ctime_ns,
        )

    def measure(self) -> None:
        """Do nothing: its size is known."""

    def extent(self, size: int) -> tuple[int, int]:
        """Return how much of the file is done."""
        return size, len(self._content)

    def named(self, path: bytes) -> str:  # noqa: ARG002  a TreeSource's signature
        """Return the file's name."""
        return NAME

    def close(self) -> None:
        """Do nothing."""


def startup_file(entrypoint: Sequence[str], environ: Mapping[str, str], directory: str = "/") -> bytes:
    """Return the file's content: what 0-hub writes for an image, and Zero-OS reads (core0's startup file)."""
    program, *words = entrypoint
    lines = [
        "[startup.entry]",
        'name = "core.system"',
        "",
        "[startup.entry.args]",
        f"name = {_text(program)}",
        f"args = [{', '.join(map(_text, words))}]",
        f"dir = {_text(directory)}",
        "",
        "[startup.entry.args.env]",
        *(f"{_text(name)} = {_text(value)}" for name, value in sorted(environ.items())),
        "",
    ]
    return "\n".join(lines).encode()


def _text(text: str) -> str:
    """Write a text as TOML does, which is as JSON does but for one control character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
