"""What an flist says besides its tree: given at the seal, changed later, kept by what starts from it."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import tarfile
import tomllib
from pathlib import Path

import pytest

import flistfs
from flistfs import MetadataChange, errors
from flistfs.format.router import router_to
from flistfs.reading.config import rewrite
from tests.both import FORMATS
from tests.e2e.commands import Home, is_mounted, shell, umount
from tests.needs import needs_data

OPTIONS = (
    *("--entrypoint", "/bin/sh -c 'echo hi'", "--env", "PATH=/bin", "--env", "EMPTY="),
    *("--port", "80:8080", "--port", "udp/53", "--volume", "/data", "--volume", "/opt:/mnt/x"),
    *("--set", "hello=wörld"),
)
WANTED = {
    "entrypoint": ["/bin/sh", "-c", "echo hi"],
    "environ": {"PATH": "/bin", "EMPTY": ""},
    "port": {"tcp/80": 8080, "udp/53": 53},
    "volume": {"/data": {}, "/opt": {"host": "/mnt/x"}},
}


def database_of(package: Path, directory: Path) -> sqlite3.Connection:
    """The database of a package, of whichever program."""
    with gzip.open(package) as packed, tarfile.open(fileobj=packed, mode="r|", ignore_zeros=True) as archive:
        for member in archive:
            if member.name.removeprefix("./") == "flistdb.sqlite3":
                content = archive.extractfile(member)
                assert content is not None
                (directory / "database").write_bytes(content.read())
    return sqlite3.connect(directory / "database")


def rows(package: Path, table: str) -> list[tuple[object, ...]]:
    """A table of a package's database, each value with its storage class."""
    database = database_of(package, package.parent)
    found = database.execute(f"SELECT key, typeof(key), value, typeof(value) FROM {table} ORDER BY rowid")
    plain = found.fetchall()
    database.close()
    return plain


def metadata(package: Path) -> dict[str, str]:
    """What a package says, all of it texts."""
    found = rows(package, "metadata")
    assert all((key, value) == ("text", "text") for _, key, _, value in found)
    return {str(key): str(value) for key, _, value, _ in found}


def shaped(plain: dict[str, str]) -> dict[str, object]:
    """The values that have a shape."""
    return {key: json.loads(value) for key, value in plain.items() if key != "hello"}


def test_metadata_has_the_shapes_of_zflist(home: Home, source: Path) -> None:
    (source / "README").write_text("All\nabout it.\n")
    home.run("pack", source, "out.flist", "--format", "sqlite", *OPTIONS, "--readme", source / "README")
    found = metadata(home.path / "out.flist")
    assert found.pop("hello") == "wörld"
    assert shaped(found) == {**WANTED, "readme": {"readme": "All\nabout it.\n"}}
    shown = home.json("config", "out.flist")["metadata"]
    assert shown.pop("hello") == "wörld"
    assert shaped(shown) == shaped(found)
    assert "hello: wörld" in home.run("config", "out.flist").stdout
    assert "metadata hello: wörld" in home.run("info", "out.flist").stdout


def test_a_sealed_flist_is_changed(home: Home, source: Path) -> None:
    (source / "file").write_bytes(b"content")
    home.run("pack", source, "out.flist", "--format", "sqlite", *OPTIONS, "--public-url", "zdb://10.0.0.1")
    before = (home.path / "out.flist").read_bytes()
    change = ("--unset", "port", "--env", "EMPTY=no", "--entrypoint", '["/init"]', "--set", "a=b=c")
    home.run("config", "out.flist", *change, "-o", "new.flist")
    assert (home.path / "out.flist").read_bytes() == before
    found = metadata(home.path / "new.flist")
    assert (found.pop("a"), found.pop("hello")) == ("b=c", "wörld")
    assert json.loads(found.pop("backend"))["host"] == "10.0.0.1"
    assert shaped(found) == {
        "entrypoint": ["/init"],
        "environ": {"PATH": "/bin", "EMPTY": "no"},
        "volume": WANTED["volume"],
    }
    assert rows(home.path / "new.flist", "entries") == rows(home.path / "out.flist", "entries")
    assert home.run("diff", "out.flist", "new.flist").stdout == ""
    with tarfile.open(home.path / "new.flist") as archive:
        assert archive.getnames() == ["flistdb.sqlite3", "router.yaml"]
    home.run("config", "new.flist", "--set", "a=c", "-o", "out.flist", code=9)
    assert (home.path / "out.flist").read_bytes() == before
    home.run("config", "out.flist", *change)  # in its place
    assert (home.path / "out.flist").read_bytes() == (home.path / "new.flist").read_bytes()


