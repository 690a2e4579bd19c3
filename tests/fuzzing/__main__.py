"""Damage packages and archives in every way for some minutes, and see that every command ends well."""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.fuzzing.inputs import ARCHIVES, KINDS, Maker
from tests.fuzzing.running import try_input

_SEEDS: Final = Path(__file__).with_name("seeds.txt")
_MOUNT_EVERY: Final = 25  # mounting takes as long as all other commands together


def main() -> None:
    """Run it."""
    arguments = _arguments()
    with (
        tempfile.TemporaryDirectory(prefix="flistfs-fuzz-") as scratch,
        Maker(Path(scratch) / "base") as maker,
    ):
        found = _try_all(arguments, maker, Path(scratch))
    print(f"{found} inputs found something" if found else "nothing found")
    sys.exit(bool(found))


def _try_all(arguments: argparse.Namespace, maker: Maker, scratch: Path) -> int:
    kinds = arguments.kind or list(KINDS)
    found = tried = 0
    for tried, (kind, seed) in enumerate(_tasks(arguments, kinds)):
        path = scratch / ("input.tar" if kind in ARCHIVES else "input.flist")
        maker.make(kind, seed, path)
        is_mounted = arguments.mount and tried % _MOUNT_EVERY == 0
        faults = list(try_input(path, kind, maker.base, scratch / "run", mount=is_mounted))
        if faults:
            found += 1
            arguments.keep.mkdir(parents=True, exist_ok=True)
            (arguments.keep / f"{kind}-{seed}{path.suffix}").write_bytes(path.read_bytes())
            print(f"{kind} {seed}", *faults, sep="\n  ", flush=True)
        if tried % 100 == 99:
            print(f"{tried + 1} inputs tried, {found} found something", file=sys.stderr, flush=True)
    print(f"{tried + 1} inputs tried")
    return found


def _tasks(arguments: argparse.Namespace, kinds: list[str]) -> Iterator[tuple[str, int]]:
    yield from _kept()
    end = time.monotonic() + 60 * arguments.minutes
    for seed in itertools.count(arguments.seed):
        for kind in kinds:
            if time.monotonic() > end:
                return
            yield kind, seed


def _kept() -> list[tuple[str, int]]:
    """Return what found something once."""
    lines = [line.split() for line in _SEEDS.read_text().splitlines() if line and not line.startswith("#")]
    return [(kind, int(seed)) for kind, seed in lines]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--kind", action="append", choices=list(KINDS), help="only this kind; may be repeated"
    )
    parser.add_argument("--mount", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-found"), help="where inputs go that found something"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
