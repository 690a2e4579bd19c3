"""A directory or a tar archive becomes an flist in one go, or nothing at all."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.commands import FLISTFS, Home, shell
from tests.generation1 import open_store
from tests.independent_reader import Node, read_content, read_flist
from tests.snapshots import assert_flist_equals, snapshot
from tests.trees import make_everything

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
