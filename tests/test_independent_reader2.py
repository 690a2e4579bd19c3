"""The second opinion on flists of generation 2 finds what is wrong."""

from __future__ import annotations

import gzip
import io
import sqlite3
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import flistfs
from flistfs.format.codecs import Generation2
from flistfs.format.zeroos.records import (
    Aci,
    Directory,
    SubDirectory,
    decode_aci,
    decode_directory,
    encode_aci,
    encode_directory,
)
from tests.independent_reader import DefectError
from tests.independent_reader2 import FILE, directory_key, read_content2, read_flist2
from tests.trees import make_everything

Database = sqlite3.Connection
ROOT = directory_key(b"")


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A proper package."""
    directory = tmp_path_factory.mktemp("proper")
    (directory / "source").mkdir()
    make_everything(directory / "source")
    flistfs.pack(
        directory / "source", directory / "out.flist", format="sqlite", store=f"dir://{directory}/blocks"
    )
    return directory / "out.flist"


def changed(package: Path, out: Path, change: Callable[[Database], object]) -> Path:
    """The package with another database."""
    with tarfile.open(package, "r:gz") as archive:
        archive.extractall(out.parent)
    path = out.parent / FILE
    database = sqlite3.connect(path, isolation_level=None)
    change(database)
    database.execute("VACUUM")
    database.close()
    with (
        out.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w|", format=tarfile.USTAR_FORMAT) as archive,
    ):
        member = tarfile.TarInfo(FILE)
        member.size = path.stat().st_size
        archive.addfile(member, io.BytesIO(path.read_bytes()))
    return out


def root_with(change: Callable[[Directory], Directory]) -> Callable[[Database], object]:
    """A change of the root's record."""

    def apply(database: Database) -> None:
        (value,) = database.execute("SELECT value FROM entries WHERE key = ?", [ROOT]).fetchone()
        record = encode_directory(change(decode_directory(value)))
        database.execute("UPDATE entries SET value = ? WHERE key = ?", (record, ROOT))

    return apply


def aci_with(change: Callable[[Aci], Aci]) -> Callable[[Database], object]:
    """A change of some ACI."""

    def apply(database: Database) -> None:
        key, value = database.execute("SELECT key, value FROM entries WHERE length(key) = 16").fetchone()
        record = encode_aci(change(decode_aci(value)))
        database.execute("UPDATE entries SET value = ? WHERE key = ?", (record, key))

    return apply


def without_access_of_directories(root: Directory) -> Directory:
    return replace(
        root,
        entries=[
            replace(entry, aclkey=b"") if isinstance(entry.attributes, SubDirectory) else entry
            for entry in root.entries
        ],
    )


def statement(text: str) -> Callable[[Database], object]:
    return lambda database: database.execute(text)


def root_last(database: Database) -> None:
    database.execute("UPDATE entries SET rowid = 1000000 WHERE key = ?", [ROOT])


DEFECTS: dict[str, Callable[[Database], object]] = {
    "the root is not the first row": root_last,
    "keys or values of other types": statement("UPDATE entries SET key = CAST(key AS BLOB)"),
    "in another mode": statement("PRAGMA journal_mode = WAL"),
    "has a file type in its mode": aci_with(lambda aci: replace(aci, mode=aci.mode | 0o100000)),
    "does not have the key of its text": aci_with(lambda aci: replace(aci, uid=aci.uid + 1)),
    "its parent says": root_with(lambda root: replace(root, parent=b"")),
    "its name says": root_with(lambda root: replace(root, name=b"root")),
    "its location says": root_with(lambda root: replace(root, location=b"root")),
    "entry and record differ": root_with(without_access_of_directories),
    "not sorted": root_with(lambda root: replace(root, entries=[*root.entries][::-1])),
    "stray records": statement(f"INSERT INTO entries SELECT '{'0' * 32}', value FROM entries LIMIT 1"),
    "stray record ": statement("INSERT INTO entries VALUES ('other', x'00')"),
    "its directory is missing": statement(f"DELETE FROM entries WHERE key = '{directory_key(b'etc')}'"),
}


def test_a_proper_package_is_read(package: Path, tmp_path: Path) -> None:
    nodes = read_flist2(package)
    assert nodes[b""].kind == "dir"
    assert read_flist2(changed(package, tmp_path / "same.flist", lambda _: None)) == nodes


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found(package: Path, tmp_path: Path, defect: str) -> None:
    with pytest.raises(DefectError, match=defect):
        read_flist2(changed(package, tmp_path / "bad.flist", DEFECTS[defect]))


def test_blocks_are_decoded_slowly_and_quickly(package: Path) -> None:
    nodes = read_flist2(package)
    file = next(node for node in nodes.values() if node.kind == "file" and 0 < node.size < 100)
    ((name, key),) = file.blocks
    content = b"content"
    block = Generation2().encode(content)
    shown = replace(file, size=len(content), blocks=((block.hash, block.key),))
    for fast in (True, False):
        assert read_content2(shown, {block.hash: block.stored}.get, fast=fast) == content
        with pytest.raises(DefectError, match="has another hash"):
            read_content2(shown, {block.hash: block.stored + b"x"}.get, fast=fast)
        with pytest.raises(DefectError, match="has no block"):
            read_content2(replace(shown, blocks=((name, key),)), lambda _: None, fast=fast)
