"""How an flist gets into its place, in directories that others may write to as well."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from flistfs.errors import OutputError
from flistfs.format.rocksdb.catalog import write_catalog
from flistfs.format.rocksdb.package import write_package
from flistfs.util.output_file import OutputFile
from flistfs.util.scratch import Scratch


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    path = tmp_path / "catalog"
    write_catalog(path, [(b"key", b"value")])
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "place"
    path.mkdir()
    return path


def names_in(path: Path) -> list[str]:
    return sorted(each.name for each in path.iterdir())


@pytest.fixture(params=["unnamed", "named"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the file system has files without names; where it has none, a name is taken."""
    if request.param == "named":
        refuse_unnamed(monkeypatch)
    return str(request.param)


def refuse_unnamed(monkeypatch: pytest.MonkeyPatch) -> None:
    open_ = os.open

    def refusing(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE and path == ".":
            raise OSError(95, "Operation not supported")
        return open_(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refusing)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.usefixtures("how", "umask")
def test_it_appears_whole_with_the_mode_that_the_umask_leaves(catalog: Path, place: Path) -> None:
    out = place / "out.flist"
    with OutputFile(out, force=False) as output:
        output.write(partial(write_package, catalog))
        first = output.size
        output.write(partial(write_package, catalog))
        assert not out.exists()
        output.publish()
    assert out.stat().st_size == first
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    assert names_in(place) == ["out.flist"]


@pytest.mark.usefixtures("how")
def test_what_is_not_published_is_gone(catalog: Path, place: Path) -> None:
    with OutputFile(place / "out.flist", force=False) as output:
        output.write(partial(write_package, catalog))
    assert names_in(place) == []


def test_nobody_can_get_at_it_meanwhile(catalog: Path, place: Path) -> None:
    with OutputFile(place / "out.flist", force=False) as output:
        output.write(partial(write_package, catalog))
        assert names_in(place) == []


def test_a_name_beside_the_output_is_another_each_time(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_unnamed(monkeypatch)
    names = set()
    for _ in range(3):
        with OutputFile(place / "out.flist", force=False):
            names.update(names_in(place))
    assert len(names) == 3


def test_what_was_planted_under_that_name_is_not_written_to(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if somebody had guessed it."""
    refuse_unnamed(monkeypatch)
    monkeypatch.setattr("secrets.token_hex", lambda size: "5a" * size)
    (tmp_path / "precious").write_text("precious")
    planted = place / f".flistfs-{'5a' * 16}.part"
    planted.symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError):
        OutputFile(place / "out.flist", force=False)
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (place / "out.flist").exists()


@pytest.mark.usefixtures("how")
def test_what_appears_meanwhile_is_not_replaced_unless_forced(catalog: Path, place: Path) -> None:
    out = place / "out.flist"
    with OutputFile(out, force=False) as output:
        output.write(partial(write_package, catalog))
        out.write_text("somebody else's")
        with pytest.raises(OutputError, match="was created meanwhile"):
            output.publish()
    assert out.read_text() == "somebody else's"
    with OutputFile(out, force=True) as output:
        output.write(partial(write_package, catalog))
        output.publish()
    assert out.read_bytes().startswith(b"\x1f\x8b")
    assert names_in(place) == ["out.flist"]


def without_links(*_: object, **__: object) -> None:
    raise PermissionError(1, "Operation not permitted")  # as vfat has it


def test_a_file_system_without_links_replaces_nothing_either(
    catalog: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_unnamed(monkeypatch)
    monkeypatch.setattr(os, "link", without_links)
    out = place / "out.flist"
    for publishes in (True, False):
        with OutputFile(place / "other", force=False) as output:
            output.write(partial(write_package, catalog))
            output._out = out
            if publishes:
                output.publish()
            else:
                with pytest.raises(OutputError, match="was created meanwhile"):
                    output.publish()
        assert names_in(place) == ["out.flist"]


def device(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))


def listening_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


UNUSUAL: dict[str, tuple[str, Callable[[Path], object]]] = {
    "directory": ("is a directory", Path.mkdir),
    "pipe": ("is a pipe", os.mkfifo),
    "socket": ("is a socket", listening_socket),
    "link": ("is a symbolic link", lambda path: path.symlink_to(__file__)),
    "link to a device": ("is a symbolic link", lambda path: path.symlink_to("/dev/null")),
    "device": ("is a device", device),
}


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", UNUSUAL)
def test_what_is_no_regular_file_is_never_replaced(place: Path, kind: str, *, force: bool) -> None:
    if kind == "device" and os.geteuid() != 0:
        pytest.skip("only root can make devices")
    said, make = UNUSUAL[kind]
    out = place / "out.flist"
    make(out)
    before = out.lstat()
    with pytest.raises(OutputError, match=said):
        OutputFile(out, force=force)
    assert out.lstat() == before
    assert names_in(place) == ["out.flist"]


def test_a_link_that_leads_nowhere_is_replaced_if_that_is_forced(catalog: Path, place: Path) -> None:
    out = place / "out.flist"
    out.symlink_to("nowhere")
    with pytest.raises(OutputError, match="exists"):
        OutputFile(out, force=False)
    with OutputFile(out, force=True) as output:
        output.write(partial(write_package, catalog))
        output.publish()
    assert stat.S_ISREG(out.lstat().st_mode)
    assert names_in(place) == ["out.flist"]


def test_what_becomes_none_meanwhile_is_not_replaced_either(catalog: Path, place: Path) -> None:
    out = place / "out.flist"
    with OutputFile(out, force=True) as output:
        output.write(partial(write_package, catalog))
        os.mkfifo(out)
        with pytest.raises(OutputError, match="is a pipe"):
            output.publish()
    assert out.is_fifo()


# What a process that was killed leaves


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of temporary files, which each of these tests sweeps anew."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(path))
    return path


def killed_while(program: str, temporary: Path) -> None:
    """Run Python code that waits for the end of its input, and kill it there."""
    with subprocess.Popen(
        [sys.executable, "-c", f"{program}\nprint(flush=True); input()"],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL


def test_the_next_process_removes_what_a_killed_one_left(temporary: Path) -> None:
    killed_while("from flistfs.util.scratch import Scratch; s = Scratch(); (s.path / 'x').touch()", temporary)
    assert len(names_in(temporary)) == 1
    with Scratch() as own:
        assert names_in(temporary) == [own.path.name]
    assert names_in(temporary) == []


def test_what_is_in_use_stays(temporary: Path) -> None:
    program = (
        f"import tempfile; tempfile.tempdir = {str(temporary)!r}\nfrom flistfs.util.scratch import Scratch\n"
    )
    with Scratch() as own:
        subprocess.run([sys.executable, "-c", f"{program}Scratch().close()"], check=True)
        assert own.path.is_dir()


def test_what_others_have_planted_is_left_alone(temporary: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("precious")
    (temporary / "flistfs-scratch-link").symlink_to(precious)
    (temporary / "flistfs-scratch-file").touch()
    planted = ["flistfs-scratch-file", "flistfs-scratch-link"]
    if os.geteuid() == 0:
        foreign = temporary / "flistfs-scratch-foreign"
        foreign.mkdir()
        os.chown(foreign, 12345, 12345)
        planted.insert(1, foreign.name)
    Scratch().close()
    assert names_in(temporary) == planted
    assert (precious / "file").read_text() == "precious"


BESIDE = """
import os
from pathlib import Path
from flistfs.util.output_file import OutputFile
before = os.open
def refusing(path, flags, mode=0o777, *, dir_fd=None):
    if path == "." and flags & os.O_TMPFILE == os.O_TMPFILE:
        raise OSError(95, "")
    return before(path, flags, mode, dir_fd=dir_fd)
os.open = refusing
output = OutputFile(Path({out!r}), force=False)
"""


def test_a_part_beside_the_output_goes_with_it(temporary: Path, place: Path) -> None:
    killed_while(BESIDE.format(out=str(place / "out.flist")), temporary)
    assert len(names_in(place)) == 1
    Scratch().close()
    assert names_in(place) == []


def test_a_part_that_is_another_file_by_now_stays(temporary: Path, place: Path) -> None:
    killed_while(BESIDE.format(out=str(place / "out.flist")), temporary)
    (part,) = place.iterdir()
    part.rename(place / "kept")
    part.write_text("somebody else's")
    Scratch().close()
    assert part.read_text() == "somebody else's"
