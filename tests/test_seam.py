"""A second format goes through everything, and nothing else knows of it (see `plain_format`)."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from flistfs import stores
from flistfs.cli.command_line import cli
from flistfs.errors import FormatError
from flistfs.format import opening
from flistfs.reading.diff import diff
from flistfs.reading.extract import extract
from flistfs.reading.flist import Flist
from flistfs.reading.merge import Source, merge
from flistfs.reading.push import push
from flistfs.reading.verify import verify
from flistfs.sources.directory import DirectorySource, Start
from flistfs.tree.node import Kind
from flistfs.tree.rules import Prefer
from flistfs.util.progress import quiet
from tests.authoring.packing import seal_sources
from tests.plain_format import MAGIC, PLAIN

BIG = os.urandom(1_200_000)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(opening._FORMATS, "plain", PLAIN)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "etc/deep").mkdir(parents=True)
    (tree / "etc/big").write_bytes(BIG)
    (tree / "etc/deep/small").write_bytes(b"small")
    (tree / "etc/empty").touch()
    with (tree / "etc/hole").open("wb") as file:
        file.truncate(700_000)
    (tree / "etc/link").symlink_to("big")
    os.mkfifo(tree / "fifo")
    return tree


def sealed(work: Path, tree: Path, format_: str = "plain") -> Path:
    source = DirectorySource([Start(os.fsencode(tree), b"", "tree")])
    return seal_sources(work, [source], format_=format_)


@pytest.fixture
def package(tmp_path: Path, tree: Path) -> Path:
    return sealed(tmp_path / "work", tree)


@pytest.fixture
def flist(package: Path) -> Iterator[Flist]:
    with Flist.open(package) as flist:
        yield flist


def test_it_is_sealed_and_read(flist: Flist, package: Path) -> None:
    assert package.read_bytes().startswith(MAGIC)
    assert flist.format is PLAIN
    assert flist.metadata == {"made": b"by a test"}
    found = {node.path: node.kind for node in flist.walk(flist.find(b""))}
    assert found == {
        b"etc": Kind.DIRECTORY,
        b"etc/big": Kind.FILE,
        b"etc/deep": Kind.DIRECTORY,
        b"etc/deep/small": Kind.FILE,
        b"etc/empty": Kind.FILE,
        b"etc/hole": Kind.FILE,
        b"etc/link": Kind.LINK,
        b"fifo": Kind.FIFO,
    }
    assert flist.follow(b"etc/link").size == len(BIG)


def test_its_blocks_are_in_the_clear(package: Path) -> None:
    blocks = package.parent / "blocks"
    assert (BIG[: 1 << 19]) in [path.read_bytes() for path in blocks.rglob("*") if path.is_file()]


def test_the_command_line_shows_it(package: Path) -> None:
    done = CliRunner().invoke(cli, ["ls", "-R", str(package)])
    assert done.exit_code == 0, done.output
    assert "etc/deep/small" in done.output.splitlines()
    told = json.loads(CliRunner().invoke(cli, ["info", "--json", str(package)]).output)
    assert told["format"] == "plain"


def test_it_is_compared(tmp_path: Path, tree: Path, flist: Flist) -> None:
    (tree / "etc/deep/small").write_bytes(b"other")
    (tree / "etc/new").write_bytes(b"new")
    with Flist.open(sealed(tmp_path / "later", tree)) as other:
        changed = {each.path for each in diff(flist, other) if "content" in each.fields or not each.before}
    assert changed == {b"etc/deep/small", b"etc/new"}


def test_it_is_extracted_verified_and_pushed(tmp_path: Path, flist: Flist) -> None:
    target = tmp_path / "target"
    with (
        closing(stores.open_store(f"dir://{tmp_path}/work/blocks", flist.codec)) as origin,
        closing(stores.open_store(f"dir://{tmp_path}/other", flist.codec)) as other,
    ):
        assert verify(flist, origin, deep=True).faults == []
        pushed = push(flist, origin, other, quiet)
        assert pushed.sent == pushed.blocks == 6
        extract(flist, other, target)
    assert (target / "etc/big").read_bytes() == BIG
    assert (target / "etc/hole").read_bytes() == bytes(700_000)
    assert (target / "etc/link").readlink() == Path("big")
    assert (target / "fifo").is_fifo()


def test_several_are_merged(tmp_path: Path, tree: Path, flist: Flist) -> None:
    (tree / "etc/deep/small").unlink()
    (tree / "more").write_bytes(b"more")
    with Flist.open(sealed(tmp_path / "later", tree)) as other:
        merge([Source("a", flist), Source("b", other)], tmp_path / "both", prefer=Prefer.FIRST)
    with Flist.open(tmp_path / "both") as both:
        assert {b"etc/deep/small", b"more"} < {node.path for node in both.walk(both.find(b""))}
        assert both.format is PLAIN


def test_formats_do_not_mix(tmp_path: Path, tree: Path, flist: Flist) -> None:
    with (
        Flist.open(sealed(tmp_path / "first", tree, "rocksdb")) as first,
        pytest.raises(FormatError, match="a has the format plain, b the format rocksdb"),
    ):
        merge([Source("a", flist), Source("b", first)], tmp_path / "both")
