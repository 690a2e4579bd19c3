"""What pack refuses, leaves out, or waits for."""

from __future__ import annotations

import os
import signal
import stat
import tarfile
from pathlib import Path

import pytest

from tests.e2e.commands import Home, shell, wait_until
from tests.e2e.test_pack import COMPRESSIONS, Entry, archive_of, entry, nothing_is_left, of_type, sparse_of
from tests.generation1 import open_store
from tests.independent_reader import read_content, read_flist
from tests.needs import needs_permissions
from tests.redis_server import running_redis
from tests.stores.fake_server import Shelf, fake_server

HOSTILE: dict[str, tuple[str, list[Entry]]] = {
    "upward": ("a/../../x: its name contains '..'", [entry("a/../../x", b"x")]),
    "link out": ("l: its name contains '..'", [entry("l", change=of_type(tarfile.LNKTYPE, "../x"))]),
    "absolute link": (
        "l: it is a hard link to a file that does not exist",
        [entry("l", change=of_type(tarfile.LNKTYPE, "/etc/passwd"))],
    ),
    "more than a file may have": (
        "x: it has 1,152,921,504,606,846,976 bytes",
        [entry("x", change=sparse_of(1 << 60))],
    ),
    "link to nothing": (
        "l: it is a hard link to a file that does not exist",
        [entry("l", change=of_type(tarfile.LNKTYPE, "gone"))],
    ),
    "twice": ("x: it occurs twice", [entry("x", b"1"), entry("x", b"2")]),
    "file as directory": ("x/y: its parent is not a directory", [entry("x", b"1"), entry("x/y", b"2")]),
    "through a link": (
        "x/passwd: its parent is not a directory",
        [entry("x", change=of_type(tarfile.SYMTYPE, "/etc")), entry("x/passwd", b"2")],
    ),
    "directory over a file": (
        "x: something other than a directory",
        [entry("x", b"1"), entry("x", change=of_type(tarfile.DIRTYPE))],
    ),
    "file over a directory": (
        "x: a directory already exists",
        [entry("x", change=of_type(tarfile.DIRTYPE)), entry("x")],
    ),
    "long name": ("its name is longer than 255 bytes", [entry("n" * 300, b"x")]),
    "long target": ("l: its target is longer", [entry("l", change=of_type(tarfile.SYMTYPE, "t" * 5000))]),
    "empty target": ("l: it is a link without a target", [entry("l", change=of_type(tarfile.SYMTYPE))]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_entry_is_named_and_nothing_is_sealed(home: Home, case: str) -> None:
    message, entries = HOSTILE[case]
    archive = archive_of(home, entry("good", b"good"), *entries, entry("last", b"last"))
    assert message in home.run("pack", archive, "out.flist", code=11).stderr
    assert nothing_is_left(home)
    said = home.run("pack", archive, "out.flist", "--keep-going", code=11)
    assert f"left out: {message}" in said.stderr or message in said.stderr
    assert "flistfs: 1 entry was left out\n" in said.stderr
    nodes = read_flist(home.path / "out.flist")
    assert {b"good", b"last"} <= set(nodes)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_archive_that_is_cut_off(home: Home, compression: str) -> None:
    archive = archive_of(home, *(entry(f"file{number}", os.urandom(30_000)) for number in range(40)))
    whole = COMPRESSIONS[compression](archive.read_bytes())
    for length in (len(whole) // 2 // 512 * 512, 700):
        archive.write_bytes(whole[:length])
        said = home.run("pack", archive, "out.flist", code=11).stderr
        assert str(archive) in said or "file" in said
        assert nothing_is_left(home)
    archive.write_bytes(whole[: 3 * len(whole) // 4])
    said = home.run("pack", archive, "out.flist", "--keep-going", code=11).stderr
    assert f"left out: {archive}: file" in said
    assert len(read_flist(home.path / "out.flist")) > 5


@pytest.mark.parametrize(("start", "name"), [(b"PK\3\4", "zip"), (b"070701", "cpio"), (b"!<arch>\n", "ar")])
def test_archives_of_other_formats_are_refused_by_name(home: Home, start: bytes, name: str) -> None:
    (home.path / "archive").write_bytes(start + bytes(2000))
    assert (
        f"archive cannot be read: it is a{'n' * (name == 'ar')} {name}"
        in home.run("pack", "archive", "out.flist", code=11).stderr
    )
    assert nothing_is_left(home)


def test_what_is_no_archive(home: Home) -> None:
    (home.path / "text").write_bytes(b"This is no archive at all.\n" * 100)
    (home.path / "empty").touch()
    for name in ("text", "empty", "nowhere"):
        assert name in home.run("pack", name, "out.flist", code=11).stderr
        assert nothing_is_left(home)


def close_to_all(path: Path, mode: int) -> None:
    """Make something that nobody but its owner may read: somebody else, if this is root."""
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 4321, 4321)


@pytest.mark.parametrize("with_attributes", [True, False])
def test_what_cannot_be_read_is_named_and_left_out(
    home: Home, source: Path, *, with_attributes: bool
) -> None:
    under = needs_permissions()
    (source / "good").write_bytes(b"good")
    directory, file, unsearchable = source / "directory", source / "file", source / "unsearchable"
    (directory / "below").mkdir(parents=True)
    unsearchable.mkdir()
    (unsearchable / "inside").touch()
    file.write_bytes(b"x")
    for path, mode in ((directory, 0o311), (file, 0), (unsearchable, 0o644)):
        if with_attributes:
            os.setxattr(path, "user.note", b"n")
        close_to_all(path, mode)
    lines = {
        f"{source}/directory: it cannot be read: Permission denied",
        f"{source}/file: it cannot be read: Permission denied",
        f"{source}/unsearchable/inside: it cannot be read: Permission denied",
    }
    try:
        for command in (("pack", source, "out.flist"), ("add", f"{source}/.")):
            if command[0] == "add":
                home.run("new", source)
            said = home.run(*command, code=11, prefix=under).stderr
            assert any(line in said for line in lines)
            assert not (home.path / "out.flist").exists() or command[0] == "add"
            said = home.run(*command, "--keep-going", code=11, prefix=under).stderr
            assert lines == {
                line.partition("left out: ")[2] for line in said.splitlines() if "left out:" in line
            }
        home.run("seal", "other.flist", "--incomplete")
        for name in ("out.flist", "other.flist"):
            assert set(read_flist(home.path / name)) == {b"", b"good", b"unsearchable"}
    finally:
        for path in (directory, unsearchable):
            path.chmod(0o755)


def test_paths_that_are_longer_than_a_call_takes(home: Home, source: Path) -> None:
    """Everything that is read of an entry is read of those as well: content, holes, links, attributes."""
    name, depth = "n" * 250, 20
    shell(
        f"for i in $(seq {depth}); do mkdir {name}; cd {name}; echo $i > file; done\n"
        "truncate -s 3M holes; echo end >> holes; ln -s file link; ln file again; mkfifo pipe; mkdir empty",
        cwd=source,
    )
    summary = home.json("pack", source, "out.flist")
    nodes = read_flist(home.path / "out.flist")
    get = open_store(f"dir://{home.blocks}").get
    path = b""
    for number in range(depth):
        path = path + b"/" + name.encode() if path else name.encode()
        assert read_content(nodes[path + b"/file"], get) == b"%d\n" % (number + 1)
    assert len(path) > 5000
    assert read_content(nodes[path + b"/holes"], get) == bytes(3 << 20) + b"end\n"
    assert read_content(nodes[path + b"/again"], get) == b"20\n"
    assert nodes[path + b"/link"].target == b"file"
    assert {nodes[path + b"/pipe"].kind, nodes[path + b"/empty"].kind} == {"fifo", "dir"}
    assert summary["new_blocks"] > depth
    shell(f"rm -rf {name}", cwd=source)


def test_an_output_that_exists_is_refused_before_anything_is_read(home: Home, source: Path) -> None:
    (home.path / "out.flist").symlink_to("dangling")
    assert "exists" in home.run("pack", "nowhere", "out.flist", code=9).stderr
    (source / "file").write_bytes(b"x")
    home.run("pack", source, "out.flist", "--force")
    assert stat.S_ISREG((home.path / "out.flist").lstat().st_mode)


def test_a_store_that_is_down(home: Home, source: Path) -> None:
    home.run("pack", source, "out.flist", "--store", "redis://127.0.0.1:1", code=3)
    assert nothing_is_left(home)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("start", [b"", b"\x1f\x8b", bytes(3 * 512)], ids=["nothing", "magic", "blocks"])
def test_a_pack_ends_while_its_pipe_is_silent(home: Home, number: int, code: int, start: bytes) -> None:
    reader, writer = os.pipe()
    with (
        os.fdopen(writer, "wb", buffering=0) as archive,
        home.started("pack", "-", "out.flist", stdin=reader) as pack,
    ):
        os.close(reader)
        archive.write(start)
        packing = home.path / "state/flistfs/packing"
        wait_until(lambda: list(packing.glob("*/journal/CURRENT")), "it is about to read")
        pack.send_signal(number)
        said = pack.communicate()
    assert (pack.returncode, *said) == (code, "", "\n" if number == signal.SIGINT else said[1])
    assert nothing_is_left(home)
    wait_until(lambda: not home.processes(), "its encoders have ended")


def test_a_named_pipe_that_nobody_writes_to_may_be_waited_for(home: Home, source: Path) -> None:
    os.mkfifo(home.path / "pipe")
    packing = home.path / "state/flistfs/packing"
    with home.started("pack", "pipe", "out.flist") as pack:
        wait_until(lambda: list(packing.glob("*/journal/CURRENT")), "it is about to read")
        pack.send_signal(signal.SIGINT)
        pack.communicate()
    assert pack.returncode == 130
    assert nothing_is_left(home)
    (source / "file").write_bytes(b"content")
    with home.started("pack", "pipe", "out.flist") as pack:
        shell(f"tar -cf '{home.path}/pipe' file", cwd=source)
        pack.communicate()
    assert set(read_flist(home.path / "out.flist")) == {b"", b"file"}


def test_the_timeout_counts_for_connecting_and_for_a_store_that_falls_silent(
    home: Home, source: Path
) -> None:
    (source / "file").write_bytes(b"x")
    with running_redis() as server:
        server.hang()
        refused = home.run("pack", source, "out.flist", "--store", server.url, "--timeout", "1", code=3)
        assert f"gave up after 1 s: {server.url} does not answer" in refused.stderr
        assert "--timeout" in refused.stderr
        server.resume()
        secure = server.url.replace("redis://", "rediss://")
        refused = home.run("pack", source, "out.flist", "--store", secure, "--timeout", "1", code=3)
        assert f"{secure} does not speak TLS on this port" in refused.stderr
    with fake_server(lambda words: None if words[0] == b"SET" else Shelf()(words)) as fallen:
        store = f"redis://127.0.0.1:{fallen.port}"
        refused = home.run("pack", source, "out.flist", "--store", store, "--timeout", "1", code=3)
        assert f"gave up after 1 s: {store} accepts nothing" in refused.stderr
    assert not (home.path / "out.flist").exists()


def test_an_interrupted_or_killed_pack_leaves_nothing(home: Home, source: Path) -> None:
    (source / "file").write_bytes(os.urandom(100_000))
    root = home.path / "state/flistfs/packing"
    with running_redis() as server:
        for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
            with home.started("pack", source, "out.flist", "--store", server.url, "--json") as pack:
                wait_until(lambda: list(root.glob("*/journal")), "it has begun")
                server.hang()
                pack.send_signal(number)
            assert pack.returncode in {code, 0}
            (home.path / "out.flist").unlink(missing_ok=True)
            server.resume()
        home.run("pack", source, "out.flist", "--store", server.url)
    assert not list(root.iterdir())
