"""The format sqlite, measured against rocksdb, side by side: for scripts/bench."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from bench_inputs import chunks_of, run, timed  # noqa: E402  beside this file
from bench_report import medians  # noqa: E402  beside this file

from flistfs.format.opening import formats  # noqa: E402

FLISTFS = Path(sys.executable).with_name("flistfs")

READING: dict[str, tuple[str, ...]] = {
    "find": ("find", "out.flist"),
    "info": ("info", "out.flist"),
    "verify --no-store": ("verify", "out.flist", "--no-store"),
    "verify --deep": ("verify", "out.flist", "--deep"),
    "diff": ("diff", "out.flist", "out.flist"),
    "merge": ("merge", "out.flist", "-o", "merged.flist"),
    "extract": ("extract", "out.flist", "copy"),
}
"""What is done with a sealed flist."""


def compare(source: Path, work: Path, rounds: int) -> dict[str, dict[str, float]]:
    """Return for each thing measured the median seconds of each format, by name, and their ratio."""
    measured = medians(
        [{each.name: dict(_measured(each.name, source, work)) for each in formats()} for _ in range(rounds)]
    )
    first, second = (measured[each.name] for each in formats())
    names = [each.name for each in formats()]
    return {
        what: {names[0]: first[what], names[1]: second[what], "ratio": second[what] / first[what]}
        for what in first
    }


def print_formats(title: str, found: dict[str, dict[str, float]]) -> None:
    names = [each.name for each in formats()]
    print(f"\n{title}\n\n{'seconds':24}{names[0]:>9}{names[1]:>9}{'ratio':>8}")
    for what, value in found.items():
        print(f"{what:24}{value[names[0]]:9.2f}{value[names[1]]:9.2f}{value['ratio']:8.2f}")


def _measured(format_: str, source: Path, work: Path) -> Iterator[tuple[str, float]]:
    """Measure one format once, in a home of its own, with blocks in a directory."""
    yield from _codec(format_, source)
    home = Path(tempfile.mkdtemp(dir=work))
    env = {f"XDG_{kind.upper()}_HOME": str(home / kind) for kind in ("state", "data", "cache")}
    env |= {"PATH": "/usr/bin:/bin", "FLISTFS_FORMAT": format_}

    def flistfs(*arguments: str | Path) -> None:
        run(FLISTFS, *arguments, cwd=home, env=env)

    def through_mount() -> None:
        (home / "mount").mkdir()
        flistfs("mount", home / "mount")
        run("cp", "-r", f"{source}/.", home / "mount")
        flistfs("seal", "mounted.flist")

    try:
        yield "cp into a mount, seal", timed(through_mount)
        shutil.rmtree(home / "data")
        shutil.rmtree(home / "cache", ignore_errors=True)
        yield "pack", timed(lambda: flistfs("pack", source, "out.flist"))
        yield "pack again", timed(lambda: flistfs("pack", source, "again.flist"))
        for what, command in READING.items():
            yield what, timed(lambda command=command: flistfs(*command))
    finally:
        shutil.rmtree(home)


def _codec(name: str, source: Path) -> Iterator[tuple[str, float]]:
    """Encode and decode all chunks on one core; reading them from the page cache is part of encoding."""
    (codec,) = (each.codec for each in formats() if each.name == name)
    blocks = []
    yield "codec: encode", timed(lambda: blocks.extend(map(codec.encode, chunks_of(source))))
    stored = [(block.stored, block.ref) for block in blocks]
    yield "codec: decode", timed(lambda: [codec.decode(*each) for each in stored])
