"""Kill the daemon at any moment, and see that nothing is lost that had been promised.

A random workload runs in a mount. Every operation that has returned there is done again in a directory on the
ordinary disk, the record; so the record is what has to be there after a kill, and at most one operation, the
one in flight, is not in it. Of that one either nothing or all is seen afterwards, and of a write any part of
its own range.

    python -m tests.e2e.killing --kills 200 --seed 1

It is one file because a kill may come anywhere between an operation, its record and the comparison: each of
them can only be read beside the others.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import click

from flistfs.authoring.state.directory import SessionDirectory
from flistfs.fuse import mounts
from tests.e2e.commands import FLISTFS, TIMEOUT, Home, wait_until
from tests.independent_reader import CHUNK, Node, read_content, read_flist
from tests.snapshots import below

# The tree is kept below this, so that looking at all of it after each kill stays quick.
_MAX_NAMES = 220
_MAX_BYTES = 24 << 20

_MAX_OPEN = 4
_MODES = (0o600, 0o640, 0o644, 0o700, 0o755)

# So many differences are told; the others are of the same kind.
_TOLD = 10


class LossError(AssertionError):
    """Something that was promised is not there."""


class ShortWriteError(OSError):
    """A write was interrupted: what it says it took is promised."""

    def __init__(self, written: int) -> None:
        super().__init__(f"only {written} bytes were taken")
        self.written = written


def _whole(written: int, length: int) -> None:
    if written != length:
        raise ShortWriteError(written)


# Operations


@dataclass
class Side:
    """One of the two trees, with its open files by the numbers that operations know them by."""

    root: Path
    files: dict[int, int] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Where a name is on this side."""
        return self.root / name

    def close_all(self) -> None:
        """Close what is open, on a dead mount too."""
        for descriptor in self.files.values():
            with suppress(OSError):
                os.close(descriptor)
        self.files.clear()


@dataclass(frozen=True)
class Operation:
    """One system call, to be done on either side. A write can be torn: it says where."""

    text: str
    do: Callable[[Side], object]
    handle: int | None = None
    offset: int = 0
    data: bytes = b""


def open_file(handle: int, name: str, flags: int, mode: int = 0o644) -> Operation:
    """Open or make a file."""

    def do(side: Side) -> None:
        side.files[handle] = os.open(side.path(name), flags | os.O_RDWR | os.O_CLOEXEC, mode)

    return Operation(f"open {name} as {handle}, flags {flags:#o}, mode {mode:o}", do)


def close_file(handle: int) -> Operation:
    """Close a file."""
    return Operation(f"close {handle}", lambda side: os.close(side.files.pop(handle)))


def write(handle: int, offset: int, data: bytes) -> Operation:
    """Write all of `data` at an offset."""

    def do(side: Side) -> None:
        _whole(os.pwrite(side.files[handle], data, offset), len(data))

    return Operation(f"write {len(data)} bytes at {offset} of {handle}", do, handle, offset, data)


def append(handle: int, size: int, data: bytes) -> Operation:
    """Write at the end of a file of `size` bytes that is open with O_APPEND."""

    def do(side: Side) -> None:
        _whole(os.write(side.files[handle], data), len(data))

    return Operation(f"append {len(data)} bytes to the {size} of {handle}", do, handle, size, data)


def resize_open(handle: int, size: int) -> Operation:
    """Change the size of an open file."""
    return Operation(f"ftruncate {handle} to {size}", lambda side: os.ftruncate(side.files[handle], size))


def resize(name: str, size: int) -> Operation:
    """Change the size of a file."""
    return Operation(f"truncate {name} to {size}", lambda side: os.truncate(side.path(name), size))


def fsync(handle: int) -> Operation:
    """Flush a file."""
    return Operation(f"fsync {handle}", lambda side: os.fsync(side.files[handle]))


def rename(old: str, new: str) -> Operation:
    """Rename, over what is there."""
    return Operation(f"rename {old} to {new}", lambda side: side.path(old).replace(side.path(new)))


