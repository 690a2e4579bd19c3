"""Measure flistfs for scripts/bench."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT))

import python_build  # noqa: E402  beside this file
from bench_formats import compare, print_formats  # noqa: E402  beside this file
from bench_inputs import INPUTS, codec, copy, empty_fs, make_many, plain_copy, run, tar, timed  # noqa: E402  beside this file
from bench_report import medians, print_growth, print_special, print_table  # noqa: E402  beside this file

from flistfs.authoring.sealing.blocks import lost_blocks  # noqa: E402
from flistfs.authoring.state.directory import SessionDirectory  # noqa: E402
from flistfs.authoring.state.journal import Journal  # noqa: E402
from flistfs.authoring.state.view import View  # noqa: E402
from flistfs.sources.excludes import nothing_excluded  # noqa: E402
from flistfs.util.progress import quiet  # noqa: E402
from tests.generation1 import open_store  # noqa: E402
from tests.redis_server import running_redis  # noqa: E402

FLISTFS = Path(sys.executable).with_name("flistfs")
MIB = 1 << 20


# flistfs


@contextmanager
def home(work: Path, **environment: str) -> Iterator[tuple[Path, dict[str, str]]]:
    """Create a home directory without any state or cache of flistfs, and remove it afterwards."""
    directory = Path(tempfile.mkdtemp(dir=work))
    own = {f"XDG_{kind.upper()}_HOME": str(directory / kind) for kind in ("state", "data", "cache")}
    try:
        yield directory, {**os.environ, **own, **environment}
    finally:
        shutil.rmtree(directory)


@contextmanager
def session(
    work: Path, store: str, *options: str, **environment: str
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Mount a new session, and discard it afterwards."""
    with home(work, **environment) as (directory, env):
        mountpoint = directory / "mount"
        mountpoint.mkdir()
        run(FLISTFS, "mount", mountpoint, "--store", store, *options, env=env)
        try:
            yield mountpoint, env
        finally:
            if mountpoint.is_mount():
                run(FLISTFS, "abort", "--yes", env=env)


def status_of(env: dict[str, str]) -> dict[str, Any]:
    (status,) = json.loads(run(FLISTFS, "status", "--json", env=env).stdout)
    assert isinstance(status, dict)
    return status


def daemon_of(status: dict[str, Any]) -> int:
    """Return the process that serves a session."""
    return int((Path(status["state_directory"]) / "lock").read_text())


def processes_of(daemon: int) -> list[int]:
    """Return a daemon and the processes that encode for it."""
    return [daemon, *map(int, Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split())]


def cpu_of(process: int) -> float:
    """Return the CPU seconds of a process."""
    ticks = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")


