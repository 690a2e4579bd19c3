"""Random operations in a real mount and in a directory of a local file system: both do the same."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.e2e.commands import Home
from tests.e2e.test_roundtrip import blocks_in_directory
from tests.independent_reader import read_flist
from tests.snapshots import assert_flist_equals, below, snapshot

CHUNK = 524288

NAMES = st.sampled_from(["a", "b", "c", "dir", "dir/a", "dir/b", "dir/sub", "dir/sub/a"])
OFFSETS = st.sampled_from([0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 3])
LENGTHS = st.sampled_from([0, 1, 10, 5000, CHUNK, CHUNK + 7])
MODES = st.sampled_from([0o644, 0o600, 0o755, 0o4711])

Step = Callable[[Path], object]


def write(name: str, offset: int, length: int, flags: int) -> Step:
    def step(root: Path) -> object:
        descriptor = os.open(root / name, os.O_WRONLY | flags, 0o644)
        try:
            written = os.pwrite(descriptor, bytes([offset % 251 + 1]) * length, offset)
            return written, os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    return step


def append(name: str, length: int) -> Step:
    def step(root: Path) -> object:
        with (root / name).open("ab", buffering=0) as file:
            return file.write(b"+" * length), file.tell()

    return step


def read(name: str, offset: int, length: int) -> Step:
    def step(root: Path) -> object:
        with (root / name).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), length, offset)

    return step


def unlink_while_open(name: str, length: int) -> Step:
    def step(root: Path) -> object:
        with (root / name).open("r+b", buffering=0) as file:
            (root / name).unlink()
            file.write(b"-" * length)
            file.seek(0)
            return file.read(), os.fstat(file.fileno()).st_nlink

    return step


def on_two(call: Callable[[Path, Path], object], one: str, other: str) -> Step:
    return lambda root: call(root / one, root / other) and None


def on_one(call: Callable[[Path], object], name: str) -> Step:
    return lambda root: call(root / name) and None


STEPS: st.SearchStrategy[Step] = st.one_of(
    st.builds(
        write, NAMES, OFFSETS, LENGTHS, st.sampled_from([0, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC])
    ),
    st.builds(append, NAMES, LENGTHS),
    st.builds(read, NAMES, OFFSETS, LENGTHS),
    st.builds(unlink_while_open, NAMES, LENGTHS),
    st.builds(lambda name, size: lambda root: os.truncate(root / name, size), NAMES, OFFSETS),
    st.builds(lambda name, mode: lambda root: (root / name).chmod(mode), NAMES, MODES),
    st.builds(lambda name, mode: lambda root: (root / name).mkdir(mode), NAMES, MODES),
    st.builds(lambda name: lambda root: os.utime(root / name, ns=(7, 10**18 + 1)), NAMES),
    st.builds(on_one, st.sampled_from([Path.unlink, Path.rmdir, os.mkfifo]), NAMES),
    st.builds(on_two, st.sampled_from([os.rename, os.replace, os.link]), NAMES, NAMES),
    st.builds(lambda target, name: lambda root: (root / name).symlink_to(target), NAMES, NAMES),
    st.builds(lambda name: lambda root: sorted(path.name for path in (root / name).iterdir()), NAMES),
    st.builds(lambda name: lambda root: (root / name).readlink(), NAMES),
)


def outcome(step: Step, root: Path) -> object:
    """What a step returns, or its errno. A fifo is not opened: that would wait for its other end."""
    try:
        return step(root)
    except OSError as error:
        return f"errno {error.errno}"


def seen(root: Path) -> dict[str, object]:
    """What stat and listings tell of a tree."""
    found: dict[str, object] = {}
    for path in sorted(below(root)):
        status = path.lstat()
        is_dir = stat.S_ISDIR(status.st_mode)
        found[str(path.relative_to(root))] = (
            status.st_mode,
            status.st_nlink,
            None if is_dir else status.st_size,
            status.st_mtime_ns if status.st_mtime_ns == 10**18 + 1 else None,
            path.read_bytes() if stat.S_ISREG(status.st_mode) else None,
        )
    return found


@pytest.fixture
def roots(home: Home, mountpoint: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A mount, and a directory on the local file system."""
    home.run("mount", mountpoint)
    local = tmp_path / "local"
    local.mkdir()
    return mountpoint, local


def test_the_mount_does_what_a_local_file_system_does(home: Home, roots: tuple[Path, Path]) -> None:
    counter = itertools.count()

    @settings(
        max_examples=int(os.environ.get("FLISTFS_EXAMPLES", "150")),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(STEPS, min_size=5, max_size=40))
    def play(steps: list[Step]) -> None:
        number = next(counter)
        mounted, local = (root / str(number) for root in roots)
        for root in (mounted, local):
            root.mkdir()
        for step in steps:
            if holds_fifo(local):
                # Opening one would wait for its other end.
                for root in (mounted, local):
                    drop_fifos(root)
            assert outcome(step, mounted) == outcome(step, local)
        assert seen(mounted) == seen(local)

    play()
    mountpoint = roots[0]
    wanted = snapshot(mountpoint)
    home.run("seal", "out.flist")
    assert_flist_equals(read_flist(home.path / "out.flist"), wanted, blocks_in_directory(home), fast=True)


def holds_fifo(root: Path) -> bool:
    return any(path.is_fifo() for path in below(root))


def drop_fifos(root: Path) -> None:
    for path in list(below(root)):
        if path.is_fifo() and not path.is_symlink():
            path.unlink()
