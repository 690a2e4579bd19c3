"""flistfs from Python: the same engine as the commands, for programs of any kind."""

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
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

import flistfs
from flistfs import errors
from flistfs.stores import default_store_url
from flistfs.tree.chunks import CHUNK_SIZE
from tests.e2e.commands import Home
from tests.generation1 import encode_block, open_store
from tests.independent_reader import read_content, read_flist
from tests.redis_server import RedisServer, running_redis
from tests.trees import assert_flist_equals, make_everything, random_bytes, snapshot

PROJECT = Path(__file__).parents[1]


def move_to(home: Home, patch: pytest.MonkeyPatch) -> None:
    """Let this process have the home that commands have, and work in it."""
    for name, value in home.environment().items():
        if name.startswith("XDG_"):
            patch.setenv(name, value)
    patch.chdir(home.path)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A user's home, in which this process works."""
    home = Home(tmp_path.resolve() / "home")
    home.path.mkdir()
    move_to(home, monkeypatch)
    return home


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def write(path: str, content: bytes = b"content") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def contents(package: str, store: str | None = None) -> dict[bytes, bytes]:
    """The files of an flist, as the independent reader finds them."""
    get = open_store(store or default_store_url()).get
    nodes = read_flist(Path(package))
    return {path: read_content(node, get, fast=True) for path, node in nodes.items() if node.kind == "file"}


# What the documentation shows


def examples(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (PROJECT / document).read_text(), re.DOTALL)


def placed(example: str, home: Home, redis: RedisServer) -> str:
    """The example that puts /opt and /etc/ssl into an flist, with what is there in this test."""
    write("root/opt/tool/run", b"run")
    write("root/etc/ssl/openssl.cnf", b"x" * 1000 + b"the end")
    places = {'"/opt"': "root/opt", '"/etc/ssl"': "root/etc/ssl", '"/tmp/app"': "session"}
    for shown, real in places.items():
        assert shown in example
        example = example.replace(shown, repr(str(home.path / real)))
    assert "ardb://host:16379" in example
    return example.replace("ardb://host:16379", redis.url.replace("redis://", "ardb://"))


def test_the_example_of_the_readme_works(home: Home, redis: RedisServer) -> None:
    (author,) = examples("README.md")
    exec(placed(author, home, redis), {})
    assert set(contents("app.flist", redis.url)) == {b"opt/tool/run", b"etc/ssl/openssl.cnf"}


