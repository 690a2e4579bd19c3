"""Damage packages and archives in every way for some minutes, and see that every command ends well."""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.fuzzing.making import ARCHIVES, KINDS, Maker
from tests.fuzzing.running import faults, outcomes

_SEEDS: Final = Path(__file__).with_name("seeds.txt")
_MOUNT_EVERY: Final = 10  # these take three times as long as all others together


def main() -> None:
    """Run it."""
    arguments = _arguments()
    with (
        tempfile.TemporaryDirectory(prefix="flistfs-fuzz-") as scratch,
        Maker(Path(scratch) / "base") as maker,
    ):
        if arguments.flist:
            sys.exit(_try_files(arguments, maker, Path(scratch)))
        found = _try_all(arguments, maker, Path(scratch))
    print(f"{found} inputs found something" if found else "nothing found")
    sys.exit(bool(found))


def _try_files(arguments: argparse.Namespace, maker: Maker, scratch: Path) -> bool:
    """Run all commands on flists, and print a line of JSON for each; return whether anything is wrong."""
    is_wrong = False
    for file in arguments.flist:
        found = outcomes(file.absolute(), "package", maker.base, scratch / "run", mount=arguments.mount)
        wrong = list(faults(found))
        is_wrong |= bool(wrong)
        codes = {outcome.command: outcome.code for outcome in found}
        subprocess.run(["rm", "-rf", scratch / "run"], check=True)
        print(json.dumps({"file": file.name, "codes": codes, "wrong": wrong}), flush=True)
    return is_wrong


def _try_all(arguments: argparse.Namespace, maker: Maker, scratch: Path) -> int:
    kinds = arguments.kind or list(KINDS)
    found = tried = 0
    for tried, (kind, seed) in enumerate(_tasks(arguments, kinds)):
        path = scratch / ("input.tar" if kind in ARCHIVES else "input.flist")
        maker.make(kind, seed, path)
        is_mounted = arguments.mount and tried % _MOUNT_EVERY == 0
        wrong = list(faults(outcomes(path, kind, maker.base, scratch / "run", mount=is_mounted)))
        if wrong:
            found += 1
            arguments.keep.mkdir(parents=True, exist_ok=True)
            (arguments.keep / f"{kind}-{seed}{path.suffix}").write_bytes(path.read_bytes())
            print(f"{kind} {seed}", *wrong, sep="\n  ", flush=True)
        if tried % 100 == 99:
            print(f"{tried + 1} inputs tried, {found} found something", file=sys.stderr, flush=True)
    print(f"{tried + 1} inputs tried")
    return found


def _tasks(arguments: argparse.Namespace, kinds: list[str]) -> Iterator[tuple[str, int]]:
    yield from _kept()
    new = ((kind, seed) for seed in itertools.count(arguments.seed) for kind in kinds)
    if arguments.inputs is not None:
        yield from itertools.islice(new, arguments.inputs)
        return
    end = time.monotonic() + 60 * arguments.minutes
    yield from itertools.takewhile(lambda _: time.monotonic() < end, new)


def _kept() -> list[tuple[str, int]]:
    """Return what found something once."""
    lines = [line.split() for line in _SEEDS.read_text().splitlines() if line and not line.startswith("#")]
    return [(kind, int(seed)) for kind, seed in lines]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("flist", type=Path, nargs="*", help="try these, and make no others")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--inputs", type=int, help="how many to try, however long it takes")
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
