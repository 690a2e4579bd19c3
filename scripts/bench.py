"""The measurements of scripts/bench."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

from flistfs.format.codec import encode_block  # noqa: E402
from flistfs.format.records import CHUNK_SIZE  # noqa: E402
from tests.redis_server import running_redis  # noqa: E402

FLISTFS = Path(sys.executable).with_name("flistfs")
MIB = 1 << 20


@dataclass(frozen=True)
class Input:
    """A tree to copy: how it is made, and what it is."""

    what: str
    make: Callable[[Path], None]


def make_large(folder: Path) -> None:
    with (folder / "large").open("wb") as file:
        for _ in range(1024):
            file.write(os.urandom(MIB))


def make_small(folder: Path) -> None:
    """5,000 files of 13 KB on average: text, as in /usr/share/doc."""
    chance = random.Random(2)
    words = [bytes(chance.choices(b"etaoinshrdlu", k=chance.randrange(2, 9))) for _ in range(2000)]
    for number in range(5000):
        path = folder / f"d{number % 100}" / f"f{number}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b" ".join(chance.choices(words, k=chance.randrange(50, 4000))))


def make_library(folder: Path) -> None:
    """The Python standard library with its compiled files, without what is installed on top."""
    source = Path(os.__file__).parent
    shutil.copytree(source, folder / "lib", symlinks=True, ignore=shutil.ignore_patterns("site-packages"))
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([sys.executable, "-m", "compileall", "-qq", folder], check=False, env=environment)


def make_many(folder: Path, count: int = 100_000) -> None:
    for number in range(count):
        path = folder / f"d{number % 1000}" / f"f{number}"
        if number < 1000:
            path.parent.mkdir()
        path.write_bytes(b"line %d\n" % number if number % 2 else b"")


INPUTS = {
    "large": Input("one random file of 1 GiB", make_large),
    "small": Input("5,000 small files", make_small),
    "library": Input("Python's standard library", make_library),
    "many": Input("100,000 tiny files in 1,000 directories", make_many),
    "million": Input("1,000,000 tiny files", lambda folder: make_many(folder, 1_000_000)),
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


# flistfs


@contextmanager
def session(work: Path, store: str, **environment: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """Mount a fresh session, and leave nothing of it."""
    home = Path(tempfile.mkdtemp(dir=work))
    mountpoint = home / "mount"
    mountpoint.mkdir()
    env = {**os.environ, "XDG_STATE_HOME": str(home / "state"), **environment}
    run(FLISTFS, "mount", mountpoint, "--store", store, env=env)
    try:
        yield mountpoint, env
    finally:
        if mountpoint.is_mount():
            run(FLISTFS, "abort", "--yes", env=env)
        shutil.rmtree(home)


def through_mount(source: Path, work: Path, store: str, **environment: str) -> dict[str, Any]:
    """Copy a tree into a mount, wait for the store, seal."""
    with session(work, store, **environment) as (mountpoint, env):
        found: dict[str, Any] = {"copy": copy(source, mountpoint)}
        found["sync"] = timed(lambda: run(FLISTFS, "sync", env=env))
        (status,) = json.loads(run(FLISTFS, "status", "--json", env=env).stdout)
        daemon = Path("/proc") / (Path(status["state_directory"]) / "lock").read_text()
        ticks = (daemon / "stat").read_text().rpartition(")")[2].split()
        found["cpu"] = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
        memory = (daemon / "status").read_text().partition("VmHWM:")[2].split()[0]
        found["memory"] = int(memory) * 1024
        found["requests"] = status["requests"]
        found["entries"] = status["files"] + status["directories"] + status["links"]
        found["files"] = status["files"]
        found["blocks"] = status["new_blocks"]
        sealed = run(FLISTFS, "seal", mountpoint.parent / "out.flist", "--json", env=env)
        found["seal"] = json.loads(sealed.stdout)["seconds"]
        found["total"] = found["copy"] + found["sync"] + found["seal"]
        return found


def measure(source: Path, work: Path) -> dict[str, Any]:
    """Measure everything once."""
    found: dict[str, Any] = {
        "plain copy": plain_copy(source, work),
        "tar | gzip": tar(source, work),
        "empty file system": empty_fs(source, work),
        "codec, one core": codec(source, 1),
        "codec, two cores": codec(source, 2),
    }
    with running_redis() as server:
        found["mount, redis"] = through_mount(source, work, server.url)
    with running_redis() as server:
        found["mount, redis, stock loop"] = through_mount(source, work, server.url, FLISTFS_STOCK_LOOP="1")
    found["mount, directory"] = through_mount(source, work, f"dir://{work}/blocks")
    shutil.rmtree(work / "blocks")
    return found


# Reporting


def medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Take the median of each number; of what is no number, the last."""
    found: dict[str, Any] = {}
    for name, value in rounds[-1].items():
        values = [each[name] for each in rounds]
        if isinstance(value, dict):
            found[name] = medians(values)
        else:
            found[name] = statistics.median(values) if isinstance(value, int | float) else value
    return found


def print_table(name: str, size: int, found: dict[str, Any]) -> None:
    floor = found["empty file system"]
    limit = found["codec, two cores"]
    print(f"\n{INPUTS[name].what} ({size / MIB:.0f} MiB)\n")
    print(f"{'':28}{'seconds':>9}{'/ floor':>9}{'codec /':>9}")
    for what, value in found.items():
        seconds = value["total"] if isinstance(value, dict) else value
        print(f"{what:28}{seconds:9.2f}{seconds / floor:9.2f}{limit / seconds:9.2f}")
        if isinstance(value, dict):
            requests = sum(value["requests"].values()) / max(value["files"], 1)
            print(
                f"    copy {value['copy']:.2f}, sync {value['sync']:.2f}, seal {value['seal']:.2f} "
                f"({1e6 * value['seal'] / value['entries']:.0f} µs an entry); daemon: {value['cpu']:.1f} s "
                f"CPU, {value['memory'] / MIB:.0f} MiB, {requests:.1f} requests a file"
            )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--input", action="append", choices=INPUTS, help="only this one; repeatable")
    parser.add_argument("--scale", action="store_true", help="with a million files too")
    parser.add_argument("--quick", action="store_true", help="small files only, one round")
    options = parser.parse_args()
    names = options.input or (["small"] if options.quick else ["large", "small", "library", "many"])
    if options.scale:
        names.append("million")
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="flistfs-bench-") as folder:
        work = Path(folder)
        for name in names:
            source = work / "source"
            source.mkdir()
            INPUTS[name].make(source)
            size = sum(path.lstat().st_size for path in source.rglob("*") if path.is_file())
            rounds = [measure(source, work) for _ in range(1 if options.quick else options.rounds)]
            shutil.rmtree(source)
            report[name] = medians(rounds)
            if not options.json:
                print_table(name, size, report[name])
    if options.json:
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
