"""The kinds of damage by name, and a process that makes inputs of them."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Self

from tests.fuzzing.inputs import (
    Base,
    _archive_bytes,
    _archive_headers,
    _database,
    _manifest,
    _member,
    _package_bytes,
    _record_bytes,
    _table,
    _tar_bytes,
    _values,
    base_in,
    make_base,
)
from tests.fuzzing.sqlite_inputs import SQLITE_KINDS

KINDS: Final[Mapping[str, Callable[[Base, random.Random], bytes]]] = {
    "package": _package_bytes,
    "tar": _tar_bytes,
    "member": _member,
    "manifest": _manifest,
    "table": _table,
    "database": _database,
    "record": _record_bytes,
    "values": _values,
    **SQLITE_KINDS,
    "archive": _archive_bytes,
    "header": _archive_headers,
}
"""Kinds of damage, by name; those in `ARCHIVES` are archives, all others packages."""

ARCHIVES: Final = frozenset({"archive", "header"})
"""The kinds that are archives."""


def make_input(base: Base, kind: str, seed: int) -> bytes:
    """Make the input of a kind and a seed."""
    return KINDS[kind](base, random.Random(f"{kind} {seed}"))


class Maker:
    """Makes inputs in a process of its own: commands are forked from this one, so no RocksDB may run here."""

    def __init__(self, directory: Path) -> None:
        """Make the sound ones in `directory`, which is made."""
        command = [sys.executable, "-m", "tests.fuzzing.making", str(directory)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()
        self.base = base_in(directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def make(self, kind: str, seed: int, path: Path) -> None:
        """Write the input of a kind and a seed to `path`."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {seed} {path}\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> None:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "made\n":
            raise RuntimeError("the process that makes inputs has ended")


def _make_all(directory: Path) -> None:
    base = make_base(directory)
    print("made", flush=True)
    for line in sys.stdin:
        kind, seed, path = line.rstrip("\n").split(" ", 2)
        Path(path).write_bytes(make_input(base, kind, int(seed)))
        print("made", flush=True)


if __name__ == "__main__":
    _make_all(Path(sys.argv[1]))