def memory_of(process: int) -> int:
    """Return the most memory that a process ever had, in bytes."""
    return int(Path(f"/proc/{process}/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def through_mount(source: Path, work: Path, store: str, *options: str, **environment: str) -> dict[str, Any]:
    """Copy a tree into a mount, wait for the store, seal."""
    with session(work, store, *options, **environment) as (mountpoint, env):
        found: dict[str, Any] = {"copy": copy(source, mountpoint)}
        found["sync"] = timed(lambda: run(FLISTFS, "sync", env=env))
        status = status_of(env)
        daemon, *encoders = processes_of(daemon_of(status))
        found["cpu"] = cpu_of(daemon)
        found["encoders_cpu"] = sum(map(cpu_of, encoders))
        found["memory"] = memory_of(daemon)
        found["encoders_memory"] = sum(map(memory_of, encoders))
        found["requests"] = status["requests"]
        found["entries"] = status["files"] + status["directories"] + status["links"]
        found["files"] = status["files"]
        found["blocks"] = status["new_blocks"]
        sealed = run(FLISTFS, "seal", mountpoint.parent / "out.flist", "--json", env=env)
        found["seal"] = json.loads(sealed.stdout)["seconds"]
        found["total"] = found["copy"] + found["sync"] + found["seal"]
        return found


def packing(source: Path, work: Path, store: str) -> dict[str, float]:
    """Pack a tree into an empty store, and again into one that has all its blocks."""
    with home(work) as (directory, env):
        cold, warm = (
            timed(lambda out=out: run(FLISTFS, "pack", source, directory / out, "--store", store, env=env))
            for out in ("cold.flist", "warm.flist")
        )
    return {"cold": cold, "warm": warm}


def packing_archive(source: Path, work: Path) -> float:
    """Pack a tree as a tar archive into an empty store in a directory."""
    archive = work / "archive.tar"
    run("tar", "--format=posix", "-C", source, "-cf", archive, ".")
    try:
        with home(work) as (directory, env):
            store = f"dir://{directory}/blocks"
            return timed(
                lambda: run(FLISTFS, "pack", archive, directory / "out.flist", "--store", store, env=env)
            )
    finally:
        archive.unlink()


def memory_of_pipe(work: Path) -> float:
    """Pack an archive with one member of 3 GiB from a pipe; return the most memory of a process, in MiB."""
    count = 3 << 10
    member = tarfile.TarInfo("large")
    member.size = count * MIB
    with home(work) as (directory, env):
        command = [FLISTFS, "pack", "-", directory / "out.flist", "--store", f"dir://{directory}/blocks"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=env) as pack:
            assert pack.stdin is not None
            pack.stdin.write(member.tobuf(tarfile.GNU_FORMAT))
            for number in range(count):
                pack.stdin.write(number.to_bytes(8, "big") * (MIB // 8))
            pack.stdin.write(bytes(1024))
            pack.stdin.close()
            _, status, used = os.wait4(pack.pid, 0)
            pack.returncode = os.waitstatus_to_exitcode(status)
        assert pack.returncode == 0
    return used.ru_maxrss / 1024


def checked(view: View, url: str) -> tuple[float, int]:
    """Return the seconds of the check, and how many blocks were asked for."""
    store = open_store(url)
    return timed(lambda: lost_blocks(view, store, nothing_excluded, quiet)), sum(1 for _ in view.blocks())


def check_of_store(source: Path, work: Path) -> float:
    """Measure how a seal asks the store for every block; return the seconds for each block."""
    with running_redis() as server, home(work) as (directory, env):
        run(FLISTFS, "new", directory / "name", "--store", server.url, env=env)
        run(FLISTFS, "add", f"{source}/.", env=env)
        state = SessionDirectory(Path(status_of(env)["state_directory"]))
        journal = Journal(state.journal)
        try:
            with journal.freeze(state.view) as view:
                seconds, blocks = checked(view, server.url)
        finally:
            journal.close()
    return seconds / blocks


def write_whole(path: Path, data: bytes) -> None:
    with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
        for start in range(0, len(data), MIB):
            file.write(data[start : start + MIB])


def special_writes(work: Path) -> dict[str, float]:
    """Measure what linkers and databases do: reserving before writing, and writing into what is stored."""
    found: dict[str, float] = {}
    data = os.urandom(64 * MIB)
    with session(work, f"dir://{work}/blocks") as (mountpoint, env):
        found["64 MiB written"] = timed(lambda: write_whole(mountpoint / "plain", data))

        def reserve_and_write() -> None:
            with (mountpoint / "reserved").open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, len(data))
            write_whole(mountpoint / "reserved", data)

        found["64 MiB reserved, then written"] = timed(reserve_and_write)
        large = mountpoint / "large"
        for _ in range(16):
            with large.open("ab", buffering=0) as file:
                file.write(os.urandom(64 * MIB))
        run(FLISTFS, "sync", env=env)
        blocks = status_of(env)["new_blocks"]

        def overwrite() -> None:
            with large.open("r+b", buffering=0) as file:
                file.seek(300 * MIB + 1000)
                file.write(data[:MIB])
            run(FLISTFS, "sync", env=env)

        found["1 MiB over a part of 1 GiB that is stored"] = timed(overwrite)
        found["blocks that this stored"] = status_of(env)["new_blocks"] - blocks
    shutil.rmtree(work / "blocks")
    return found


def thread_time_of(process: int) -> float:
    """Return the CPU seconds of a process, to the nanosecond (proc(5), schedstat), while its threads live."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


def truncate(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))


def sync_file(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def rename_over(path: Path) -> None:
    path.rename(path.with_name("0"))


# What is done to each of 500 small files, one after the other; `rm -r` is of 2,000.
OPERATIONS: dict[str, Callable[[Path], object]] = {
    "fsync": sync_file,
    "O_TRUNC": truncate,
    "rename over": rename_over,
    "unlink": Path.unlink,
}


def after_many(work: Path, count: int) -> dict[str, float]:
    """Measure operations in a session that has had `count` files stored since theirs were made.

    Returns the daemon's CPU seconds for each, since what else runs on the machine leaves those alone.
    """
    found: dict[str, float] = {}
    with session(work, f"dir://{work}/blocks") as (mountpoint, env):
        for name, files in (*((name, 500) for name in OPERATIONS), ("rm -r", 2000)):
            (mountpoint / name).mkdir()
            for number in range(files):
                (mountpoint / name / str(number)).write_bytes(b"line %d\n" % number)
        make_many(mountpoint, count)
        run(FLISTFS, "sync", env=env)
        daemon = daemon_of(status_of(env))
        for name, operation in OPERATIONS.items():
            paths = sorted((mountpoint / name).iterdir())
            before = thread_time_of(daemon)
            for path in paths:
                operation(path)
            found[name] = (thread_time_of(daemon) - before) / len(paths)
        before = thread_time_of(daemon)
        run("rm", "-r", mountpoint / "rm -r")
        found["rm -r, for each"] = (thread_time_of(daemon) - before) / 2000
    shutil.rmtree(work / "blocks")
    return found


def as_files_grow(work: Path) -> dict[str, dict[str, float]]:
    """Measure how the cost of operations grows with the files that a session has had."""
    few, many = (after_many(work, count) for count in (1_000, 100_000))
    return {what: {"few": few[what], "many": many[what], "ratio": many[what] / few[what]} for what in few}


def through_mount_to_directory(source: Path, work: Path) -> dict[str, Any]:
    """Do what `through_mount` does, with blocks in a directory of this machine."""
    try:
        return through_mount(source, work, f"dir://{work}/blocks")
    finally:
        shutil.rmtree(work / "blocks")


def measure(source: Path, work: Path, *, scale: bool) -> dict[str, Any]:
    """Measure everything once, or how it scales."""
    if scale:
        return {
            "plain copy": plain_copy(source, work),
            "mount, directory": through_mount_to_directory(source, work),
        }
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
        found["mount --low-latency, redis"] = through_mount(source, work, server.url, "--low-latency")
    with running_redis() as server:
        found["mount, redis, stock loop"] = through_mount(source, work, server.url, FLISTFS_STOCK_LOOP="1")
    with running_redis() as server:
        found["mount --rootfs, redis"] = through_mount(source, work, server.url, "--rootfs")
    found["mount, directory"] = through_mount_to_directory(source, work)
    found["check of a block"] = check_of_store(source, work)
    with running_redis() as server:
        for when, seconds in packing(source, work, server.url).items():
            found[f"pack, redis, {when}"] = seconds
    for when, seconds in packing(source, work, f"dir://{work}/blocks").items():
        found[f"pack, directory, {when}"] = seconds
    shutil.rmtree(work / "blocks")
    found["pack a tar, directory, cold"] = packing_archive(source, work)
    return found


def inputs_of(options: argparse.Namespace) -> list[str]:
    """Return the names of the trees to copy."""
    usual = ["small"] if options.quick else [] if options.growth else ["large", "small", "library", "many"]
    return (options.input or usual) + (["few", "million", "huge"] if options.scale else [])


def measure_input(name: str, work: Path, options: argparse.Namespace) -> dict[str, Any]:
    source = work / "source"
    source.mkdir()
    INPUTS[name].make(source)
    size = sum(path.lstat().st_size for path in source.rglob("*") if path.is_file())
    scale = INPUTS[name].scale
    rounds = 1 if options.quick or scale else options.rounds
    found = medians([measure(source, work, scale=scale) for _ in range(rounds)])
    shutil.rmtree(source)
    if not options.json:
        print_table(INPUTS[name].what, size, found)
    return found


def measure_rest(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything other than copying trees."""
    found: dict[str, Any] = {}
    if not options.growth:
        found["special writes"] = medians([special_writes(work) for _ in range(options.rounds)])
        found["special writes"]["MiB of memory, pack of 3 GiB from a pipe"] = memory_of_pipe(work)
    found["growth"] = medians([as_files_grow(work) for _ in range(options.rounds)])
    if not options.json:
        for what, show in (("special writes", print_special), ("growth", print_growth)):
            if what in found:
                show(found[what])
    return found


def measure_formats(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure both formats side by side."""
    found: dict[str, Any] = {}
    for name in options.input or ["small", "library"]:
        source = work / "source"
        source.mkdir()
        INPUTS[name].make(source)
        found[f"formats, {name}"] = compare(source, work, 1 if options.quick else options.rounds)
        shutil.rmtree(source)
        if not options.json:
            print_formats(INPUTS[name].what, found[f"formats, {name}"])
    return found


def measure_all(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure whatever the options choose."""
    if options.formats:
        return measure_formats(work, options)
    found = {name: measure_input(name, work, options) for name in inputs_of(options)}
    if options.growth:
        return found | measure_rest(work, options)
    if not (options.input or options.quick):
        found |= measure_rest(work, options) | measure_formats(work, options)
    return found


def machine() -> dict[str, str | int]:
    """Return what the measurements depend on apart from flistfs: Python and its build, kernel, cores."""
    cores = len(os.sched_getaffinity(0))
    return {"python": python_build.describe(), "kernel": platform.release(), "cores": cores}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--input", action="append", choices=INPUTS, help="only this one; repeatable")
    parser.add_argument(
        "--scale", action="store_true", help="with 10,000 and 1,000,000 files and 8 GiB too, on a mount only"
    )
    parser.add_argument(
        "--growth", action="store_true", help="only what operations cost after 1,000 and 100,000 files"
    )
    parser.add_argument("--formats", action="store_true", help="only both formats, side by side")
    parser.add_argument("--quick", action="store_true", help="small files only, one round")
    options = parser.parse_args()
    report: dict[str, Any] = {"machine": machine()}
    if not options.json:
        print("\n".join(f"{name}: {value}" for name, value in report["machine"].items()), flush=True)
    with tempfile.TemporaryDirectory(prefix="flistfs-bench-") as directory:
        report |= measure_all(Path(directory), options)
    if options.json:
        print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