def test_what_is_changed_keeps_what_a_stranger_wrote(home: Home) -> None:
    sample = needs_data("samples/zflist-metadata.flist")
    database = database_of(sample, home.path)
    wanted = dict(database.execute("SELECT key, value FROM metadata"))
    records = database.execute("SELECT key, value FROM entries ORDER BY rowid").fetchall()
    database.close()
    home.run("config", sample, "--set", "mine=1", "-o", "out.flist")
    assert metadata(home.path / "out.flist") == {**wanted, "mine": "1"}
    assert [(key, value) for key, _, value, _ in rows(home.path / "out.flist", "entries")] == records


@pytest.mark.parametrize("format_", FORMATS)
def test_a_startup_file_says_what_to_start(home: Home, source: Path, format_: str) -> None:
    (source / "file").touch()
    os.utime(source, (1_000_000_000, 1_000_000_000))
    options = ("--entrypoint", '["/bin/a b", "\\"q\\"\\u007f"]', "--env", "K=ö\\", "--startup")
    for name in ("one", "two"):
        home.run(
            "pack", source, f"{name}.flist", "--format", format_, *options, env={"SOURCE_DATE_EPOCH": "9"}
        )
    assert (home.path / "one.flist").read_bytes() == (home.path / "two.flist").read_bytes()
    home.run("pack", source, "out.flist", "--format", format_, *options)
    entry = tomllib.loads(home.run("cat", "out.flist", ".startup.toml").stdout)["startup"]["entry"]
    assert entry == {
        "name": "core.system",
        "args": {"name": "/bin/a b", "args": ['"q"\x7f'], "dir": "/", "env": {"K": "ö\\"}},
    }
    root, file = (
        home.json("stat", "out.flist", "")["entries"][0],
        home.json("stat", "out.flist", ".startup.toml"),
    )
    assert root["mtime"] == 1_000_000_000
    assert (file["entries"][0]["mode"], file["entries"][0]["uid"]) == (0o100644, 0)
    assert home.json("verify", "out.flist")["faults"] == []


def test_a_mount_seals_with_metadata(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint, "--format", "sqlite", "--seal-to", "out.flist", *OPTIONS, "--startup")
    shell("echo hello > file", cwd=mountpoint)
    umount(mountpoint)
    home.run("wait", "--mount", mountpoint)
    assert shaped(home.json("config", "out.flist")["metadata"]) == WANTED
    assert home.run("ls", "out.flist").stdout.split() == [".startup.toml", "file"]
    home.run("mount", mountpoint, "--format", "sqlite")
    home.run("seal", "second.flist", "--entrypoint", "/bin/sh", "--startup")
    assert home.json("config", "second.flist")["metadata"] == {"entrypoint": '["/bin/sh"]'}
    assert home.run("ls", "second.flist").stdout.split() == [".startup.toml"]


