"""Flists from Python: packed, merged, looked into, extracted, checked, compared, pushed."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

import flistfs
from flistfs import errors
from flistfs.stores import default_store_url
from tests.api.working import contents, write
from tests.e2e.commands import Home
from tests.redis_server import RedisServer
from tests.trees import random_bytes


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
