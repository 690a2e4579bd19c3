"""Going on from sealed flists: what is there at once, what is fetched and stored, what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from flistfs.tree.chunks import CHUNK_SIZE
from tests.e2e.commands import Home, is_mounted, shell, umount, wait_until
from tests.generation1 import open_store
from tests.independent_reader import Node, read_content, read_flist
from tests.needs import needs_old_flist
from tests.reading.making import DIR, Item, change_entry, packed, records_of
from tests.redis_server import RedisServer, running_redis
from tests.trees import make_everything

BIG = os.urandom(3 * CHUNK_SIZE + 5)
TREE = {
    b"etc": DIR,
    b"etc/passwd": Item(what=b"root:x:0:0::/root:/bin/sh\n"),
    b"usr": DIR,
    b"usr/big": Item(what=BIG),
    b"usr/link": Item("link", b"small", mode=0o777),
    b"usr/same": Item(what=b"small"),
    b"usr/small": Item(what=b"small"),
}
BLOCKS = 6  # of the tree, each once


def store_at(directory: Path) -> str:
    return f"dir://{directory}"


def make_base(home: Home, store: str, name: str = "base.flist") -> Path:
    """An flist whose blocks are in a store, of which it does not tell."""
    return packed(home.path / name, records_of(TREE, open_store(store)))


def held(directory: Path) -> int:
    """Blocks in a directory."""
    return sum(path.is_file() and len(path.name) == 64 for path in directory.rglob("*"))


def served(server: RedisServer, command: str) -> int:
    """How often a server was asked something."""
    found = re.search(rb"cmdstat_%s:calls=(\d+)" % command.encode(), server.command("INFO", "commandstats"))
    return int(found[1]) if found else 0


def content_of(nodes: Mapping[bytes, Node], path: bytes, url: str) -> bytes:
    return read_content(nodes[path], open_store(url).get, fast=True)


# What an untouched session is


@pytest.mark.parametrize(("way", "store"), [("mount", "redis"), ("new", "dir")])
def test_an_untouched_session_makes_the_same_package(
    home: Home, mountpoint: Path, source: Path, redis: RedisServer, way: str, store: str
) -> None:
    make_everything(source)
    if store == "redis":
        home.env["FLISTFS_STORE"] = redis.url
    home.run("pack", source, "base.flist")
    started = home.json(way, mountpoint, "--from", "base.flist")
    assert started["base"]["unknown_owners"] == 0
    assert home.status()["files" if way == "mount" else "state"]
    summary = home.json("seal", "again.flist")
    assert (summary["new_blocks"], summary["shared_blocks"], summary["new_bytes"]) == (0, 0, 0)
    assert (home.path / "again.flist").read_bytes() == (home.path / "base.flist").read_bytes()


def test_a_clamped_flist_comes_out_the_same(home: Home, mountpoint: Path, source: Path) -> None:
    make_everything(source)
    epoch = {"SOURCE_DATE_EPOCH": "1500000000"}
    home.run("pack", source, "base.flist", "--owner", "0:0", env=epoch)
    home.run("mount", mountpoint, "--from", "base.flist")
    home.run("seal", "again.flist", env=epoch)
    assert (home.path / "again.flist").read_bytes() == (home.path / "base.flist").read_bytes()


# What is fetched, and what is stored


def test_only_what_is_read_is_fetched_and_only_what_is_changed_is_stored(
    home: Home, mountpoint: Path
) -> None:
    with running_redis() as server:
        make_base(home, server.url)
        stored = served(server, "set")
        home.run("mount", mountpoint, "--from", "base.flist", "--store", server.url)
        shell("ls -lR > /dev/null; readlink usr/link", cwd=mountpoint)
        assert (mountpoint / "usr/big").stat().st_size == len(BIG)
        assert served(server, "get") == 0
        assert (mountpoint / "usr/small").read_bytes() == b"small"
        assert served(server, "get") == 1
        other = bytes([BIG[3 * CHUNK_SIZE + 1] ^ 1])  # whatever was drawn
        with (mountpoint / "usr/big").open("r+b") as file:
            file.seek(3 * CHUNK_SIZE + 1)
            file.write(other)
        assert served(server, "get") == 2  # the last chunk, of which the rest is needed
        with (mountpoint / "usr/big").open("r+b") as file:
            file.write(bytes(CHUNK_SIZE))
        (mountpoint / "usr/same").unlink()
        (mountpoint / "usr/small").rename(mountpoint / "moved")
        (mountpoint / "new").write_bytes(b"new")
        summary = home.json("seal", "out.flist")
        assert served(server, "get") == 3  # the accounts
        assert served(server, "set") - stored == summary["new_blocks"] == 3
        nodes = read_flist(home.path / "out.flist")
        assert set(nodes) == {b""} | set(TREE) - {b"usr/same", b"usr/small"} | {b"moved", b"new"}
        changed = bytes(CHUNK_SIZE) + BIG[CHUNK_SIZE : 3 * CHUNK_SIZE + 1] + other + BIG[3 * CHUNK_SIZE + 2 :]
        assert content_of(nodes, b"usr/big", server.url) == changed
        assert content_of(nodes, b"moved", server.url) == b"small"
        assert nodes[b"moved"].mtime == 1_000_000_000


def test_a_session_goes_on_from_what_it_sealed_again_and_again(home: Home, mountpoint: Path) -> None:
    make_base(home, store_at(home.blocks), "0.flist")
    for number in range(3):
        home.run("mount", mountpoint, "--from", f"{number}.flist")
        (mountpoint / f"new{number}").write_text(str(number))
        home.run("seal", f"{number + 1}.flist")
    nodes = read_flist(home.path / "3.flist")
    assert set(nodes) == {b"", *TREE, b"new0", b"new1", b"new2"}
    assert "no faults" in home.run("verify", "3.flist", "--deep").stdout


def test_layers(home: Home, mountpoint: Path) -> None:
    store = open_store(store_at(home.blocks))
    make_base(home, store_at(home.blocks))
    top = {b"usr": Item(what=b"a file"), b"etc": DIR, b"etc/passwd": Item(what=b"other"), b"opt": DIR}
    packed(home.path / "top.flist", records_of(top, store))
    home.run("mount", mountpoint, "--from", "base.flist", "--from", "top.flist")
    assert sorted(path.name for path in mountpoint.iterdir()) == ["etc", "opt", "usr"]
    assert (mountpoint / "usr").read_bytes() == b"a file"
    assert (mountpoint / "etc/passwd").read_bytes() == b"other"
    umount(mountpoint)
    wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
    home.run("seal", "out.flist")
    assert set(read_flist(home.path / "out.flist")) == {b"", *top}


@pytest.mark.parametrize("command", ["mount", "new"])
def test_layers_unite_through_links_and_say_what_they_hide(
    home: Home, mountpoint: Path, command: str
) -> None:
    store = open_store(store_at(home.blocks))
    root = {b"bin": Item("link", b"usr/bin"), b"usr": DIR, b"usr/bin": DIR, b"usr/bin/sh": Item(), b"f": DIR}
    packed(home.path / "usr.flist", records_of({**root, b"f/in": Item()}, store))
    packed(home.path / "app.flist", records_of({b"bin": DIR, b"bin/app": Item(), b"f": Item()}, store))
    layers = ("--from", "usr.flist", "--from", "app.flist")
    said = home.run(command, mountpoint, *layers).stdout
    assert f"2 entries of {home.path}/usr.flist are hidden by what others have there\n" in said
    home.run("seal", "out.flist")
    assert set(read_flist(home.path / "out.flist")) == {b"", *root, b"usr/bin/app"}
    base = home.json(command, mountpoint, *layers, "--replace-links")["base"]
    (hidden,) = base["hidden"]
    assert (hidden["flist"], hidden["count"]) == (f"{home.path}/usr.flist", 3)
    assert hidden["paths"] == [{"path": "bin"}, {"path": "f"}, {"path": "f/in"}]
    home.run("seal", "other.flist")
    assert set(read_flist(home.path / "other.flist")) == {b"", *root, b"bin/app"}
    home.expected_log += ["bin is in "]
    turned = ("--from", "app.flist", "--from", "usr.flist")
    refused = home.run(command, mountpoint, *turned, code=12).stderr
    assert f"bin is in {home.path}/app.flist (directory) and {home.path}/usr.flist (link)" in refused
    assert all(each["state"] == "sealed" for each in home.listed("status"))  # no session is left
    refused = home.run(command, mountpoint, "--replace-links", code=2).stderr
    assert "--replace-links belongs to --from" in refused


# What is refused


def test_a_session_that_goes_on_takes_no_base(home: Home, mountpoint: Path, tmp_path: Path) -> None:
    make_base(home, store_at(home.blocks))
    home.run("mount", mountpoint)
    (mountpoint / "file").write_text("content")
    umount(mountpoint)
    wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
    refused = home.run("mount", mountpoint, "--from", "base.flist", code=5)
    assert "already has an open session; omit --from to resume it" in refused.stderr
    assert "has an open session already" in home.run("new", mountpoint, "--from", "base.flist", code=5).stderr
    assert home.status()["state"] == "unmounted"
    home.run("mount", mountpoint)
    assert (mountpoint / "file").read_text() == "content"
    home.run("abort", "--yes")


def test_what_makes_no_sense_is_refused_in_one_line(home: Home, mountpoint: Path) -> None:
    home.expected_log += ["nothing.flist", "bad.flist", "cannot reach", "there is no"]
    base = make_base(home, store_at(home.blocks))
    records = records_of(TREE)
    change_entry(records, b"usr/small", lambda entry: replace(entry, size=10**7))
    packed(home.path / "bad.flist", records)
    wrong: list[str | Path] = ["--from", base, "--base-store"]
    cases: list[tuple[list[str | Path], int, str]] = [
        (["--from", "nothing.flist"], 8, "nothing.flist"),
        (["--from", base, "--from", "bad.flist"], 8, "usr/small: it has 1 blocks instead of the 20"),
        (["--base-store", store_at(home.path)], 2, "--base-store belongs to --from"),
        ([*wrong, "nonsense"], 2, "neither the path of a router.yaml nor a URL"),
        ([*wrong, "redis://127.0.0.1:1"], 3, "cannot reach"),
    ]
    for arguments, code, hint in cases:
        for command in ("mount", "new"):
            refused = home.run(command, mountpoint, *arguments, code=code)
            assert hint in refused.stderr
            assert len(refused.stderr.splitlines()) == 1
            assert home.listed("status") == []
    inside = [*wrong, f"dir://{mountpoint}/blocks"]
    assert "would be inside the mount itself" in home.run("mount", mountpoint, *inside, code=2).stderr
    refused = home.run("mount", mountpoint, "--from", base, "--read-only", base, code=2)
    assert "leave out what belongs to a session" in refused.stderr
    assert not is_mounted(mountpoint)
    home.run("mount", mountpoint, *wrong, "redis://127.0.0.1:1", "--offline")
    assert (mountpoint / "usr/small").read_bytes() == b"small"
    home.run("seal", "out.flist")  # the other store is not needed


# What survives


def make_large_base(home: Home, files: int) -> None:
    """An flist with many empty files in one directory."""
    packed(home.path / "large.flist", records_of({b"%d" % number: Item() for number in range(files)}))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_half_a_base_is_never_taken_for_a_session(home: Home, mountpoint: Path, number: int) -> None:
    make_large_base(home, 40_000)
    home.expected_log += ["interrupted before anything was mounted"]
    temporary = home.path / "tmp"
    temporary.mkdir()
    home.env["TMPDIR"] = str(temporary)
    with home.started("mount", mountpoint, "--from", "large.flist") as mounting:
        wait_until(lambda: [*home.sessions.glob("*/journal/*.log")], "the journal is begun")
        time.sleep(0.1)
        (pid,) = home.daemons()
        assert not is_mounted(mountpoint)
        if number == signal.SIGKILL:
            os.kill(pid, number)  # the daemon
            assert mounting.wait() == 4
        else:
            mounting.send_signal(number)  # the command, as Ctrl-C does
            assert mounting.wait() == 130
            assert not [*temporary.iterdir()]
            assert not [*home.sessions.glob("*/journal")]
    assert home.listed("status") == []
    assert not is_mounted(mountpoint)
    assert "goes on" not in home.run("mount", mountpoint, "--from", "large.flist").stdout
    assert home.status()["files"] == 40_000
    home.run("abort", "--yes")


def test_what_a_session_started_from_survives_its_daemon(home: Home, mountpoint: Path) -> None:
    make_base(home, store_at(home.blocks))
    home.run("mount", mountpoint, "--from", "base.flist")
    (pid,) = home.daemons()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: home.status()["state"] == "died", "the daemon is gone")
    home.run("mount", mountpoint)
    assert (mountpoint / "usr/big").read_bytes() == BIG
    home.run("seal", "out.flist")
    assert set(read_flist(home.path / "out.flist")) == {b"", *TREE}


def test_a_session_of_an_earlier_version_goes_on(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    umount(mountpoint)
    wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
    (file,) = home.sessions.glob("*/session.json")
    settings = json.loads(file.read_text())
    del settings["base_store"]
    file.write_text(json.dumps(settings))
    home.run("mount", mountpoint)
    home.run("seal", "out.flist")


def test_the_flist_of_2017_is_there_in_a_moment(home: Home, mountpoint: Path) -> None:
    old = needs_old_flist()
    told = home.run("mount", mountpoint, "--from", old)
    assert "11,944 entries of its base" in told.stdout
    assert re.search(r"note: [\d,]+ entries belong to accounts that the base knows by name only", told.stdout)
    assert (mountpoint / "bin/sh").readlink() == Path("dash")
    assert (mountpoint / "etc/passwd").stat().st_mode == 0o100644
    assert home.status()["files"] == 8970
    home.run("abort", "--yes")
