"""Commands, run on damaged inputs in children with bounds, and what is wrong with how they end.

A child is forked from a process that has the program loaded already, which makes hundreds of runs a minute.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import flistfs
from flistfs import cli
from tests.fuzzing.inputs import Base
from tests.fuzzing.making import ARCHIVES

# What a command may end with: done, the store, lost blocks, damage, an output, faults, sources, clashes.
_CODES: Final = frozenset({0, 3, 7, 8, 9, 10, 11, 12})
_TELLING: Final = frozenset({"--deep", "--no-store", "--keep-going"})
# What may be said beside the one line.
_BESIDE: Final = ("note: ", "flistfs: left out: ")
_SECONDS: Final = 300  # of the clock, on a machine that may be busy; the processor has `_CPU`
_MEMORY: Final = 512 << 10  # KiB resident
_ADDRESS_SPACE: Final = 8 << 30
_FILE_SIZE: Final = 1 << 30
_CPU: Final = 20


# Loaded once and not in each child; all that they need comes along with the first that runs there.
for _command in pkgutil.walk_packages(flistfs.__path__, "flistfs."):
    if not _command.name.startswith(("flistfs.daemons.session", "flistfs.daemons.reader")):
        importlib.import_module(_command.name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended."""

    command: str
    code: int
    said: str
    peak: int

    def fault(self) -> str | None:
        """Say what is wrong with it."""
        if self.code not in _CODES:
            return f"it ended with {self.code}"
        lines = [line for line in self.said.splitlines() if not line.startswith(_BESIDE)]
        # Faults are listed, up to a number, before the line that says how many there are.
        is_listed = self.code == 10 and 1 <= len(lines) <= 22
        if "Traceback" in self.said or (self.code and len(lines) != 1 and not is_listed):
            return "it said more than one line, or none"
        if self.peak > _MEMORY:
            return f"it took {self.peak >> 10} MiB"
        return None


def outcomes(path: Path, kind: str, base: Base, scratch: Path, *, mount: bool) -> list[Outcome]:
    """Run all commands on an input."""
    commands = _archive_commands(path) if kind in ARCHIVES else _commands(path, base, mount=mount)
    return [_run(command, base, scratch) for command in commands]


def faults(found: Sequence[Outcome]) -> Iterator[str]:
    """Say what is wrong with how commands ended on one input."""
    for outcome in found:
        if (fault := outcome.fault()) is not None:
            yield f"{outcome.command}: {fault}: {outcome.said[-500:]}"
    codes = {outcome.command: outcome.code for outcome in found}
    if codes.get("verify --deep") == 0 and codes.get("extract") not in {0, None}:
        yield f"verify finds no fault, and extract ends with {codes['extract']}"


def _commands(package: Path, base: Base, *, mount: bool) -> Iterator[Sequence[str]]:
    name, sound = str(package), str(base.package)
    yield from (
        ("ls", name, "-lR"), ("tree", name), ("stat", name, "/"), ("find", name, "--name", "*e*"),
        ("cat", name, "etc/deep/er/three"), ("info", name), ("diff", name, sound), ("diff", sound, name),
        ("verify", name, "--no-store"), ("verify", name, "--deep"), ("extract", name, "out"),
        ("merge", "-o", "merged.flist", name, sound, "--prefer", "last"),
        ("push", name, "--to", "dir:pushed"),
    )  # fmt: skip
    if mount:
        yield "new", "--from", name
        yield "mount", "--read-only", name, "mnt"


def _archive_commands(archive: Path) -> Iterator[Sequence[str]]:
    yield "pack", str(archive), "out.flist"
    yield "pack", str(archive), "out.flist", "--keep-going"


def _run(command: Sequence[str], base: Base, scratch: Path) -> Outcome:
    subprocess.run(["rm", "-rf", scratch], check=True)  # shutil's does not get to the end of deep trees
    (scratch / "mnt").mkdir(parents=True)
    with (scratch / "said").open("w+b") as said:
        child = os.fork()
        if child == 0:
            _be_command(command, base, scratch, said.fileno())
        status, usage = _wait(child)
        said.seek(0)
        text = said.read(1 << 20).decode(errors="replace")
    if command[0] == "mount" and os.waitstatus_to_exitcode(status) == 0:
        _walk(scratch / "mnt")
    name = " ".join(word for word in command if word == command[0] or word in _TELLING)
    return Outcome(name, os.waitstatus_to_exitcode(status), text, usage.ru_maxrss)


def _be_command(command: Sequence[str], base: Base, scratch: Path, said: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        os.chdir(scratch)
        for limit, most in (
            (resource.RLIMIT_AS, _ADDRESS_SPACE),
            (resource.RLIMIT_CPU, _CPU),
            (resource.RLIMIT_FSIZE, _FILE_SIZE),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(limit, (most, most))
        null = os.open(os.devnull, os.O_RDWR)
        for number, target in ((0, null), (1, null), (2, said)):
            os.dup2(target, number)
        os.environ |= {"FLISTFS_STORE": base.store, "COLUMNS": "200", "TMPDIR": str(scratch)}
        os.environ |= {f"XDG_{kind}_HOME": str(scratch / kind.lower()) for kind in ("STATE", "DATA", "CACHE")}
        sys.argv = ["flistfs", *(word.replace("dir:pushed", f"dir://{scratch}/p") for word in command)]
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        os._exit(code)


def _wait(child: int) -> tuple[int, resource.struct_rusage]:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return status, usage
        time.sleep(0.002)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return status, usage


def _walk(mountpoint: Path) -> None:
    """Look at everything in a mount, and unmount it; errors of reading are what it answers with."""
    reading = ["find", ".", "-type", "f", "-exec", "cat", "{}", "+"]
    try:
        subprocess.run(reading, cwd=mountpoint, capture_output=True, timeout=_SECONDS, check=False)
    finally:
        subprocess.run(["umount", mountpoint], check=True)