def link(old: str, new: str) -> Operation:
    """Make a hard link."""
    return Operation(f"link {old} as {new}", lambda side: side.path(new).hardlink_to(side.path(old)))


def symlink(target: str, name: str) -> Operation:
    """Make a symbolic link."""
    return Operation(f"symlink {name} to {target}", lambda side: side.path(name).symlink_to(target))


def unlink(name: str) -> Operation:
    """Remove a name."""
    return Operation(f"unlink {name}", lambda side: side.path(name).unlink())


def mkdir(name: str, mode: int) -> Operation:
    """Make a directory."""
    return Operation(f"mkdir {name}, mode {mode:o}", lambda side: side.path(name).mkdir(mode))


def rmdir(name: str) -> Operation:
    """Remove a directory."""
    return Operation(f"rmdir {name}", lambda side: side.path(name).rmdir())


def chmod(name: str, mode: int) -> Operation:
    """Change permissions."""
    return Operation(f"chmod {name} to {mode:o}", lambda side: side.path(name).chmod(mode))


# What to do next


class Workload:
    """Operations without end that make sense for the tree in the record, chosen by a seeded generator."""

    def __init__(self, record: Side, chance: random.Random) -> None:
        self._record = record
        self._chance = chance
        self._last = 0  # number of the last name or handle
        self._directories: list[str] = []
        self._files: list[str] = []
        self._links: list[str] = []
        self._size = 0

    def operations(self) -> Iterator[Operation]:
        """Go on for ever; each operation is done before the next is asked for."""
        actions: list[tuple[int, Callable[[], Iterator[Operation]]]] = [
            (30, self._new_file),
            (3, self._many_small_files),
            (10, self._overwrite),
            (8, self._append),
            (8, self._resize),
            (5, self._rewrite),
            (8, self._replace),
            (10, self._write_to_open),
            (5, self._close_one),
            (8, self._rename),
            (8, self._remove),
            (5, self._make_directory),
            (3, self._remove_directory),
            (5, self._hard_link),
            (5, self._symbolic_link),
            (6, self._change_mode),
        ]
        weights = [weight for weight, _ in actions]
        while True:
            self._look()
            if len(self._files) + len(self._links) > _MAX_NAMES or self._size > _MAX_BYTES:
                yield from self._make_room()
            else:
                ((_, action),) = self._chance.choices(actions, weights)
                yield from action()

    def _look(self) -> None:
        """Read from the record what there is."""
        self._directories, self._files, self._links, self._size = [""], [], [], 0
        for directory, names, files in os.walk(self._record.root):
            where = os.path.relpath(directory, self._record.root)
            prefix = "" if where == "." else f"{where}/"
            self._directories += [f"{prefix}{name}" for name in names]
            for name in files:
                status = os.lstat(f"{directory}/{name}")
                if stat.S_ISLNK(status.st_mode):
                    self._links.append(f"{prefix}{name}")
                else:
                    self._files.append(f"{prefix}{name}")
                    self._size += status.st_size

    def _number(self) -> int:
        self._last += 1
        return self._last

    def _new_name(self) -> str:
        directory = self._chance.choice(self._directories)
        name = f"{self._chance.choice('abcdefgh')}{self._number():05}-{time.monotonic_ns() % 997}"
        return f"{directory}/{name}" if directory else name

    def _any_file(self) -> str | None:
        return self._chance.choice(self._files) if self._files else None

    def _length(self) -> int:
        """Choose how much to write: mostly little, at times some MiB, and gladly around a chunk's border."""
        kind = self._chance.random()
        if kind < 0.7:
            return self._chance.randrange(6000)
        if kind < 0.8:
            return CHUNK + self._chance.choice([-1, 0, 1])
        if kind < 0.95:
            return self._chance.randrange(CHUNK)
        return self._chance.randrange(CHUNK, 4 << 20)

    def _bytes(self, length: int) -> bytes:
        kind = self._chance.random()
        if kind < 0.1:
            return bytes(length)  # content that other files have too
        if kind < 0.3:
            return (self._chance.randbytes(61) * (length // 61 + 1))[:length]
        return self._chance.randbytes(length)

    def _place(self, size: int) -> int:
        """Choose where to write in a file of `size` bytes; rarely behind its end, which leaves a hole."""
        if self._chance.random() < 0.1:
            return size + self._chance.randrange(2 * CHUNK)
        if size > CHUNK and self._chance.random() < 0.5:
            border = CHUNK * self._chance.randrange(1, size // CHUNK + 1)
            return max(0, border + self._chance.choice([-5000, -1, 0, 1]))
        return self._chance.randrange(size + 1)

    def _fill(self, handle: int, length: int) -> Iterator[Operation]:
        """Write a new file's content, in one call or in several."""
        data = self._bytes(length)
        piece = self._chance.choice([length or 1, 4096, 65536, 131072, 1 << 20, 1_500_000])
        if length / piece > 50:
            piece = 131072
        for offset in range(0, length, piece):
            yield write(handle, offset, data[offset : offset + piece])

    def _new_file(self) -> Iterator[Operation]:
        handle, name = self._number(), self._new_name()
        yield open_file(handle, name, os.O_CREAT | os.O_EXCL, self._chance.choice(_MODES))
        yield from self._fill(handle, self._length())
        if self._chance.random() < 0.1:
            yield fsync(handle)
        if len(self._record.files) > _MAX_OPEN or self._chance.random() < 0.9:
            yield close_file(handle)

    def _many_small_files(self) -> Iterator[Operation]:
        for _ in range(self._chance.randrange(40)):
            handle = self._number()
            yield open_file(handle, self._new_name(), os.O_CREAT | os.O_EXCL)
            yield write(handle, 0, self._bytes(self._chance.randrange(1, 300)))
            yield close_file(handle)

    def _opened(self, name: str, flags: int = 0) -> tuple[int, Operation]:
        handle = self._number()
        return handle, open_file(handle, name, flags)

    def _overwrite(self) -> Iterator[Operation]:
        if name := self._any_file():
            size = self._record.path(name).stat().st_size
            handle, opening = self._opened(name)
            yield opening
            yield write(handle, self._place(size), self._bytes(self._length() + 1))
            yield close_file(handle)

    def _append(self) -> Iterator[Operation]:
        if name := self._any_file():
            handle, opening = self._opened(name, os.O_APPEND)
            yield opening
            for _ in range(self._chance.randrange(1, 4)):
                size = os.fstat(self._record.files[handle]).st_size
                yield append(handle, size, self._bytes(self._length() + 1))
            yield close_file(handle)

    def _new_size(self, size: int) -> int:
        if self._chance.random() < 0.3:
            return CHUNK * self._chance.randrange(4) + self._chance.choice([0, 1])
        return self._chance.randrange(size + 10_000)

    def _resize(self) -> Iterator[Operation]:
        if name := self._any_file():
            yield resize(name, self._new_size(self._record.path(name).stat().st_size))

    def _rewrite(self) -> Iterator[Operation]:
        if name := self._any_file():
            handle, opening = self._opened(name, os.O_TRUNC)
            yield opening
            yield from self._fill(handle, self._length())
            yield close_file(handle)

    def _replace(self) -> Iterator[Operation]:
        """Write a file aside, flush it and rename it over another, as editors and package managers do."""
        if name := self._any_file():
            handle, aside = self._number(), self._new_name()
            yield open_file(handle, aside, os.O_CREAT | os.O_EXCL)
            yield from self._fill(handle, self._length())
            if self._chance.random() < 0.5:
                yield fsync(handle)
            yield close_file(handle)
            yield rename(aside, name)

    def _write_to_open(self) -> Iterator[Operation]:
        if self._record.files:
            handle = self._chance.choice(sorted(self._record.files))
            size = os.fstat(self._record.files[handle]).st_size
            if self._chance.random() < 0.2:
                yield resize_open(handle, self._new_size(size))
            else:
                yield write(handle, self._place(size), self._bytes(self._length() + 1))

    def _close_one(self) -> Iterator[Operation]:
        if self._record.files:
            yield close_file(self._chance.choice(sorted(self._record.files)))

    def _rename(self) -> Iterator[Operation]:
        kind = self._chance.random()
        if kind < 0.2 and len(self._directories) > 1:
            old, new = self._chance.choice(self._directories[1:]), self._new_name()
            if not new.startswith(f"{old}/"):
                yield rename(old, new)
        elif kind < 0.5 and len(self._files) > 1:
            yield rename(*self._chance.sample(self._files, 2))
        elif names := self._files + self._links:
            yield rename(self._chance.choice(names), self._new_name())

    def _remove(self) -> Iterator[Operation]:
        if names := self._files + self._links:
            yield unlink(self._chance.choice(names))

    def _make_room(self) -> Iterator[Operation]:
        for name in self._chance.sample(self._files + self._links, (len(self._files) + 1) // 2):
            yield unlink(name)

    def _make_directory(self) -> Iterator[Operation]:
        name = self._new_name()
        if name.count("/") < 4:
            yield mkdir(name, 0o700 | self._chance.choice(_MODES))

    def _remove_directory(self) -> Iterator[Operation]:
        empty = [name for name in self._directories[1:] if not any(self._record.path(name).iterdir())]
        if empty:
            yield rmdir(self._chance.choice(empty))

    def _hard_link(self) -> Iterator[Operation]:
        if name := self._any_file():
            yield link(name, self._new_name())

    def _symbolic_link(self) -> Iterator[Operation]:
        yield symlink(self._chance.choice(["nowhere", "../a/b", "x" * 900]), self._new_name())

    def _change_mode(self) -> Iterator[Operation]:
        if name := self._any_file():
            yield chmod(name, self._chance.choice(_MODES))
        if len(self._directories) > 1:
            yield chmod(self._chance.choice(self._directories[1:]), 0o700 | self._chance.choice(_MODES))


# Comparing


def differences(record: Path, found: Path, *, where: str = "") -> Iterator[str]:
    """Say what a tree lacks, or has too much, compared with the record."""
    wanted, there = set(os.listdir(record / where)), set(os.listdir(found / where))  # noqa: PTH208
    for name in sorted(wanted | there):
        path = f"{where}/{name}" if where else name
        if name not in there:
            yield f"{path}: is lost"
        elif name not in wanted:
            yield f"{path}: is there again"
        else:
            yield from _differences_of_one(record, found, path)


def _differences_of_one(record: Path, found: Path, path: str) -> Iterator[str]:
    ours, theirs = os.lstat(record / path), os.lstat(found / path)
    if ours.st_mode != theirs.st_mode:
        yield f"{path}: has mode {theirs.st_mode:o} instead of {ours.st_mode:o}"
        if stat.S_IFMT(ours.st_mode) != stat.S_IFMT(theirs.st_mode):
            return
    if stat.S_ISDIR(ours.st_mode):
        directories = sum(entry.is_dir(follow_symlinks=False) for entry in os.scandir(record / path))
        if theirs.st_nlink != 2 + directories:
            yield f"{path}: has {theirs.st_nlink} links and {directories} directories inside"
        yield from differences(record, found, where=path)
        return
    if ours.st_nlink != theirs.st_nlink:
        yield f"{path}: has {theirs.st_nlink} links instead of {ours.st_nlink}"
    if stat.S_ISLNK(ours.st_mode):
        if (record / path).readlink() != (found / path).readlink():
            yield f"{path}: leads elsewhere"
        return
    if ours.st_size != theirs.st_size:
        yield f"{path}: is {theirs.st_size} bytes long instead of {ours.st_size}"
    expected, content = (record / path).read_bytes(), (found / path).read_bytes()
    if content != expected:
        yield f"{path}: {first_difference(expected, content)}"


def first_difference(expected: bytes, content: bytes) -> str:
    """Say where two contents part."""
    if len(expected) != len(content):
        return f"{len(content)} bytes are read instead of {len(expected)}"
    wrong = [at for at in range(len(expected)) if expected[at] != content[at]]
    zeros = " (all of these are zeros)" if not any(content[at] for at in wrong) else ""
    return f"{len(wrong)} of {len(content)} bytes differ, from {wrong[0]} to {wrong[-1]}{zeros}"


def torn_defect(before: bytes, after: bytes, offset: int, data: bytes) -> str | None:
    """Say what is wrong with a file's content after a write that was in flight, if anything is.

    Right is: outside the range as before; inside it each byte old or new; longer by a part of the data or not
    at all.
    """
    if len(after) != len(before) and not max(len(before), offset) < len(after) <= offset + len(data):
        return f"{len(after)} bytes long; it had {len(before)}, {len(data)} were written at {offset}"
    old = before.ljust(len(after), b"\0")
    new = old[:offset].ljust(offset, b"\0") + data + old[offset + len(data) :]
    for at in range(len(after)):
        if after[at] != old[at] and after[at] != new[at]:
            return f"byte {at} was not written; {len(data)} were written at {offset}"
    return None


def compare_flist(package: Path, blocks: Path, record: Path) -> Iterator[str]:
    """Say how a sealed tree differs from the record; every block of every file is decoded."""
    nodes = read_flist(package)
    wanted = {os.fsencode(os.path.relpath(path, record)): path for path in below(record)}
    yield from (f"{name!r}: is not in {package.name}" for name in wanted.keys() - nodes.keys())
    yield from (f"{name!r}: is in {package.name}" for name in nodes.keys() - wanted.keys() - {b""})

    def get(name: bytes) -> bytes | None:
        text = name.decode()
        path = blocks / text[0] / text[1] / text
        return path.read_bytes() if path.exists() else None

    for name in sorted(wanted.keys() & nodes.keys()):
        for defect in _compare_node(nodes[name], wanted[name], get):
            yield f"{name!r} in {package.name}: {defect}"


def _compare_node(node: Node, path: Path, get: Callable[[bytes], bytes | None]) -> Iterator[str]:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        if node.kind != "link" or node.target != os.fsencode(path.readlink()):
            yield f"a {node.kind} to {node.target!r} instead of a link"
        return
    if node.mode != stat.S_IMODE(status.st_mode):
        yield f"mode {node.mode:o} instead of {stat.S_IMODE(status.st_mode):o}"
    if stat.S_ISDIR(status.st_mode) != (node.kind == "dir"):
        yield f"a {node.kind}"
    elif node.kind == "file":
        expected, content = path.read_bytes(), read_content(node, get, fast=True)
        if content != expected:
            yield first_difference(expected, content)


# Killing


class Writer:
    """Does the workload in the mount and then in the record, until the daemon is gone."""

    def __init__(self, mount: Side, record: Side, operations: Iterator[Operation]) -> None:
        self._mount = mount
        self._record = record
        self._operations = operations
        self.in_flight: Operation | None = None
        self.done = 0
        self.history: list[str] = []
        self.killed = threading.Event()
        self._error: BaseException | None = None

    def run(self, count: int | None, then: Callable[[], None]) -> None:
        """Do so many operations, or go on until one fails; call `then` the moment the last has returned."""
        try:
            while count is None or self.done < count:
                operation = next(self._operations)
                if not self._do(operation, then if self.done + 1 == count else None):
                    return
                self.done += 1
        except BaseException as error:  # noqa: BLE001  shown by the thread that waits for this one
            self._error = error

    def _do(self, operation: Operation, then: Callable[[], None] | None) -> bool:
        self.history.append(operation.text)
        del self.history[:-40]
        self.in_flight = operation
        try:
            operation.do(self._mount)
        except OSError as error:
            if not self.killed.is_set():
                raise LossError(f"{operation.text}: {error}") from error
            if isinstance(error, ShortWriteError) and operation.handle is not None:
                taken = operation.data[: error.written]
                os.pwrite(self._record.files[operation.handle], taken, operation.offset)
            return False
        if then is not None:
            then()
        self.in_flight = None
        operation.do(self._record)
        return True

    def check(self) -> None:
        """Raise what went wrong in `run`."""
        if self._error is not None:
            raise self._error


class Campaign:
    """A session that is killed again and again, and what must be in it."""

    def __init__(
        self, home: Home, mountpoint: Path, record: Path, seed: int, options: tuple[str, ...] = ()
    ) -> None:
        """Start a session at `mountpoint`; `record` is a directory that does not exist yet."""
        self._home = home
        self._mountpoint = mountpoint
        self._options = options
        self._chance = random.Random(seed)
        self._mount = Side(mountpoint)
        self._record = Side(record)
        self._workload = Workload(self._record, self._chance)
        self._sealed = 0
        self._seal_seconds = 1.0
        self._mount_seconds = 1.0
        self.kills = 0
        self.operations = 0
        self.notes: dict[str, int] = {}
        self._begin()

    @property
    def _session(self) -> SessionDirectory:
        (path,) = self._home.sessions.iterdir()
        return SessionDirectory(path)

    def _begin(self) -> None:
        """Start a new session with an empty tree."""
        shutil.rmtree(self._record.root, ignore_errors=True)
        self._record.root.mkdir()
        said = self._home.run("mount", self._mountpoint, *self._options).stdout
        if "is resumed" in said:
            raise LossError(f"a new session was expected: {said}")

    def _resume(self) -> None:
        started = time.monotonic()
        said = self._home.run("mount", self._mountpoint).stdout
        self._mount_seconds = time.monotonic() - started
        if "is resumed" not in said:
            raise LossError(f"the session did not go on: {said}")

    def _note(self, what: str) -> None:
        self.notes[what] = self.notes.get(what, 0) + 1

    def _kill(self, pid: int) -> None:
        self.kills += 1
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _wait_dead(self) -> None:
        wait_until(lambda: not self._session.is_locked(), "the killed process lets go of the session")

    def _daemon(self) -> int:
        (pid,) = self._home.daemons()
        return pid

    # The workload

    def _work(self, count: int | None, seconds: float) -> Writer:
        """Work for so many operations or so long, and kill the daemon."""
        pid = self._daemon()
        writer = Writer(self._mount, self._record, self._workload.operations())

        def kill() -> None:
            writer.killed.set()
            self._kill(pid)

        thread = threading.Thread(target=writer.run, args=(count, kill))
        thread.start()
        if count is None:
            time.sleep(seconds)
            kill()
        thread.join(TIMEOUT)
        if thread.is_alive():
            raise LossError(f"an operation hangs: {writer.history[-1]}")
        writer.check()
        self.operations += writer.done
        self._mount.close_all()
        self._wait_dead()
        return writer

    def work_in_peace(self, count: int) -> None:
        """Do some operations without a kill, and close every file."""
        writer = Writer(self._mount, self._record, self._workload.operations())
        writer.run(count, lambda: None)
        writer.check()
        self.operations += writer.done
        self._mount.close_all()
        self._record.close_all()

    def kill_while_working(self) -> None:
        """Work; kill at a random moment or right after an operation has returned; resume; check."""
        if self._chance.random() < 0.4:
            writer = self._work(self._chance.randrange(1, 300), 0)
        else:
            writer = self._work(None, self._chance.uniform(0, 0.6))
        self._resume()
        self._check_tree(writer.in_flight, writer.history)
        self._record.close_all()

    def _check_tree(self, in_flight: Operation | None = None, history: list[str] | None = None) -> None:
        found = self._told()
        if found and in_flight is not None:
            if in_flight.handle is None:
                in_flight.do(self._record)
            else:
                self._accept_torn(in_flight, in_flight.handle)
            found = self._told()
        if found:
            last = "\n    ".join(history or [])
            raise LossError(
                "\n".join(found) + f"\n  in flight: {in_flight and in_flight.text}\n  last:\n    {last}"
            )

    def _told(self) -> list[str]:
        return [text for text, _ in zip(differences(self._record.root, self._mountpoint), range(_TOLD))]  # noqa: B905

    def _accept_torn(self, operation: Operation, handle: int) -> None:
        """Let the record have what a torn write left, if that is right."""
        descriptor = self._record.files[handle]
        ino = os.fstat(descriptor).st_ino
        path = next((path for path in below(self._record.root) if path.lstat().st_ino == ino), None)
        if path is None:
            return  # removed while it was open
        before = path.read_bytes()
        after = (self._mountpoint / path.relative_to(self._record.root)).read_bytes()
        if defect := torn_defect(before, after, operation.offset, operation.data):
            raise LossError(f"{path.relative_to(self._record.root)}: {defect}")
        path.write_bytes(after)

    # Resuming

    def kill_while_resuming(self) -> None:
        """Work and kill; start to resume and kill that, at a random moment; resume; check."""
        writer = self._work(None, self._chance.uniform(0, 0.3))
        command = self._start("mount", self._mountpoint)
        time.sleep(self._chance.uniform(0, 1.2 * self._mount_seconds))
        self._kill(_youngest(command.pid))
        self._end(command, codes={0, 4, -signal.SIGKILL})
        # A daemon whose command was killed goes on if it knows its config already, and else ends.
        wait_until(
            lambda: mounts.mount_at(self._mountpoint) or not self._session.is_locked(),
            "the daemon goes on, or ends",
        )
        if self._session.is_locked():
            self._note("daemon outlived its command")
            if (holder := self._session.holder()) is not None:
                self._kill(holder.pid)
        self._wait_dead()
        self._resume()
        self._check_tree(writer.in_flight, writer.history)
        self._record.close_all()

    def _start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [FLISTFS, *arguments],
            env=self._home.environment(),
            cwd=self._home.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _end(self, command: subprocess.Popen[str], codes: set[int]) -> int:
        out, err = command.communicate(timeout=TIMEOUT)
        if command.returncode not in codes or "Traceback" in err or "this is a bug" in err:
            raise LossError(
                f"{command.args!r} ended with {command.returncode}: {out}{err}{self._home.logs()}"
            )
        if len(err.splitlines()) > 1:
            raise LossError(f"{command.args!r} says more than a line: {err}")
        return command.returncode

    # Sealing

    def kill_while_sealing(self) -> None:
        """Seal a mounted session and kill its daemon: at a random moment, or near the rename."""
        self.work_in_peace(self._chance.randrange(1, 200))
        pid = self._daemon()
        self._kill_seal(lambda _: pid, {0, 5})

    def kill_while_sealing_unmounted(self) -> None:
        """Kill the daemon, seal without one, and kill that."""
        writer = self._work(None, self._chance.uniform(0, 0.3))
        if writer.in_flight is not None:
            # Only a mount shows which way it went with the operation in flight.
            self._resume()
            self._check_tree(writer.in_flight, writer.history)
            self._kill(self._daemon())
            self._wait_dead()
        self._record.close_all()
        self._kill_seal(lambda command: command, {0, -signal.SIGKILL})

    def _kill_seal(self, victim: Callable[[int], int], codes: set[int]) -> None:
        out = self._next_output()
        started = time.monotonic()
        command = self._start("seal", out)
        moment = self._wait_moment(command, out)
        self._kill(victim(command.pid))
        code = self._end(command, codes)
        if code == 0:
            self._seal_seconds = time.monotonic() - started
        self._wait_dead()
        is_open = self._session.is_open()
        self._note(
            f"killed {moment}: {'output' if out.exists() else 'none'}, {'open' if is_open else 'ended'}"
        )
        if out.exists():
            self._check_flist(out)
        elif code == 0 or not is_open:
            raise LossError(f"there is neither an output nor a session: the command ended with {code}")
        self._go_on_after_seal(is_open=is_open)

    def _wait_moment(self, command: subprocess.Popen[str], out: Path) -> str:
        """Wait for the moment to kill at."""
        kind = self._chance.choice(["any time", "while packaging", "after unmounting", "after the rename"])
        if kind == "any time":
            time.sleep(self._chance.uniform(0, 1.1 * self._seal_seconds))
            return kind
        if kind == "after unmounting":
            _watch(command, lambda: not mounts.mount_at(self._mountpoint))
            time.sleep(self._chance.choice([0, self._chance.uniform(0, 0.05)]))
            return kind
        if kind == "while packaging":
            _watch(command, lambda: any(self._home.path.glob(f".{out.name}*")))
            time.sleep(self._chance.uniform(0, 0.03))
            return kind
        _watch(command, out.exists)
        pause = time.monotonic() + self._chance.choice([0, self._chance.uniform(0, 0.03)])
        while time.monotonic() < pause:
            pass
        return kind

    def _go_on_after_seal(self, *, is_open: bool) -> None:
        if not is_open:
            self._begin()
        elif self._chance.random() < 0.5:
            self._resume()
            self._check_tree()
        else:
            self.seal()
            self._begin()

    def _next_output(self) -> Path:
        self._sealed += 1
        return self._home.path / f"{self._sealed}.flist"

    def seal(self) -> None:
        """Seal to the end, and check the output."""
        self._mount.close_all()
        self._record.close_all()
        out = self._next_output()
        self._home.run("seal", out)
        self._check_flist(out)

    def _check_flist(self, out: Path) -> None:
        found = list(compare_flist(out, self._home.blocks, self._record.root))
        if found:
            raise LossError("\n".join(found[:_TOLD]))
        out.unlink()

    def kill_somehow(self) -> None:
        """Do one of the above."""
        kinds = [
            (60, self.kill_while_working),
            (15, self.kill_while_resuming),
            (15, self.kill_while_sealing),
            (10, self.kill_while_sealing_unmounted),
        ]
        ((_, kind),) = self._chance.choices(kinds, [weight for weight, _ in kinds])
        self._note(kind.__name__)
        kind()


def _watch(command: subprocess.Popen[str], is_there: Callable[[], bool]) -> None:
    """Look without a pause until something is there, or the command has ended."""
    deadline = time.monotonic() + TIMEOUT
    while command.poll() is None and not is_there():
        if time.monotonic() > deadline:
            command.kill()
            raise LossError(f"{command.args!r} hangs")


def _youngest(pid: int) -> int:
    """Return the child of a process, or the process itself while it has none."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return pid
    return int(children[0]) if children else pid


# The loop


def _leave_nothing(home: Home, mountpoint: Path) -> None:
    while mounts.mount_at(mountpoint):
        subprocess.run(["fusermount3", "-uz", str(mountpoint)], check=True)
    for path in home.sessions.glob("*"):
        directory = SessionDirectory(path)
        if directory.is_locked() and (holder := directory.holder()):
            os.kill(holder.pid, signal.SIGKILL)


def _loop(directory: Path, kills: int, seed: int) -> str | None:
    """Run until so many kills are done; return what was lost, if anything was."""
    home = Home(directory / "home")
    home.path.mkdir()
    mountpoint = directory / "mnt"
    mountpoint.mkdir()
    started = time.monotonic()
    try:
        campaign = Campaign(home, mountpoint, directory / "record", seed)
        told = 0
        while campaign.kills < kills:
            campaign.kill_somehow()
            if campaign.kills // 10 > told:
                told = campaign.kills // 10
                minutes = (time.monotonic() - started) / 60
                click.echo(f"{campaign.kills} kills, {campaign.operations} operations, {minutes:.1f} min")
        campaign.seal()
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        _leave_nothing(home, mountpoint)
    for what, count in sorted(campaign.notes.items()):
        click.echo(f"  {count} × {what}")  # noqa: RUF001
    return None


def main() -> None:
    """Kill until something is lost, or often enough."""
    parser = argparse.ArgumentParser(prog="scripts/kill-loop", description=main.__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how often (200)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--keep", action="store_true", help="keep the session after a loss")
    arguments = parser.parse_args()
    click.echo(f"seed {arguments.seed}")
    directory = Path(tempfile.mkdtemp(prefix="kill-loop-")).resolve()
    lost = _loop(directory, arguments.kills, arguments.seed)
    if lost is not None:
        click.echo(f"seed {arguments.seed}: lost\n{re.sub('^', '  ', lost, flags=re.MULTILINE)}")
    if lost is not None and arguments.keep:
        click.echo(f"kept in {directory}")
    else:
        shutil.rmtree(directory)
    sys.exit(lost is not None)


if __name__ == "__main__":
    main()
