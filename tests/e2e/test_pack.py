"""A directory or a tar archive becomes an flist in one go, or nothing at all."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import signal
import stat
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.commands import FLISTFS, Home, shell, wait_until
from tests.generation1 import open_store
from tests.independent_reader import Node, read_content, read_flist
from tests.needs import needs_permissions
from tests.redis_server import running_redis
from tests.stores.fake_server import Shelf, fake_server
from tests.trees import assert_flist_equals, make_everything, snapshot

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstd.compress,
}


def packed(home: Home, *arguments: str | Path) -> dict[bytes, Node]:
    home.run("pack", *arguments, home.path / "out.flist")
    return read_flist(home.path / "out.flist")


def nothing_is_left(home: Home) -> bool:
    root = home.path / "state/flistfs/packing"
    return not (home.path / "out.flist").exists() and not list(root.iterdir() if root.exists() else ())


def test_a_directory_with_every_kind_of_entry(home: Home, source: Path) -> None:
    make_everything(source)
    get = open_store(f"dir://{home.blocks}").get
    assert_flist_equals(packed(home, source), snapshot(source), get, fast=True)
    assert not list((home.path / "state/flistfs/packing").iterdir())
    assert home.listed("status") == []


def test_packing_again_stores_nothing_and_makes_the_same(home: Home, source: Path) -> None:
    make_everything(source)
    epoch = {"SOURCE_DATE_EPOCH": "1500000000"}
    home.run("pack", source, "one.flist", env=epoch)
    second = home.run("pack", source, "two.flist", "--json", env=epoch)
    summary = json.loads(second.stdout.splitlines()[-1])
    assert summary["new_blocks"] == 0
    assert (home.path / "one.flist").read_bytes() == (home.path / "two.flist").read_bytes()


@pytest.mark.parametrize("compression", ["plain", "zstd"])
def test_a_tar_archive_with_every_kind_of_entry(home: Home, source: Path, compression: str) -> None:
    make_everything(source)
    (source / "specials/socket").unlink()  # an archive holds none
    shell("touch -r fifo .", cwd=source / "specials")
    wanted = {path: replace(snap, mtime_ns=snap.mtime_ns) for path, snap in snapshot(source).items()}
    archive = home.path / "archive"
    shell(f"tar --format=pax -cf '{archive}' .", cwd=source)
    archive.write_bytes(COMPRESSIONS[compression](archive.read_bytes()))
    get = open_store(f"dir://{home.blocks}").get
    assert_flist_equals(packed(home, archive), wanted, get, fast=True)


def test_an_archive_from_standard_input(home: Home, source: Path) -> None:
    (source / "etc").mkdir()
    (source / "etc/file").write_bytes(b"content" * 100_000)
    shell(
        f"tar -cf - . | gzip | '{FLISTFS}' pack - '{home.path}/out.flist'", cwd=source, **home.environment()
    )
    nodes = read_flist(home.path / "out.flist")
    content = read_content(nodes[b"etc/file"], open_store(f"dir://{home.blocks}").get)
    assert content == b"content" * 100_000


def test_devices_and_owners_of_an_archive_need_no_root(home: Home) -> None:
    """They are only read from the archive: nothing is made on this machine."""

    def device(member: tarfile.TarInfo) -> None:
        member.type, member.devmajor, member.devminor = tarfile.CHRTYPE, 1, 3
        member.uid, member.gid, member.mode = 123, 456, 0o4620

    nodes = packed(home, archive_of(home, entry("dev/null", change=device)))
    node = nodes[b"dev/null"]
    assert (node.kind, node.device, node.uid, node.gid) == ("char", (1, 3), 123, 456)
    assert nodes[b"dev"].mode & 0o7777 == 0o755  # a directory that the archive does not name


def test_absolute_names_are_taken_without_their_slash_which_is_said_once(home: Home) -> None:
    archive = archive_of(home, entry("/etc/x", b"x"), entry("/etc/y", b"y"), entry("./etc/z"))
    said = home.run("pack", archive, "out.flist")
    assert said.stderr.count("note: ") == 1
    assert "absolute names" in said.stderr
    assert {b"etc/x", b"etc/y", b"etc/z"} < set(read_flist(home.path / "out.flist"))
    answer = json.loads(home.run("pack", archive, "out.flist", "--force", "--json").stdout.splitlines()[-1])
    assert answer["left_out"] == []
    assert len([note for note in answer["notes"] if "absolute names" in note]) == 1


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_archive_without_an_end(home: Home, compression: str) -> None:
    """Compression shows that nothing is cut off; of a plain archive nobody knows."""
    archive = archive_of(home, entry("file", b"content"), entry("last", b"x"))
    archive.write_bytes(COMPRESSIONS[compression](archive.read_bytes()[: 4 * 512]))
    if compression != "plain":
        assert {b"file", b"last"} < set(packed(home, archive))
        return
    assert (
        "truncated: there is no end-of-archive marker"
        in home.run("pack", archive, "out.flist", code=11).stderr
    )
    assert nothing_is_left(home)


def test_a_sparse_file_in_an_archive(home: Home, source: Path) -> None:
    """6 GiB with a few bytes of data: holes are neither read nor stored."""
    with (source / "lastlog").open("wb") as file:
        file.seek(4 << 30)
        file.write(b"x" * 292)
        file.truncate(6 << 30)
    shell(f"tar -S -cf '{home.path}/archive' .", cwd=source)
    said = home.run("pack", "archive", "out.flist", "--json")
    assert json.loads(said.stdout.splitlines()[-1])["new_blocks"] == 1
    node = read_flist(home.path / "out.flist")[b"lastlog"]
    assert (node.size, len(node.blocks), len(set(node.blocks))) == (6 << 30, 6 << 11, 2)


# What is refused


Entry = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"", *, change: Callable[[tarfile.TarInfo], None] | None = None) -> Entry:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    member.mode = 0o644
    if change is not None:
        change(member)
    return member, data


def of_type(kind: bytes, target: str = "") -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname = kind, target

    return change


def sparse_of(size: int) -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        member.pax_headers = {"GNU.sparse.size": str(size), "GNU.sparse.map": "0,0"}

    return change


def archive_of(home: Home, *entries: Entry) -> Path:
    path = home.path / "archive.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for member, data in entries:
            archive.addfile(member, io.BytesIO(data))
    return path


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
