"""Flists of both formats: written, read, compared, and kept apart."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import redis as redis_client

import flistfs
from flistfs import errors
from flistfs.format.codecs import Generation1, Generation2
from flistfs.format.router import (
    Router,
    as_taken_in_bytes,
    in_whole_bytes,
    only_server,
    parse_router,
    router_to,
)
from flistfs.format.sqlite.backend import router_of, without_secrets
from flistfs.format.zeroos.keys import GENERATION_2
from flistfs.format.zeroos.records import (
    Special,
    SubDirectory,
    decode_aci,
    decode_directory,
    encode_directory,
)
from flistfs.reading.flist import Flist
from tests.both import FORMATS
from tests.e2e.commands import Home, shell, umount
from tests.e2e.test_roundtrip import blocks_in_redis
from tests.independent_reader import read_flist
from tests.independent_reader2 import read_flist2
from tests.needs import needs_data
from tests.redis_server import RedisServer, running_redis
from tests.snapshots import assert_flist_equals, snapshot
from tests.trees import make_everything


def comparable(tree: Path) -> dict[bytes, object]:
    """What every format keeps of a tree."""
    return {
        path: (snap.kind, snap.mode, snap.uid, snap.gid, snap.sha256, snap.target, snap.device)
        for path, snap in snapshot(tree).items()
        if path
    }


@pytest.mark.parametrize("format_", FORMATS)
def test_a_tree_comes_back_through_the_kernel(
    home: Home, mountpoint: Path, source: Path, redis: RedisServer, format_: str
) -> None:
    make_everything(source)
    mounted = home.json("mount", mountpoint, "--format", format_, "--store", redis.url)
    assert mounted["format"] == home.status()["format"] == format_
    shell('cp -a "$SOURCE"/. .', cwd=mountpoint, SOURCE=str(source))
    wanted = snapshot(source)
    sealed = home.json("seal", "out.flist")
    assert sealed["format"] == format_
    names = [path.rpartition(b"/")[2] for path in wanted]
    odd = sum(name != name.decode(errors="ignore").encode() for name in names)
    assert odd
    assert sealed["unrepresentable"]["names"] == (odd if format_ == "sqlite" else 0)
    nodes = (read_flist if format_ == "rocksdb" else read_flist2)(home.path / "out.flist")
    assert_flist_equals(nodes, wanted, blocks_in_redis(redis), fast=True)
    assert home.json("info", "out.flist")["format"] == format_
    assert home.json("verify", "out.flist", "--deep", "--store", redis.url)["faults"] == []
    home.run("extract", "out.flist", "copy", "--store", redis.url)
    assert comparable(home.path / "copy") == comparable(source)
    home.run("mount", "--read-only", "out.flist", mountpoint, "--store", redis.url)
    seen = comparable(mountpoint)
    umount(mountpoint)
    assert seen == comparable(source)
    started = home.json("new", "--from", "out.flist", "--store", redis.url)
    assert started["format"] == format_  # that of its base
    home.run("seal", "again.flist")
    assert home.run("diff", "out.flist", "again.flist").stdout == ""


def test_equal_trees_make_equal_packages(home: Home, source: Path) -> None:
    make_everything(source)
    for name in ("one", "two"):
        home.run(
            "pack", source, f"{name}.flist", "--format", "sqlite", env={"SOURCE_DATE_EPOCH": "1000000000"}
        )
    assert (home.path / "one.flist").read_bytes() == (home.path / "two.flist").read_bytes()


def test_a_sealed_package_rule_by_rule(home: Home, source: Path) -> None:
    """With the library of SQLite alone; the rules are those of a writer that every reader takes."""
    make_everything(source)
    home.run("pack", source, "out.flist", "--format", "sqlite")
    with tarfile.open(home.path / "out.flist", "r:gz") as archive:
        assert [(member.name, member.type) for member in archive] == [("flistdb.sqlite3", tarfile.REGTYPE)]
        archive.extractall(home.path / "unpacked")
    database = sqlite3.connect(home.path / "unpacked/flistdb.sqlite3")
    rows = database.execute("SELECT rowid, key, value FROM entries ORDER BY rowid").fetchall()
    database.close()
    records = {key.encode(): value for _, key, value in rows}
    root = GENERATION_2.directory(b"")
    assert rows[0][:2] == (1, root.decode())
    directories = {key: decode_directory(value) for key, value in records.items() if len(key) == 32}
    acis = {key: decode_aci(value) for key, value in records.items() if len(key) == 16}
    assert len(directories) + len(acis) == len(records)
    assert all(GENERATION_2.aci(aci) == key and aci.mode == aci.mode & 0o7777 for key, aci in acis.items())
    assert directories[root].parent == root
    specials = 0
    for key, directory in directories.items():
        assert GENERATION_2.directory(directory.location) == key
        assert directory.parent in directories
        assert directory.aclkey in acis
        are_special = [isinstance(entry.attributes, Special) for entry in directory.entries]
        assert are_special == sorted(are_special)
        specials += sum(are_special)
        for entry in directory.entries:
            assert entry.aclkey in acis
            if isinstance(entry.attributes, SubDirectory):
                own = directories[entry.attributes.key]
                assert (entry.size, entry.aclkey) == (own.size, own.aclkey)
                assert (entry.modification_time, entry.creation_time) == (
                    own.modification_time,
                    own.creation_time,
                )
    assert specials


def test_a_session_keeps_its_format(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint, env={"FLISTFS_FORMAT": "sqlite"})
    umount(mountpoint)
    refused = home.run("mount", mountpoint, "--format", "rocksdb", code=5).stderr
    assert f"the open session of {mountpoint} has the format sqlite, not rocksdb" in refused
    assert "omit --format" in refused
    home.run("mount", mountpoint)
    (mountpoint / "file").write_bytes(b"content")
    assert home.json("seal", "out.flist")["format"] == "sqlite"
    assert "--format" in home.run("new", "--format", "tar", code=2).stderr


def test_from_python(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in home.environment().items():
        if name.startswith("XDG_"):
            monkeypatch.setenv(name, value)
    monkeypatch.chdir(home.path)
    (home.path / "file").write_bytes(b"content")
    (home.path / "file.d").mkdir()
    with flistfs.Session("state", format="sqlite") as session:
        session.add("file")
    with pytest.raises(
        errors.SessionError, match="has the format sqlite, not rocksdb; seal it first, or omit `format`"
    ):
        flistfs.Session("state", format="rocksdb")
    with flistfs.Session("state") as session:
        assert session.seal("out.flist").format == "sqlite"
    with flistfs.open("out.flist") as flist, flist.open_file("file") as file:
        assert (flist.format, file.read()) == ("sqlite", b"content")
    assert flistfs.pack("file.d", "packed.flist", format="sqlite").sealed.format == "sqlite"
    with pytest.raises(errors.UsageError, match="`format` is 'tar'; it must be rocksdb or sqlite"):
        flistfs.new("place", format="tar")  # type: ignore[arg-type]


def test_formats_that_meet_are_refused_by_name(home: Home, source: Path) -> None:
    (source / "file").write_bytes(b"content")
    for format_ in FORMATS:
        home.run("pack", source, f"{format_}.flist", "--format", format_)
    refused = home.run("merge", "-o", "out.flist", "rocksdb.flist", "sqlite.flist", code=8).stderr
    assert "rocksdb.flist has the format rocksdb, sqlite.flist the format sqlite" in refused
    refused = home.run("new", "--from", "rocksdb.flist", "--format", "sqlite", code=8).stderr
    assert "has the format rocksdb" in refused
    home.run("merge", "-o", "out.flist", "sqlite.flist")
    assert home.json("info", "out.flist")["format"] == "sqlite"
    assert (
        home.run("diff", "rocksdb.flist", "sqlite.flist").stdout == "c file (content)\n"
    )  # its blocks are others


def test_blocks_of_both_lie_side_by_side(home: Home, source: Path) -> None:
    (source / "file").write_bytes(b"content")
    for number, format_ in enumerate((*FORMATS, *FORMATS)):
        packed = home.json("pack", source, f"{number}.flist", "--format", format_)
        assert packed["new_blocks"] == (number < 2)
        assert home.run("cat", f"{number}.flist", "file").stdout == "content"
    names = {path.name for path in home.blocks.rglob("*") if path.is_file() and len(path.name) in {32, 64}}
    assert names == {
        Generation1().encode(b"content").hash.decode(),
        Generation2().encode(b"content").hash.hex(),
    }


def test_metadata_is_shown_without_secrets(home: Home) -> None:
    sample = needs_data("samples/zflist-2.3.0.flist")
    metadata = home.json("config", sample)["metadata"]
    assert json.loads(metadata["entrypoint"]) == ["/bin/sh", "-c", "echo hi"]
    assert metadata["hello"] == "world"
    assert "metadata hello: world\n" in home.run("info", sample, code=10).stdout
    secret = {
        "backend": b'{"host": "h", "port": 1, "password": "s3cret", "token": "s3cret"}',
        "hello": b"world",
    }
    assert without_secrets(secret) == {"backend": b'{"host": "h", "port": 1}', "hello": b"world"}
    for invalid in (b"s3cret", b'["s3cret"]', b'"password s3cret"'):
        assert b"s3cret" not in without_secrets({"backend": invalid})["backend"]


# What zflist wrote


def test_a_sample_of_zflist(home: Home) -> None:
    sample = needs_data("samples/zflist-2.3.0.flist")
    listed = home.json("ls", "-R", sample, code=10)["entries"]
    assert len(listed) == 39
    assert home.json("info", sample, code=10)["format"] == "sqlite"
    shown = {each["path"]: each for each in listed}
    assert shown["bad\ufffd\ufffd"]["path_bytes"] == "YmFk//4="
    assert {each["uid"] for each in listed} > {0}
    unpacked = home.path / "unpacked"
    unpacked.mkdir()
    shell(
        'gzip -dc "$SAMPLE" | tar xf - 2>/dev/null || test -s flistdb.sqlite3',
        cwd=unpacked,
        SAMPLE=str(sample),
    )
    assert home.json("ls", "-R", unpacked, code=10)["entries"] == listed


@pytest.mark.parametrize(
    ("name", "entries"),
    [("ours-ok", 17), ("zflist-chmod", 4), ("zflist-hard-tree", 5248), ("zflist-metadata", 5)],
)
def test_other_samples(name: str, entries: int) -> None:
    with Flist.open(needs_data(f"samples/{name}.flist")) as flist:
        assert len(list(flist.walk(flist.find(b"")))) == entries


@pytest.mark.parametrize(
    ("name", "faults"),
    [
        (
            "zflist-2.3.0",
            {
                "": "of its entries 20 come after a special file",
                "zz": "of its entries 1 come after a special file",
                "blk": "a device that is stored as a socket",
                "f16m1": "32 blocks instead of the 33",
                "f32m1": "64 blocks instead of the 65",
                "null": "a device that is stored as a socket",
            },
        ),
        ("zflist-chmod", {"sub": "its entry and record differ in owner or mode"}),
        ("zflist-45000-files-lost", {"d": "its record is lost"}),
        ("ours-ok", {}),
        ("zflist-metadata", {}),
    ],
)
def test_what_zflist_does_wrongly_is_named(home: Home, name: str, faults: dict[str, str]) -> None:
    sample = needs_data(f"samples/{name}.flist")
    checked = json.loads(home.run("verify", sample, "--no-store", "--json", code=10 if faults else 0).stdout)
    found = {each["path"]: each["why"] for each in checked["faults"]}
    assert found.keys() == faults.keys()
    assert all(why in found[path] for path, why in faults.items())


def test_an_entry_of_a_directory_without_owner_and_mode(home: Home, source: Path) -> None:
    (source / "sub").mkdir()
    home.run("pack", source, "out.flist", "--format", "sqlite")
    assert home.run("verify", "out.flist").stdout.startswith("no faults")
    unpacked = home.path / "unpacked"
    metadata_of(home.path / "out.flist", unpacked)
    database = sqlite3.connect(unpacked / "flistdb.sqlite3", isolation_level=None)
    root = GENERATION_2.directory(b"").decode()
    (value,) = database.execute("SELECT value FROM entries WHERE key = ?", [root]).fetchone()
    directory = decode_directory(value)
    bare = replace(directory, entries=[replace(entry, aclkey=b"") for entry in directory.entries])
    database.execute("UPDATE entries SET value = ? WHERE key = ?", [encode_directory(bare), root])
    sub = GENERATION_2.directory(b"sub").decode()
    found = home.run("verify", unpacked, code=10).stdout
    assert found == "sub: its entry has no owner and mode: zflist crashes, and rfs 1.x shows 0444\n"
    database.execute("DELETE FROM entries WHERE key = ?", [sub])
    database.close()
    found = home.run("verify", unpacked, code=10).stdout
    assert "sub: its directory is not in the flist: listing its parent crashes 0-fs\n" in found


# Where blocks are


def metadata_of(package: Path, directory: Path) -> dict[str, str]:
    """The table of metadata, by the library of SQLite alone."""
    with tarfile.open(package, "r:gz") as archive:
        archive.extractall(directory)
    database = sqlite3.connect(directory / "flistdb.sqlite3")
    found = dict(database.execute("SELECT key, value FROM metadata").fetchall())
    database.close()
    return found


def test_both_say_where_blocks_are(home: Home, source: Path, redis: RedisServer) -> None:
    (source / "file").write_bytes(b"content")
    home.run("pack", source, "out.flist", "--format", "sqlite", "--store", redis.url)
    unpacked = home.path / "unpacked"
    backend = json.loads(metadata_of(home.path / "out.flist", unpacked)["backend"])
    assert backend == {"namespace": "default", "host": "127.0.0.1", "port": redis.port}
    assert f"redis://127.0.0.1:{redis.port}" in (unpacked / "router.yaml").read_text()
    assert home.run("cat", "out.flist", "file").stdout == "content"
    (unpacked / "router.yaml").unlink()  # as zflist leaves a package
    assert home.run("cat", unpacked, "file").stdout == "content"
    assert f"zdb://127.0.0.1:{redis.port}" in home.run("info", unpacked).stdout


def test_a_password_reaches_no_metadata(home: Home, source: Path) -> None:
    (source / "file").write_bytes(b"content")
    with running_redis(password="a-secret") as server:
        secret = {"FLISTFS_STORE_PASSWORD": "a-secret"}
        bare = f"redis://127.0.0.1:{server.port}"
        home.run("pack", source, "out.flist", "--format", "sqlite", "--store", bare, env=secret)
    unpacked = home.path / "unpacked"
    assert "a-secret" not in str(metadata_of(home.path / "out.flist", unpacked))
    assert all(b"a-secret" not in path.read_bytes() for path in unpacked.iterdir())


def test_several_servers_share_the_blocks(home: Home, source: Path) -> None:
    for number in range(40):
        (source / str(number)).write_bytes(b"%d" % number)
    with running_redis() as one, running_redis() as two:
        rules = f"{{'0:7': '{one.url}', '8:F': '{two.url}'}}"
        (home.path / "router.yaml").write_text(f"pools: {{p: {rules}}}\nlookup: [p]\n")
        home.run("pack", source, "out.flist", "--format", "sqlite", "--store", "router.yaml")
        unpacked = home.path / "unpacked"
        assert metadata_of(home.path / "out.flist", unpacked) == {}
        written = (unpacked / "router.yaml").read_text()
        assert "00:7F" in written  # whole bytes: of 0:7 a reader would make 00:70
        assert "80:FF" in written
        for server, bound in ((one, range(0x80)), (two, range(0x80, 0x100))):
            names = redis_client.Redis(port=server.port).keys()
            assert names
            assert all(len(name) == 16 and name[0] in bound for name in names)
        home.run("extract", "out.flist", "copy")
        assert comparable(home.path / "copy") == comparable(source)


def test_a_namespace_is_named_to_those_who_know_of_it(
    home: Home, mountpoint: Path, source: Path, redis: RedisServer
) -> None:
    """0-fs selects none; zflist and rfs 1.x do. Redis, as 0-db, takes a number for its name."""
    (source / "file").write_bytes(b"content")
    url = f"zdb://127.0.0.1:{redis.port}/5"
    unpacked = home.path / "unpacked"

    def check(said: str) -> None:
        backend = json.loads(metadata_of(home.path / "out.flist", unpacked)["backend"])
        assert backend == {"namespace": "5", "host": "127.0.0.1", "port": redis.port}
        assert not (unpacked / "router.yaml").exists()
        assert (
            f"0-fs ignores the namespace in {url}, so only readers that know of namespaces are told" in said
        )
        assert home.run("cat", "out.flist", "file").stdout == "content"
        (home.path / "out.flist").unlink()

    check(home.run("pack", source, "out.flist", "--format", "sqlite", "--store", url).stdout)
    public = ["--public-url", url]
    check(home.run("pack", source, "out.flist", "--format", "sqlite", *public, "--store", url).stdout)
    home.run("pack", source, "out.flist", "--format", "sqlite")
    check(home.run("push", "out.flist", "--to", url, "--update").stdout)
    home.run("pack", source, "in.flist", "--format", "sqlite")
    check(home.run("route", "in.flist", *public, "-o", "out.flist").stdout)

    # The readers of 2017 know of none.
    why = f"{url} cannot be named to readers of the format rocksdb: readers ignore the path of a URL"
    assert why in home.run("pack", source, "out.flist", "--store", url, *public, code=2).stderr
    home.run("mount", mountpoint, "--store", url)
    home.expected_log += ["sealing failed"]
    assert why in home.run("seal", "out.flist", *public, code=2).stderr
    assert home.json("seal", "out.flist")["servers"] == []
    assert why in home.run("route", "out.flist", *public, code=2).stderr


def test_namespaces_that_meet_cannot_be_named(home: Home, source: Path, redis: RedisServer) -> None:
    urls = [f"zdb://127.0.0.1:{redis.port}/{number}" for number in (5, 6)]
    for number, url in enumerate(urls):
        (source / f"file{number}").write_bytes(b"%d" % number)
        home.run("pack", source, f"{number}.flist", "--format", "sqlite", "--store", url)
        (source / f"file{number}").unlink()
    said = home.run("merge", "-o", "out.flist", "0.flist", "1.flist").stdout
    assert all(f"no reader is told of {url}: a namespace can be named only where" in said for url in urls)
    assert "backend" not in metadata_of(home.path / "out.flist", home.path / "unpacked")


@pytest.mark.parametrize(
    ("backend", "url"),
    [
        ('{"namespace": "default", "host": "127.0.0.1", "port": 9900}', "zdb://127.0.0.1:9900"),
        ('{"namespace": "ns", "host": "h", "port": 1, "password": "x"}', "zdb://h:1/ns"),
        ('{"namespace": "a b/c", "host": "h", "port": 1}', "zdb://h:1/a%20b%2Fc"),
        ('{"namespace": "\\ud800", "host": "h", "port": 1}', None),
        ('{"host": "::1", "port": 1}', "zdb://[::1]:1"),
        ('{"host": "h"}', None),
        ('{"host": "h", "port": 0}', None),
        ('{"host": "u@h", "port": 1}', None),
        ('{"host": "h", "port": "x"}', None),
        ('{"host": "h", "port": 1e400}', None),
        ("[]", None),
        ("[" * 100_000, None),
        ("", None),
    ],
)
def test_the_backend_of_zflist(backend: str, url: str | None) -> None:
    router = router_of({"backend": backend.encode()})
    assert (router and router.all_urls()) == (url and (url,))


def test_ranges_of_a_router_in_bytes() -> None:
    router = parse_router(
        b"pools: {p: {'C': 'redis://a', '0:F': 'redis://b', '00:FF': 'redis://c'}}\nlookup: [p]"
    )

    def ranges(router: Router) -> list[str]:
        return [str(rule.range) for rule in router.pools[0].rules]

    assert ranges(in_whole_bytes(router)) == ["C0:CF", "00:FF", "00:FF"]
    assert ranges(as_taken_in_bytes(router)) == ["C0", "00:F0", "00:FF"]
    assert only_server(in_whole_bytes(router)) is None
    assert only_server(router_to("redis://a")) == "redis://a"