def test_a_mount_is_refused_that_could_not_be_sealed(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["no place for metadata"]
    refused = home.run("mount", mountpoint, "--seal-to", "out.flist", "--entrypoint", "/bin/sh", code=2)
    assert "an flist of the format rocksdb has no place for metadata" in refused.stderr
    assert not is_mounted(mountpoint)
    assert home.listed("status") == []
    home.run("mount", mountpoint, "--seal-to", "out.flist", "--entrypoint", "/bin/sh", "--startup")
    umount(mountpoint)
    home.run("wait", "--mount", mountpoint)


def test_a_base_hands_its_metadata_on(home: Home, source: Path) -> None:
    home.run("pack", source, "base.flist", "--format", "sqlite", *OPTIONS, "--public-url", "zdb://10.0.0.1")
    home.run("new", "--from", "base.flist")
    home.run("seal", "out.flist", "--unset", "port", "--env", "A=b", "--startup")
    found = home.json("config", "out.flist")["metadata"]
    assert found.pop("hello") == "wörld"
    assert shaped(found) == {
        "entrypoint": WANTED["entrypoint"],
        "environ": {"PATH": "/bin", "EMPTY": "", "A": "b"},
        "volume": WANTED["volume"],
    }
    entry = tomllib.loads(home.run("cat", "out.flist", ".startup.toml").stdout)["startup"]["entry"]
    assert entry["args"]["env"]["A"] == "b"


def test_merging_unites_metadata(home: Home, source: Path) -> None:
    (source / "a").touch()
    home.run("pack", source, "a.flist", "--format", "sqlite", "--set", "x=1", "--set", "only=a")
    (source / "a").rename(source / "b")
    home.run("pack", source, "b.flist", "--format", "sqlite", "--set", "x=2", "--set", "other=b")
    first = home.json("merge", "a.flist", "b.flist", "-o", "first.flist")
    assert first["notes"][-1:] == ["the metadata 'x' of b.flist is left out: a.flist has another"]
    assert metadata(home.path / "first.flist") == {"x": "1", "only": "a", "other": "b"}
    home.run("merge", "a.flist", "b.flist", "-o", "last.flist", "--prefer", "last")
    assert metadata(home.path / "last.flist") == {"x": "2", "only": "a", "other": "b"}


REFUSED: dict[str, tuple[str, ...]] = {
    "--env takes NAME=VALUE": ("--env", "nothing"),
    "--set takes KEY=VALUE": ("--set", "=x"),
    "--port takes": ("--port", "http"),
    "the port tcp/0:0 is invalid": ("--port", "0"),
    "both of its paths are absolute": ("--volume", "data"),
    "--entrypoint takes": ("--entrypoint", "[1]"),
    "has an option of its own": ("--set", "environ={}"),
    "flistfs route": ("--unset", "backend"),
    "cannot be read": ("--readme", "missing"),
    "has no metadata 'gone'": ("--unset", "gone"),
    "is no text": ("--set", os.fsdecode(b"a=\xff")),
    "at most": ("--set", "a=" + "x" * 100_000, *[word for n in range(1000) for word in ("--set", f"k{n}=")]),
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_has_no_place_is_refused(home: Home, source: Path, why: str) -> None:
    home.run("pack", source, "out.flist", "--format", "sqlite")
    before = (home.path / "out.flist").read_bytes()
    refused = home.run("config", "out.flist", *REFUSED[why], code=2)
    assert why in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert (home.path / "out.flist").read_bytes() == before


def test_generation_1_has_no_place_for_it(home: Home, source: Path, mountpoint: Path) -> None:
    place = "has no place for metadata"
    home.expected_log += ["sealing failed"]
    refused = home.run("pack", source, "out.flist", "--env", "A=b", code=2)
    assert place in refused.stderr
    assert not (home.path / "out.flist").exists()
    home.run("pack", source, "out.flist")
    assert home.json("config", "out.flist")["metadata"] == {}
    refused = home.run("config", "out.flist", "--env", "A=b", code=2)
    assert place in refused.stderr
    home.run("mount", mountpoint)
    refused = home.run("seal", "two.flist", "--entrypoint", "sh", code=2)
    assert place in refused.stderr
    assert home.status()["state"] == "mounted"
    refused = home.run("seal", "two.flist", "--startup", code=2)
    assert "name it with --entrypoint" in refused.stderr
    home.run("seal", "two.flist", "--startup", "--entrypoint", "sh")


def test_python(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    out = tmp_path / "out.flist"
    change = MetadataChange(entrypoint=("sh",), free={"a": "b"})
    flistfs.pack(source, out, format="sqlite", metadata=change)
    flistfs.configure(out, MetadataChange(unset=("a",), environ={"A": "b"}))
    with flistfs.open(out) as flist:
        assert dict(flist.metadata) == {"entrypoint": b'["sh"]', "environ": b'{"A": "b"}'}
    for wrong in (MetadataChange(environ={"": "x"}), MetadataChange(free={"a": "\0"})):
        with pytest.raises(errors.UsageError):
            flistfs.configure(out, wrong)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_router_is_replaced(home: Home, source: Path, format_: str) -> None:
    """What names another server is written anew, in every place where a reader looks."""
    (source / "file").write_bytes(b"content")
    home.run("pack", source, "out.flist", "--format", format_)
    rewrite(
        home.path / "out.flist",
        home.path / "new.flist",
        router_to("zdb://10.0.0.2:9900"),
        MetadataChange(),
        force=False,
    )
    info = home.json("info", "new.flist")
    assert [rule["url"] for rules in info["router"]["pools"].values() for rule in rules] == [
        "zdb://10.0.0.2:9900"
    ]
    assert ("backend" in info["metadata"]) == (format_ == "sqlite")
    assert home.run("diff", "out.flist", "new.flist").stdout == ""
