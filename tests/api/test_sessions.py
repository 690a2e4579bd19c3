"""flistfs from Python: the same engine as the commands, for programs of any kind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import flistfs
from flistfs import errors
from flistfs.stores import default_store_url
from tests.api.working import PROJECT, contents, write
from tests.e2e.commands import Home
from tests.generation1 import encode_block, open_store
from tests.independent_reader import read_flist
from tests.redis_server import RedisServer, running_redis
from tests.snapshots import assert_flist_equals, snapshot
from tests.trees import make_everything

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
