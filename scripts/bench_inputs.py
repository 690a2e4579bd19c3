"""What scripts/bench copies, and what flistfs is measured against."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))


from flistfs.tree.chunks import CHUNK_SIZE  # noqa: E402
from tests.generation1 import encode_block  # noqa: E402

FLISTFS = Path(sys.executable).with_name("flistfs")
MIB = 1 << 20


@dataclass(frozen=True)
class Input:
    """A tree to copy: how it is made, and what it is.

    Of what is there for `scale` only the mount is measured, on a directory store: how memory and the cost
    of a file grow. All else would take hours.
    """

    what: str
    make: Callable[[Path], None]
    scale: bool = False


def make_large(directory: Path) -> None:
    with (directory / "large").open("wb") as file:
        for _ in range(1024):
            file.write(os.urandom(MIB))


def make_small(directory: Path) -> None:
    """5,000 files of 13 KB on average: text, as in /usr/share/doc."""
    chance = random.Random(2)
    words = [bytes(chance.choices(b"etaoinshrdlu", k=chance.randrange(2, 9))) for _ in range(2000)]
    for number in range(5000):
        path = directory / f"d{number % 100}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b" ".join(chance.choices(words, k=chance.randrange(50, 4000))))


def make_library(directory: Path) -> None:
    """The Python standard library with its compiled files, without what is installed on top."""
    source = Path(os.__file__).parent
    shutil.copytree(source, directory / "lib", symlinks=True, ignore=shutil.ignore_patterns("site-packages"))
    subprocess.run([sys.executable, "-m", "compileall", "-qq", directory], check=False)


def make_many(directory: Path, count: int = 100_000) -> None:
    for number in range(count):
        path = directory / f"d{number % 1000}" / f"f{number}"
        if number < 1000:
            path.parent.mkdir()
        path.write_bytes(b"line %d\n" % number if number % 2 else b"")


def make_huge(directory: Path) -> None:
    with (directory / "huge").open("wb") as file:
        for _ in range(8 * 1024):
            file.write(os.urandom(MIB))


INPUTS = {
    "large": Input("one random file of 1 GiB", make_large),
    "small": Input("5,000 small files", make_small),
    "library": Input("Python's standard library", make_library),
    "many": Input("100,000 tiny files in 1,000 directories", make_many),
    "few": Input(
        "10,000 tiny files in 1,000 directories", lambda directory: make_many(directory, 10_000), scale=True
    ),
    "million": Input("1,000,000 tiny files", lambda directory: make_many(directory, 1_000_000), scale=True),
    "huge": Input("one random file of 8 GiB", make_huge, scale=True),
}


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)


def copy(source: Path, target: Path) -> float:
    return timed(lambda: run("cp", "-r", f"{source}/.", target))


# What flistfs is measured against


def plain_copy(source: Path, work: Path) -> float:
    (work / "copy").mkdir()
    try:
        return copy(source, work / "copy")
    finally:
        shutil.rmtree(work / "copy")


def tar(source: Path, work: Path) -> float:
    return timed(lambda: run("sh", "-c", f"tar -C '{source}' -cf - . | gzip > '{work}/tar.gz'"))


def empty_fs(source: Path, work: Path) -> float:
    mountpoint = work / "empty"
    mountpoint.mkdir(exist_ok=True)
    command: list[str | Path] = [sys.executable, PROJECT / "scripts/empty_fs.py", mountpoint]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            return copy(source, mountpoint)
        finally:
            run("fusermount3", "-u", mountpoint)


def chunks_of(source: Path) -> Iterator[bytes]:
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                while chunk := file.read(CHUNK_SIZE):
                    yield chunk


def codec(source: Path, threads: int) -> float:
    """Encode the same bytes and nothing else; reading them from the page cache is part of it."""
    chunks = chunks_of(source)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                chunk = next(chunks, None)
            if chunk is None:
                return
            encode_block(chunk)

    workers = [threading.Thread(target=work) for _ in range(threads)]

    def encode_all() -> None:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return timed(encode_all)
