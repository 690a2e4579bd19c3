"""The Python interface in programs of any kind: file objects, threads, event loops, signals, logging."""

from __future__ import annotations

import asyncio
import importlib.metadata
import io
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import flistfs
from flistfs import errors
from flistfs.tree.chunks import CHUNK_SIZE
from tests.api.working import PROJECT, contents, move_to, write
from tests.e2e.commands import Home
from tests.independent_reader import read_flist
from tests.redis_server import running_redis
from tests.trees import random_bytes

SIZE = 3 * CHUNK_SIZE + 12_345


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a file of some chunks, `tree/plain`, and an flist of it with its blocks."""
    directory = tmp_path_factory.mktemp("large")
    lines = b"".join(b"line %d\n" % number for number in range(60_000))
    content = (random_bytes(CHUNK_SIZE - 100, "large") + lines + random_bytes(SIZE, "rest"))[:SIZE]
    (directory / "tree").mkdir()
    (directory / "tree/plain").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        move_to(Home(directory), patch)
        flistfs.pack("tree", "out.flist", store=f"dir://{directory}/blocks")
    return directory


Step = Callable[[io.BufferedReader], object]

offsets = st.one_of(
    st.integers(-SIZE - 10, SIZE + 10),
    st.sampled_from([CHUNK_SIZE, 2 * CHUNK_SIZE, 3 * CHUNK_SIZE, SIZE]).flatmap(
        lambda edge: st.integers(edge - 2, edge + 2)
    ),
)
sizes = st.one_of(st.integers(-1, 100), st.integers(0, 2 * CHUNK_SIZE))


def _seek(offset: int, whence: int, file: io.BufferedReader) -> object:
    try:
        return file.seek(offset, whence)
    except OSError as error:
        return error.errno


def _fill(size: int, file: io.BufferedReader) -> object:
    buffer = bytearray(max(size, 0))
    return file.readinto(buffer), bytes(buffer)


steps: st.SearchStrategy[Step] = st.one_of(
    st.builds(partial, st.just(_seek), offsets, st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])),
    st.builds(lambda size: lambda file: file.read(size), sizes),
    st.builds(partial, st.just(_fill), sizes),
    st.just(lambda file: file.readline()),
    st.just(lambda file: file.tell()),
)


@given(st.lists(steps, min_size=1, max_size=12))
def test_a_file_object_does_what_a_plain_file_does(large: Path, work: list[Step]) -> None:
    with (
        flistfs.open(large / "out.flist", store=f"dir://{large}/blocks") as flist,
        flist.open_file("plain") as file,
        (large / "tree/plain").open("rb") as plain,
    ):
        for step in work:
            assert step(file) == step(plain)
            assert file.tell() == plain.tell()


def test_what_a_file_object_is(large: Path) -> None:
    with flistfs.open(large / "out.flist", store=f"dir://{large}/blocks") as flist:
        file = flist.open_file("plain")
        assert isinstance(file, io.BufferedReader)
        assert (file.readable(), file.seekable(), file.writable()) == (True, True, False)
        with pytest.raises(ValueError, match="whence"):
            file.raw.seek(0, 7)
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"x")
        assert len(file.raw.readall() or b"") == SIZE  # type: ignore[attr-defined]
        file.close()
        for use in (file.tell, file.read, file.raw.tell, partial(file.raw.seek, 0), file.raw.readall):  # type: ignore[attr-defined]
            with pytest.raises(ValueError, match="closed"):
                use()


def test_only_the_blocks_that_are_read_are_needed(tmp_path: Path) -> None:
    chunks = [random_bytes(CHUNK_SIZE, f"chunk {number}") for number in range(3)]
    write("tree/file", b"".join(chunks))
    flistfs.pack("tree", "out.flist", store=f"dir://{tmp_path}/blocks")
    _, second, third = read_flist(Path("out.flist"))[b"file"].blocks
    files = {path.name.encode(): path for path in (tmp_path / "blocks").rglob("*") if path.is_file()}
    files[second[0]].unlink()
    with files[third[0]].open("r+b") as block:
        block.seek(1000)
        block.write(b"damage")
    with flistfs.open("out.flist", store=f"dir://{tmp_path}/blocks") as flist:
        file = flist.open_file("file")
        assert file.read(1000) == chunks[0][:1000]
        for offset, kind in ((CHUNK_SIZE, errors.BlockMissingError), (-1, errors.BlockCorruptError)):
            file.seek(offset, os.SEEK_SET if offset > 0 else os.SEEK_END)
            with pytest.raises(kind, match="file cannot be read"):
                file.read(1)
        file.seek(0)
        with pytest.raises(errors.BlockMissingError):
            file.read()


# Programs of any kind


def make_and_read(name: str) -> bytes:
    """Use most of it."""
    write(f"{name}/file", name.encode())
    with flistfs.Session(f"state of {name}") as session:
        session.add(name)
        session.seal(f"{name}.flist")
    flistfs.pack(name, f"{name} packed.flist")
    with flistfs.open(f"{name} packed.flist") as flist, flist.open_file("file") as file:
        return file.read()


def test_inside_a_running_loop() -> None:
    async def in_asyncio() -> tuple[bytes, bytes]:
        return make_and_read("one"), await asyncio.to_thread(make_and_read, "two")

    async def in_trio() -> tuple[bytes, bytes]:
        return make_and_read("three"), await trio.to_thread.run_sync(make_and_read, "four")

    assert asyncio.run(in_asyncio()) == (b"one", b"two")
    assert trio.run(in_trio) == (b"three", b"four")


def test_threads_share_a_session_or_have_their_own() -> None:
    names = [f"name{number}" for number in range(4)]
    for name in names:
        write(name, name.encode())
    with flistfs.Session("session") as session:
        with ThreadPoolExecutor(4) as threads:
            added = list(threads.map(session.add, names))
        session.seal("out.flist")
    assert [summary.entries for summary in added] == [1] * 4
    assert contents("out.flist") == {name.encode(): name.encode() for name in names}
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(make_and_read, ["a", "b"])) == [b"a", b"b"]


def test_ctrl_c_ends_a_call_and_keeps_the_session(hears_ctrl_c: None) -> None:
    write("file", os.urandom(100_000))
    pressed = threading.Event()
    with running_redis() as server, flistfs.Session("session", store=server.url) as session:

        def press(*_: object, **__: object) -> None:
            if not pressed.is_set():
                pressed.set()
                server.hang()
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            session.add("file", progress=press)
        server.resume()
        session.add("file")
        session.seal("out.flist")
        assert set(contents("out.flist", server.url)) == {b"file"}


def test_the_programs_logging_and_output_are_its_own(
    home: Home, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root, own = logging.getLogger(), logging.getLogger("flistfs")

    def logging_now() -> tuple[object, ...]:
        return root.level, list(root.handlers), own.level, list(own.handlers), own.propagate

    vars(flistfs.Session)  # loads what adds a handler that does nothing
    before = logging_now()
    write("file", random_bytes(1000, "lost"))
    with flistfs.Session("session") as session:
        session.add("file")
        (block,) = (path for path in home.blocks.rglob("*") if path.is_file())
        block.unlink()
        with pytest.raises(errors.BlockMissingError, match="1 file: file"):
            session.seal("out.flist")
        session.add("file")
        session.seal("out.flist")
    make_and_read("more")
    assert logging_now() == before
    assert capfd.readouterr() == ("", "")
    assert block.name in Path("session/log").read_text(), "the error says that the log names the blocks"
    assert any(block.name in record.getMessage() for record in caplog.records), "the program may hear of it"


def test_a_program_without_logging_hears_nothing() -> None:
    """Python writes warnings to standard error that no handler takes."""
    code = (
        "import flistfs, pathlib\n"
        "with flistfs.Session('session') as session:\n"
        "    session.add('file')\n"
        "    [path.unlink() for path in pathlib.Path('data/flistfs/blocks').rglob('*') if path.is_file()]\n"
        "    try:\n"
        "        session.seal('out.flist')\n"
        "    except flistfs.errors.BlockMissingError:\n"
        "        session.abort()\n"
        "    else:\n"
        "        raise AssertionError('the block is not there')\n"
    )
    write("file")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# The module


def imported_by(code: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())


def test_importing_costs_nothing() -> None:
    heavy = {"trio", "rocksdict", "redis", "pyfuse3", "click", "flistfs.api", "logging"}
    assert imported_by("import flistfs; flistfs.FlistfsError; flistfs.errors").isdisjoint(heavy)
    light = imported_by(
        "import flistfs.cli.command_line, flistfs.cli.add, flistfs.cli.mount, flistfs.cli.seal"
    )
    assert light.isdisjoint({"trio", "rocksdict", "redis", "pyfuse3", "capnp", "flistfs.authoring.offline"})
    assert "flistfs.api" in imported_by("import flistfs; flistfs.Session")
    assert imported_by("from flistfs import *").isdisjoint({"pyfuse3", "click", "flistfs.cli"})


def test_names() -> None:
    assert set(flistfs.__all__) <= set(dir(flistfs))
    for name in flistfs.__all__:
        assert getattr(flistfs, name) is getattr(flistfs, name)
    with pytest.raises(AttributeError, match="no attribute 'sesion'"):
        flistfs.sesion  # type: ignore[attr-defined]  # noqa: B018


def test_the_version() -> None:
    assert flistfs.__version__ == importlib.metadata.version("flistfs")
    command = [sys.executable, "-m", "flistfs", "--version"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert said.endswith(f" {flistfs.__version__}\n")


CONSUMER = """
import flistfs
from typing import assert_type

