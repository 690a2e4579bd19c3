"""Flists with faults that other programs leave behind: refused, unless what is there of them is wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import flistfs
from tests.e2e.commands import Home
from tests.e2e.lossy import CONTENT, make_lossy
from tests.e2e.test_formats import comparable
from tests.needs import needs_data
from tests.redis_server import RedisServer


@pytest.fixture
def package(home: Home, source: Path, redis: RedisServer) -> Path:
    return make_lossy(home, source, redis)


def base(home: Home, *options: str, code: int = 0) -> str:
    done = home.run("new", "--from", "bad.flist", *options, code=code)
    if not code:
        home.run("seal", "out.flist")
    return done.stdout + done.stderr


def merge(home: Home, *options: str, code: int = 0) -> str:
    done = home.run("merge", "bad.flist", "-o", "out.flist", *options, code=code)
    return done.stdout + done.stderr


def convert(home: Home, *options: str, code: int = 0) -> str:
    done = home.run("convert", "bad.flist", "out.flist", "--format", "rocksdb", *options, code=code)
    return done.stdout + done.stderr


@pytest.mark.parametrize("use", [base, merge, convert])
def test_what_is_there_is_taken(home: Home, package: Path, source: Path, use: Callable[..., str]) -> None:
    assert package.exists()
    assert "--accept-faults" in use(home, code=8)
    assert "note: 2 faults were accepted" in use(home, "--accept-faults")
    assert home.json("verify", "out.flist")["faults"] == []
    home.run("extract", "out.flist", "copy")
    (source / "lost/file").unlink()
    (source / "tail").write_bytes(CONTENT)
    assert comparable(home.path / "copy") == comparable(source)


def test_what_zflist_lost(home: Home) -> None:
    sample = needs_data("samples/zflist-45000-files-lost.flist")
    home.run("merge", sample, "-o", "out.flist", code=8)
    merged = home.json("merge", sample, "-o", "out.flist", "--accept-faults")
    assert merged["accepted_faults"] > 0
    assert home.json("verify", "out.flist", "--no-store")["faults"] == []


def test_it_belongs_to_a_base(home: Home) -> None:
    assert "belongs to --from" in home.run("new", "--accept-faults", code=2).stderr


def test_python(home: Home, package: Path) -> None:
    merged = flistfs.merge(home.path / "out.flist", [package], accept_faults=True)
    assert merged.accepted_faults == 2
