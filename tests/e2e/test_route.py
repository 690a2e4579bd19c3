"""Saying anew where the blocks of a sealed flist are."""

from __future__ import annotations

from pathlib import Path

import pytest

import flistfs
from flistfs import errors
from flistfs.format.rocksdb.package import unpack_package
from tests.both import FORMATS
from tests.e2e.commands import Home
from tests.redis_server import RedisServer, free_port

CONTENT = b"what is in it" * 1000


@pytest.fixture
def package(home: Home, source: Path, redis: RedisServer, request: pytest.FixtureRequest) -> Path:
    """An flist whose blocks are on a server, and which names another that is not there."""
    (source / "file").write_bytes(CONTENT)
    options = ("--format", request.param, "--public-url", f"zdb://127.0.0.1:{free_port()}")
    home.run("pack", source, "out.flist", "--store", redis.url, *options)
    return home.path / "out.flist"


both = pytest.mark.parametrize("package", FORMATS, indirect=True)


@both
def test_an_flist_names_another_server(home: Home, package: Path, redis: RedisServer) -> None:
    before = package.read_bytes()
    home.run("cat", "out.flist", "file", code=3)
    home.run("route", "out.flist", "--public-url", f"zdb://127.0.0.1:{redis.port}", "-o", "out.flist")
    assert home.run("cat", "out.flist", "file").stdout.encode() == CONTENT
    package.write_bytes(before)
    routed = home.json("route", "out.flist", "--public-url", redis.url, "-o", "new.flist")
    assert routed["servers"] == [redis.url]
    assert any("cannot reach" in note for note in routed["notes"])
    assert package.read_bytes() == before
    assert home.run("cat", "new.flist", "file").stdout.encode() == CONTENT
    assert home.run("diff", "out.flist", "new.flist").stdout == ""
    home.run("route", "out.flist", "--public-url", redis.url, "-o", "new.flist", code=9)
    said = home.run("route", "out.flist", "--public-url", redis.url).stdout
    assert said.startswith(f"{package}: readers fetch from {redis.url}\nnote: readers elsewhere cannot reach")
    assert package.read_bytes() == (home.path / "new.flist").read_bytes()
    info = home.json("info", "out.flist")
    assert ("backend" in info["metadata"]) == (info["format"] == "sqlite")


@both
def test_servers_are_asked_first(home: Home, package: Path, server: RedisServer, redis: RedisServer) -> None:
    before = package.read_bytes()
    lacking = home.run("route", "out.flist", "--public-url", server.url, code=7)
    assert "lacks 1 of its 1 block" in lacking.stderr
    nobody = f"redis://127.0.0.1:{free_port()}"
    home.run("route", "out.flist", "--public-url", nobody, code=3)
    assert package.read_bytes() == before
    home.run("route", "out.flist", "--public-url", nobody, "--no-check", "-o", "new.flist")
    assert home.json("info", "new.flist")["router"]["pools"]["default"][0]["url"] == nobody
    with pytest.raises(errors.UsageError):
        flistfs.route(package)
    assert flistfs.route(package, public_url=redis.url).servers == (redis.url,)


@both
def test_a_router_of_several(home: Home, package: Path, redis: RedisServer) -> None:
    (home.path / "router.yaml").write_text(
        f"pools:\n  a:\n    00:7F: {redis.url}\n    80:FF: {redis.url}\nlookup: [a]\n"
    )
    home.run("route", "out.flist", "--router", "router.yaml")
    assert [rule["range"] for rule in home.json("info", "out.flist")["router"]["pools"]["a"]] == [
        "00:7F",
        "80:FF",
    ]
    assert home.run("cat", "out.flist", "file").stdout.encode() == CONTENT


@both
def test_a_push_lets_the_flist_name_its_target(
    home: Home, package: Path, server: RedisServer, redis: RedisServer
) -> None:
    before = package.read_bytes()
    assert home.json("push", "out.flist", "--from", redis.url, "--to", server.url)["servers"] == []
    assert package.read_bytes() == before
    pushed = home.json("push", "out.flist", "--from", redis.url, "--to", server.url, "--update")
    assert pushed["servers"] == [server.url]
    assert home.run("cat", "out.flist", "file").stdout.encode() == CONTENT
    refused = home.run("push", "out.flist", "--to", f"dir://{home.path}/blocks", "--update", code=2)
    assert "--update cannot let the flist name it" in refused.stderr


@pytest.mark.parametrize("package", FORMATS[:1], indirect=True)
def test_an_unpacked_flist_needs_another_place(home: Home, package: Path) -> None:
    unpacked = home.path / "unpacked"
    unpacked.mkdir()
    unpack_package(package, unpacked)
    url = ("--public-url", "zdb://10.0.0.1:9900", "--no-check")
    assert "is an unpacked flist" in home.run("route", unpacked, *url, code=2).stderr
    updated = home.run("push", unpacked, "--to", "zdb://10.0.0.1:9900", "--update", code=2)
    assert "is an unpacked flist" in updated.stderr
    home.run("route", unpacked, *url, "-o", "new.flist")
    assert home.run("diff", "out.flist", "new.flist").stdout == ""