with flistfs.Session("session", store="ardb://host") as session:
    assert_type(session, flistfs.Session)
    assert_type(session.add("one", b"two", exclude=["*.pyc"]).left_out[0].why, str)
    assert_type(session.seal("out.flist", owner=(0, 0)).unrepresentable.xattrs, int)
with flistfs.open("out.flist") as flist:
    assert_type([node.path for node in flist.walk()], list[bytes])
    with flist.open_file("etc/hosts") as file:
        assert_type(file.read(), bytes)
try:
    assert_type(flistfs.merge("all.flist", ["a.flist"], prefer="last").size, int)
except flistfs.PathsClashError as error:
    assert_type(error.clashes[0].path, bytes)
except flistfs.FlistfsError as error:
    assert_type(error.exit_code, int)
flistfs.merge("all.flist", ["a.flist"], prefer="best")  # WRONG arg-type
flistfs.sesion  # WRONG attr-defined
session.add("one", exlude="x")  # WRONG call-arg
"""


def test_a_strict_type_checker_sees_all_of_it(tmp_path: Path) -> None:
    script = tmp_path / "consumer.py"
    script.write_text(CONSUMER)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", PROJECT / "pyproject.toml", script],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    wrong = re.findall(r"consumer\.py:(\d+): error: .*\[(.+)\]", done.stdout)
    lines = CONSUMER.splitlines()
    wanted = [
        (str(number), line.rpartition(" ")[2]) for number, line in enumerate(lines, 1) if "# WRONG" in line
    ]
    assert wrong == wanted, done.stdout + done.stderr
    assert "Found 3 errors in 1 file" in done.stdout