def test_every_line_of_the_documentation_works(
    home: Home, redis: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    write("rootfs/opt/old", b"old")
    write("rootfs/cache.pyc")
    _jumpscale, author, read = examples("docs/python.md")
    names: dict[str, object] = {}
    exec(placed(author, home, redis), names)
    exec(read, names)
    printed = capsys.readouterr().out
    assert "0o100644 file 3 b'opt/tool/run'" in printed
    assert "the end" in printed
    assert contents("all.flist", redis.url) == {
        b"opt/tool/run": b"run",
        b"opt/old": b"old",
        b"etc/ssl/openssl.cnf": b"x" * 1000 + b"the end",
    }
    assert read_flist(home.path / "base.flist")[b"opt/old"].uid == 0


# Sessions


def test_a_session_starts_from_flists(home: Home, redis: RedisServer) -> None:
    write("one/a", b"a" * 600_000)
    write("one/b", b"lower")
    write("two/b", b"upper")
    flistfs.pack("one", "one.flist", store=redis.url)
    flistfs.pack("two", "two.flist", store=redis.url)
    write("new/c", b"new")
    with flistfs.Session("session", base=["one.flist", Path("two.flist")], base_store=redis.url) as session:
        session.add("new/.")
        session.seal("out.flist")
    redis_blocks = flistfs.open("out.flist", store=redis.url)
    with redis_blocks, redis_blocks.open_file("a") as file, redis_blocks.open_file("b") as other:
        assert (file.read(), other.read()) == (b"a" * 600_000, b"upper")
    with flistfs.open("out.flist") as flist, flist.open_file("c") as file:
        assert file.read() == b"new"


def test_only_a_new_session_starts_from_an_flist() -> None:
    write("one/a")
    flistfs.pack("one", "one.flist")
    with pytest.raises(errors.UsageError, match="`base_store` belongs to `base`"):
        flistfs.Session("session", base_store="dir:///nowhere")
    with pytest.raises(errors.FormatError, match="missing"):
        flistfs.Session("session", base="missing.flist")
    flistfs.Session("session", base="one.flist").close()
    with pytest.raises(errors.SessionError, match="only a new one can start from an flist"):
        flistfs.Session("session", base="one.flist")
    with flistfs.Session("session") as session:
        assert session.seal("out.flist").files == 1


@pytest.mark.parametrize("scheme", ["dir", "redis"])
def test_several_adds(home: Home, redis: RedisServer, scheme: str) -> None:
    store = redis.url if scheme == "redis" else f"dir://{home.path}/blocks"
    write("one/a", b"a" * 600_000)
    write("one/left.out")
    write("two/b", os.urandom(1000))
    write("three", b"three")
    with flistfs.Session(b"session", store=store) as session:
        first = session.add(Path("one"), exclude="*.out")
        second = session.add("two/.", b"three", to=Path("/deep/down/"))
        if scheme == "dir":
            stored = [path for path in Path("blocks").rglob("*") if path.is_file()]
            assert len(stored) == first.new_blocks + second.new_blocks == 4
        summary = session.seal("out.flist", owner=(7, 8), epoch=1_000_000_000)
    assert (first.entries, first.size) == (2, 600_000)
    assert (summary.files, summary.out, summary.unrepresentable.owners) == (3, f"{home.path}/out.flist", 7)
    nodes = read_flist(Path("out.flist"))
    assert contents("out.flist", store) == {
        b"one/a": b"a" * 600_000,
        b"deep/down/b": Path("two/b").read_bytes(),
        b"deep/down/three": b"three",
    }
    assert {(node.uid, node.gid, node.mtime) for node in nodes.values()} == {(7, 8, 1_000_000_000)}


def test_an_add_that_checks_content(redis: RedisServer) -> None:
    block = encode_block(write("one/a", b"wrong soon").read_bytes())
    with flistfs.Session("session", store=redis.url) as session:
        session.add("one")
        redis.command("SET", block.hash.decode(), "x" * block.size)
        assert session.add("one").replaced_blocks == 0
        assert session.add("one", check_content=True).replaced_blocks == 1
        assert session.seal("out.flist", check_content=True).replaced_blocks == 1  # the session's, in all


def test_every_kind_of_entry(home: Home) -> None:
    source = home.path / "source"
    source.mkdir()
    make_everything(source)
    with flistfs.Session("session") as session:
        session.add(f"{source}/.")
        session.seal("out.flist")
    get = open_store(default_store_url()).get
    assert_flist_equals(read_flist(Path("out.flist")), snapshot(source), get, fast=True)


def test_an_exception_keeps_the_session_and_both_worlds_go_on(home: Home) -> None:
    write("first")
    write("second")
    write("third")

    def fail() -> None:
        with flistfs.Session("session") as session:
            session.add("first")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    (shown,) = home.listed("status")
    assert (shown["state"], shown["state_directory"]) == ("unmounted", f"{home.path}/session")
    home.run("add", "second")
    with flistfs.Session("session") as session:
        session.add("third")
    home.run("seal", "out.flist", "--mount", "session")
    assert set(contents("out.flist")) == {b"first", b"second", b"third"}
    home.run("new", "name", "--state", "other")
    home.run("add", "first", "--mount", "name")
    with flistfs.Session("other") as session:
        session.add("second")
        session.seal("other.flist")
    assert set(contents("other.flist")) == {b"first", b"second"}


def test_two_at_a_time(home: Home) -> None:
    write("file")
    with flistfs.Session("session") as session:
        with pytest.raises(errors.SessionError, match=f"in use by a Python program .process {os.getpid()}"):
            flistfs.Session("session")
        assert (
            "in use by a Python program"
            in subprocess.run(
                [sys.executable, "-c", "import flistfs; flistfs.Session('session')"],
                capture_output=True,
                text=True,
                check=False,
            ).stderr
        )
        with flistfs.Session("other") as other:
            other.add("file")
            session.add("file")
            other.seal("other.flist")
        session.seal("out.flist")
    assert contents("out.flist") == contents("other.flist") == {b"file": b"content"}


def test_a_session_ends_with_its_seal(home: Home) -> None:
    write("file")
    session = flistfs.Session("session")
    session.seal("empty.flist")
    with pytest.raises(errors.SessionError, match="ended"):
        session.add("file")
    with pytest.raises(errors.SessionError, match="ended"):
        session.seal("out.flist")
    session.close()
    session.close()
    with flistfs.Session("session") as session:
        session.add("file")
        session.seal("empty.flist", force=True)
    assert contents("empty.flist") == {b"file": b"content"}
    assert [shown["state"] for shown in home.listed("status")] == ["sealed"]


def test_abort(home: Home) -> None:
    write("file")
    with flistfs.Session("session") as session:
        session.add("file")
        session.abort()
        with pytest.raises(errors.SessionError):
            session.abort()
    assert home.listed("status") == []
    with flistfs.Session("session") as session:
        session.seal("out.flist")
    assert contents("out.flist") == {}


def test_a_directory_that_holds_something_else_is_left_alone() -> None:
    write("mine/precious")
    write("mine/journal/precious")
    for state in ("mine", "mine/journal"):
        with pytest.raises(errors.SessionError, match="does not contain a session"):
            flistfs.Session(state)
    assert sorted(Path("mine").rglob("*")) == sorted(
        map(Path, ("mine/journal", "mine/journal/precious", "mine/precious"))
    )


def test_a_seal_that_is_refused_keeps_the_session() -> None:
    write("file")
    write("out.flist", b"precious")
    with flistfs.Session("session") as session:
        session.add("file")
        with pytest.raises(errors.OutputError, match="exists"):
            session.seal("out.flist")
        with pytest.raises(errors.UsageError, match="owner"):
            session.seal("other.flist", owner=(-1, 0))
        with pytest.raises(errors.UsageError, match="epoch"):
            session.seal("other.flist", epoch=-1)
        with pytest.raises(errors.UsageError, match="password"):
            session.seal("other.flist", public_url="ardb://:secret@host")
        assert Path("out.flist").read_bytes() == b"precious"
        session.seal("other.flist", public_url="ardb://blocks.invalid")
    with flistfs.open("other.flist", store=default_store_url()) as flist:
        assert flist.open_file("file").read() == b"content"


def test_what_cannot_be_added() -> None:
    write("file")
    with flistfs.Session("session") as session:
        with pytest.raises(errors.UsageError, match="nothing to add"):
            session.add()
        with pytest.raises(errors.UsageError, match="matches nothing"):
            session.add("file", exclude=["!"])
        with pytest.raises(errors.SourceError, match="is not taken"):
            session.add("file", to="../up")
        with pytest.raises(errors.SourceError, match="No such file"):
            session.add("nowhere")
        session.add("file")
        session.add("file", to="sub")
        with pytest.raises(errors.SourceError, match="does not lead to a directory"):
            session.add("file", to="file")
        with pytest.raises(errors.SourceError, match="exclude it"):
            session.add(".")


# Stores


def test_a_store_that_cannot_be_had(redis: RedisServer) -> None:
    with pytest.raises(errors.StoreError):
        flistfs.Session("session", store="ardb://127.0.0.1:1")
    with pytest.raises(errors.UsageError):
        flistfs.Session("session", store="nonsense")
    with flistfs.Session("session", store=redis.url):
        pass
    with pytest.raises(errors.SessionError, match="stores its blocks in"):
        flistfs.Session("session", store=f"dir://{Path.cwd()}/blocks")
    with flistfs.Session("session") as session:
        session.abort()


def test_passwords(home: Home) -> None:
    write("file")
    with running_redis(password="hunter2") as server:
        store = server.url.replace(":hunter2@", "")
        with pytest.raises(errors.StoreError) as refused:
            flistfs.Session("session", store=store, password="wrong-one")
        assert "wrong-one" not in str(refused.value)
        with flistfs.Session("session", store=server.url) as session:
            session.add("file")
        with flistfs.Session("session", store=store, password="hunter2") as session:
            session.seal("out.flist")
        assert contents("out.flist", server.url) == {b"file": b"content"}
        with flistfs.open("out.flist", store=store, password="hunter2") as flist:
            assert flist.open_file("file").read() == b"content"
    for path in home.path.rglob("*"):
        if path.is_file():
            assert b"hunter2" not in path.read_bytes(), path


def test_a_router_of_several_servers(redis: RedisServer) -> None:
    write("file")
    write("router.yaml", b"pools:\n  all:\n    00:FF: %b\nlookup: [all]\n" % redis.url.encode())
    with flistfs.Session("session", store=Path("router.yaml")) as session:
        session.add("file")
        assert session.seal("out.flist").servers == (redis.url,)
    with flistfs.open("out.flist") as flist, flist.open_file("file") as file:
        assert file.read() == b"content"


# One go, and merging


def test_pack(home: Home) -> None:
    told: list[str] = []

    def progress(report: flistfs.Report) -> None:
        told.append(report.phase)

    write("rootfs/etc/file")
    write("rootfs/x.pyc")
    packed = flistfs.pack(Path("rootfs"), b"out.flist", exclude=["*.pyc"], progress=progress)
    assert (packed.added.size, packed.sealed.files) == (7, 1)
    assert {"add", "catalog", "package"} <= set(told)
    with tarfile.open("-", "w:gz") as archive:
        archive.add("rootfs", ".")
    flistfs.pack("-", "tar.flist")
    assert set(contents("tar.flist")) == {b"etc/file", b"x.pyc"}
    with pytest.raises(errors.OutputError):
        flistfs.pack("nowhere", "out.flist")
    with pytest.raises(errors.SourceError):
        flistfs.pack("nowhere", "new.flist")
    assert not Path("new.flist").exists()
    assert not list((home.path / "state/flistfs/packing").iterdir())


def test_merge() -> None:
    for name in ("one", "two"):
        write(f"{name}/same", name.encode())
        write(f"{name}/{name}")
        flistfs.pack(name, f"{name}.flist")
    with pytest.raises(errors.ClashError) as clash:
        flistfs.merge("all.flist", ["one.flist", "two.flist"])
    assert isinstance(clash.value, flistfs.PathsClashError)
    assert [each.path for each in clash.value.clashes] == [b"same"]
    merged = flistfs.merge("all.flist", (Path("one.flist"), b"two.flist"), prefer="last")
    assert merged.clashes == 1
    assert contents("all.flist") == {b"same": b"two", b"one": b"content", b"two": b"content"}
    flistfs.merge("copy.flist", "one.flist")
    assert set(contents("copy.flist")) == {b"same", b"one"}
    assert merged.hidden == {"one.flist": [b"same"]}  # as it was named
    with pytest.raises(errors.UsageError, match="first, last or newer"):
        flistfs.merge("other.flist", ["one.flist"], prefer="best")  # type: ignore[arg-type]
    with pytest.raises(errors.UsageError, match="nothing to merge"):
        flistfs.merge("other.flist", [])
    with pytest.raises(errors.OutputError):
        flistfs.merge("all.flist", ["one.flist"])
    with pytest.raises(errors.FormatError):
        flistfs.merge("other.flist", ["nowhere.flist"])


def test_links_are_gone_through_or_replaced() -> None:
    write("root/usr/bin/sh")
    Path("root/bin").symlink_to("usr/bin")
    write("app/bin/tool")
    for name in ("root", "app"):
        flistfs.pack(name, f"{name}.flist")
    through = {b"usr/bin/sh", b"usr/bin/tool"}
    replaced = {b"usr/bin/sh", b"bin/tool"}
    for replace_links, wanted in ((False, through), (True, replaced)):
        name = f"{replace_links}"
        with flistfs.Session(f"{name}-added") as session:
            session.add("root/.")
            session.add("app/.", replace_links=replace_links)
            session.seal(f"{name}-added.flist")
        with flistfs.Session(
            f"{name}-layers", base=["root.flist", "app.flist"], replace_links=replace_links
        ) as session:
            session.seal(f"{name}-layers.flist")
        flistfs.merge(
            f"{name}-merged.flist",
            ["root.flist", "app.flist"],
            prefer="last",
            replace_links=replace_links,
        )
        for made in ("added", "layers", "merged"):
            with flistfs.open(f"{name}-{made}.flist") as flist:
                files = {node.path for node in flist.walk() if node.kind is flistfs.Kind.FILE}
            assert files == wanted
    with pytest.raises(errors.ClashError, match="`replace_links`"):
        flistfs.Session("clash", base=["app.flist", "root.flist"])
    with pytest.raises(flistfs.PathsClashError):
        flistfs.merge("clash.flist", ["app.flist", "root.flist"], prefer="last")


# Looking


def test_looking() -> None:
    write("tree/usr/lib/file")
    Path("tree/lib").symlink_to("usr/lib")
    Path("tree/usr/lib/link").symlink_to("/lib/file")
    write(os.fsdecode(b"tree/\xff"))
    flistfs.pack("tree", "out.flist", owner=(1, 2))
    with flistfs.open("out.flist") as flist:
        assert [node.path for node in flist.walk()] == [
            b"lib", b"usr", b"usr/lib", b"usr/lib/file", b"usr/lib/link", b"\xff"
        ]  # fmt: skip
        assert [node.path for node in flist.walk(depth=1)] == [b"lib", b"usr", b"\xff"]
        usr = flist.find("/usr/")
        assert (usr.kind, oct(usr.mode)) == (flistfs.Kind.DIRECTORY, "0o40755")
        assert (usr.uid, usr.gid) == (1, 2)
        for path in (usr, "usr", b"usr", Path("usr")):
            assert [node.path for node in flist.children(path)] == [b"usr/lib"]
            assert [node.path for node in flist.walk(path)][1:] == [b"usr/lib/file", b"usr/lib/link"]
        link = flist.find("usr/lib/link")
        assert (link.kind, link.target, usr.target) == (flistfs.Kind.LINK, b"/lib/file", None)
        assert flist.find("lib/file", follow=True).path == b"usr/lib/file"
        for path in (link, "usr/lib/link", "lib/file", flist.find("usr/lib/file"), b"\xff"):
            with flist.open_file(path) as file:
                assert file.read() == b"content"
        with pytest.raises(errors.FormatError, match="there is no"):
            flist.find("nowhere")
        with pytest.raises(errors.FormatError, match="not a file"):
            flist.open_file("usr")
        with pytest.raises(errors.FormatError, match="not a directory"):
            flist.walk("usr/lib/file")
    flist.close()
    with pytest.raises(errors.FormatError):
        flistfs.open("nowhere.flist")


def test_searching_and_summing_up() -> None:
    write("tree/usr/small", b"x")
    write("tree/usr/large", random_bytes(2000, "large"))
    flistfs.pack("tree", "out.flist", owner=(3, 4))
    with flistfs.open("out.flist") as flist:
        assert [node.path for node in flist.search(name="*l*e", min_size=2)] == [b"usr/large"]
        assert [node.path for node in flist.search("usr", kinds=[flistfs.Kind.FILE], max_size=1)] == [
            b"usr/small"
        ]
        survey = flist.survey(largest=1)
        assert (survey.size, survey.blocks, survey.largest) == (2001, 2, [(2000, b"usr/large")])
        assert (flist.format, flist.router) == ("rocksdb", None)
        assert flist.store_url == default_store_url()
        flist.store_trouble  # noqa: B018  it is None, or says what


def test_extracting(tmp_path: Path) -> None:
    write("tree/etc/one.conf", b"one")
    write("tree/etc/two", b"two")
    flistfs.pack("tree", "out.flist", store=f"dir://{tmp_path}/blocks")
    made = flistfs.extract("out.flist", b"whole", store=f"dir://{tmp_path}/blocks")
    assert (made.files, Path("whole/etc/two").read_bytes()) == (2, b"two")
    flistfs.extract("out.flist", Path("part"), only="*.conf", store=f"dir://{tmp_path}/blocks")
    assert [path.name for path in Path("part/etc").iterdir()] == ["one.conf"]
    with pytest.raises(errors.OutputError):
        flistfs.extract("out.flist", "whole", store=f"dir://{tmp_path}/blocks")


def test_verifying_and_repairing(tmp_path: Path) -> None:
    store = f"dir://{tmp_path}/blocks"
    write("tree/file", b"content")
    flistfs.pack("tree", "out.flist", store=store)
    assert flistfs.verify("out.flist", store=store, deep=True).faults == []
    (block,) = (path for path in (tmp_path / "blocks").rglob("*") if path.is_file())
    block.unlink()
    assert flistfs.verify("out.flist", blocks=False).faults == []
    assert [fault.path for fault in flistfs.verify("out.flist", store=store).faults] == [b"file"]
    mended = flistfs.verify("out.flist", store=store, source="tree")
    assert (mended.faults, mended.repaired) == ([], 1)
    assert block.exists()
    with pytest.raises(errors.UsageError, match="`deep` and `source`"):
        flistfs.verify("out.flist", blocks=False, deep=True)
    with pytest.raises(errors.UsageError, match="neither"):
        flistfs.verify("out.flist", source="nowhere")


def test_comparing() -> None:
    write("tree/same")
    write("tree/changed", b"before")
    flistfs.pack("tree", "one.flist")
    write("tree/changed", b"after")
    write("tree/new")
    flistfs.pack("tree", "two.flist")
    found = {each.path: each.change.value for each in flistfs.diff("one.flist", "two.flist") if each.path}
    assert found == {b"changed": "content", b"new": "added"}


def test_pushing(tmp_path: Path, redis: RedisServer) -> None:
    write("tree/file", random_bytes(100, "pushed"))
    flistfs.pack("tree", "out.flist", store=f"dir://{tmp_path}/blocks")
    pushed = flistfs.push("out.flist", redis.url, source=f"dir://{tmp_path}/blocks")
    assert (pushed.blocks, pushed.sent) == (1, 1)
    assert contents("out.flist", redis.url) == {b"file": Path("tree/file").read_bytes()}
    with pytest.raises(errors.UsageError, match="`min_replicas`"):
        flistfs.push("out.flist", redis.url, min_replicas=2)


# Sessions by their mount point, without a mount


def test_a_session_by_its_mount_point(home: Home) -> None:
    write("file")
    started = flistfs.new("place")
    assert (started.mountpoint, started.base) == (f"{home.path}/place", None)
    assert flistfs.add("file", mountpoint="place").entries == 1
    (session,) = flistfs.status()
    assert (session.mountpoint, session.state.value, session.activity) == (
        started.mountpoint,
        "unmounted",
        None,
    )
    assert session.state_directory == started.state_directory
    with pytest.raises(errors.SessionError, match="is not mounted"):
        flistfs.sync()
    with pytest.raises(errors.SessionError, match="open session"):
        flistfs.new("place")
    directory = Path.cwd()
    assert flistfs.seal("out.flist").files == 1
    assert Path.cwd() == directory
    assert flistfs.wait("place").out == f"{home.path}/out.flist"
    with pytest.raises(errors.SessionError, match="has ended"):
        flistfs.seal("again.flist", mountpoint="place")
    flistfs.new("one")
    flistfs.new("two")
    with pytest.raises(errors.SessionError, match="choose one with `mountpoint`"):
        flistfs.abort()
    assert flistfs.abort(b"one").mountpoint == f"{home.path}/one"
    flistfs.abort(Path("two"))
    assert [session.mountpoint for session in flistfs.status()] == [started.mountpoint]


def test_an_argument_that_is_invalid() -> None:
    write("file")
    for arguments in ({"epoch": -1}, {"owner": (0, -1)}, {"min_replicas": 0}):
        (name,) = arguments
        with pytest.raises(errors.UsageError, match=f"^`{name}`"):
            flistfs.pack("file", "out.flist", **arguments)
    with pytest.raises(errors.UsageError, match=r"^`replace_links` belongs to `base`"):
        flistfs.new("place", replace_links=True)
    write("out.flist")
    with pytest.raises(errors.OutputError, match="`force` replaces it"):
        flistfs.pack("file", "out.flist")


# Files


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
