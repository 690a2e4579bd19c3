"""Stores of several servers, what a package says of them, and pushing, from the command line."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
from pathlib import Path

import pytest

from flistfs.format.router import format_router, parse_router, router_to
from tests.both import both_formats, read_file, read_sealed, shown
from tests.e2e.commands import Home, is_mounted, umount
from tests.e2e.test_roundtrip import blocks_in_directory, blocks_in_redis
from tests.redis_server import RedisServer, running_redis
from tests.stores.routers import router_file

SECRET = "s3cr3t-of-the-store"


def router_in(package: Path) -> bytes | None:
    """The router.yaml of a package, or None if it has none."""
    with gzip.open(package) as raw, tarfile.open(fileobj=raw) as archive:
        if "router.yaml" not in archive.getnames():
            return None
        member = archive.extractfile("router.yaml")
        assert member is not None
        return member.read()


def held(server: RedisServer) -> int:
    return int(server.command("DBSIZE")[1:])


def write_files(directory: Path, count: int = 40) -> dict[bytes, bytes]:
    contents = {b"%03d" % number: os.urandom(3000) for number in range(count)}
    for name, content in contents.items():
        (directory / os.fsdecode(name)).write_bytes(content)
    return contents


# What the package says.


@both_formats
def test_the_package_names_the_server_and_never_its_password(home: Home, mountpoint: Path) -> None:
    with running_redis(password=SECRET) as server:
        home.run("mount", mountpoint, "--store", server.url)
        write_files(mountpoint, 1)
        said = home.run("seal", "out.flist").stdout
    url = f"redis://127.0.0.1:{server.port}"
    assert router_in(home.path / "out.flist") == format_router(router_to(url))
    assert f"readers fetch from {url}\nnote: readers elsewhere cannot reach {url}; use --public-url\n" in said
    assert home.status()["result"]["summary"]["servers"] == [url]
    assert b"000" in read_sealed(home.path / "out.flist")


def test_a_package_of_a_local_directory_names_nothing(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    said = home.run("seal", "out.flist").stdout
    assert (
        f"note: readers fetch from servers, not from dir://{home.blocks}, so the flist does not name" in said
    )
    assert "--public-url names one" in said
    assert router_in(home.path / "out.flist") is None


def test_what_readers_would_read_from_elsewhere_is_not_named(
    home: Home, source: Path, redis: RedisServer
) -> None:
    write_files(source, 2)
    for name, is_named in (("5", False), ("0", True)):
        summary = home.json("pack", source, f"{name}.flist", "--store", f"{redis.url}/{name}")
        assert summary["servers"] == ([redis.url] if is_named else [])
        ignored = f"readers ignore the path in {redis.url}/5, so the flist does not name it; "
        assert summary["notes"][0].startswith("readers elsewhere" if is_named else ignored)
        expected = format_router(router_to(redis.url)) if is_named else None
        assert router_in(home.path / f"{name}.flist") == expected


@both_formats
def test_a_router_names_to_readers_what_they_can_use(home: Home, source: Path, redis: RedisServer) -> None:
    write_files(source, 2)
    whole, half = {"00:FF": redis.url}, {"00:7F": redis.url}
    for pools, names in (
        ([whole, {"00:FF": f"{redis.url}/5"}], [redis.url]),
        ([half, {"8:F": f"{redis.url}/5"}], []),
    ):
        router = router_file(home.path, *pools)
        summary = home.json("pack", source, "out.flist", "--store", router, "--force")
        assert summary["servers"] == names
        assert f"readers ignore the path in {redis.url}/5" in summary["notes"][0]
        assert "--router" in summary["notes"][-1]
        assert "--public-url" not in str(summary["notes"])


@both_formats
def test_servers_that_are_named_to_readers_are_asked_for_the_blocks(
    home: Home, mountpoint: Path, redis: RedisServer
) -> None:
    with running_redis() as public:
        home.run("mount", mountpoint, "--store", redis.url)
        write_files(mountpoint, 3)
        (mountpoint / "hole").touch()
        os.truncate(mountpoint / "hole", 1000)
        router_file(home.path, {"00:FF": public.url})
        home.expected_log += ["sealing failed"]
        for named in (["--public-url", public.url], ["--router", "router.yaml"]):
            refused = home.run("seal", "out.flist", *named, code=7)
            assert (
                f"{public.url}, which the flist is to name to its readers, lacks 4 of its 4 blocks; "
                in refused.stderr
            )
            assert is_mounted(mountpoint)
            assert not (home.path / "out.flist").exists()
        home.run("seal", "out.flist")
        home.run("push", "out.flist", "--to", public.url)
        home.run("mount", mountpoint, "--from", "out.flist", "--store", redis.url)
        summary = home.json("seal", "public.flist", "--public-url", public.url)
        assert summary["servers"] == [public.url]
        assert not [note for note in summary["notes"] if "could not" in note]
        url = public.url
        public.command("CONFIG", "SET", "requirepass", SECRET)
        public.password = SECRET
        home.run("mount", mountpoint, "--from", "out.flist", "--store", redis.url)
        home.expected_log += ["a server of the router fails"]
        summary = home.json("seal", "secret.flist", "--public-url", url)
        assert f"could not check whether {url} has the blocks" in summary["notes"][0]
        assert "needs a password" in summary["notes"][0]


def test_notes_advise_what_was_not_done_yet(home: Home, source: Path, servers: list[RedisServer]) -> None:
    write_files(source, 2)
    one, two = (server.url for server in servers)
    router_file(home.path, {"00:FF": one}, {"00:FF": two})
    unreachable = f"readers elsewhere cannot reach {one}; "
    cases: list[tuple[str, list[str], str]] = [
        (one, [], "use --public-url"),
        (one, ["--public-url", one], "name another URL"),
        ("router.yaml", [], "use --router"),
        ("router.yaml", ["--router", "router.yaml"], "name others in --router"),
        ("router.yaml", ["--public-url", one], "name another URL"),
    ]
    for store, chosen, advice in cases:
        summary = home.json("pack", source, "out.flist", "--store", store, "--force", *chosen)
        assert summary["notes"] == [unreachable + advice]


def test_a_router_for_readers_has_a_server_for_every_block(home: Home, source: Path) -> None:
    write_files(source, 1)
    router_file(home.path, {"00:FE": "redis://readers.invalid"})
    refused = home.run("pack", source, "out.flist", "--router", "router.yaml", code=2).stderr
    assert "router.yaml cannot be used: it has no server for hashes that begin with FF" in refused


@both_formats
def test_a_replica_for_readers_that_lacks_blocks_is_named(
    home: Home, source: Path, servers: list[RedisServer]
) -> None:
    write_files(source, 3)
    one, two = servers
    router_file(home.path, {"00:FF": two.url}, {"00:FF": one.url}, {"00:FF": "redis://127.0.0.1:1"})
    pack: list[str | Path] = [
        "pack",
        source,
        "out.flist",
        "--force",
        "--store",
        one.url,
        "--router",
        "router.yaml",
    ]
    notes = home.json(*pack)["notes"]
    assert notes[0].startswith(
        f"{two.url}, which the flist names to its readers, lacks 3 of its 3 blocks: others have them"
    )
    assert "could not be checked: cannot reach redis://127.0.0.1:1" in notes[1]
    assert len(notes) == 3
    router_file(home.path, {"00:FF": two.url}, {"00:FF": one.url})
    home.run("push", "out.flist", "--to", "router.yaml")
    assert not [note for note in home.json(*pack)["notes"] if "lacks" in note]


def test_the_package_names_what_it_is_told_to(home: Home, mountpoint: Path, redis: RedisServer) -> None:
    (home.path / "given.yaml").write_text(
        "pools: {x: {00:ff: zdb://one/default, '7': ARDB://two}}\nlookup: [x]\n"
    )
    for number, arguments in enumerate((["--public-url", "ardb://example.org"], ["--router", "given.yaml"])):
        home.run("mount", mountpoint, "--store", redis.url)
        assert "note: redis" not in home.run("seal", f"{number}.flist", *arguments).stdout
    public, given = (router_in(home.path / f"{number}.flist") for number in range(2))
    assert public == format_router(router_to("ardb://example.org:16379"))
    assert given == format_router(parse_router((home.path / "given.yaml").read_bytes()))


def test_a_mount_that_seals_itself_names_what_it_is_told_to(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint, "--seal-to", "out.flist", "--public-url", "ardb://readers.invalid:1")
    umount(mountpoint)
    home.run("wait", "--mount", mountpoint)
    assert router_in(home.path / "out.flist") == format_router(router_to("ardb://readers.invalid:1"))


def test_pack_and_new_take_what_mount_and_seal_do(
    home: Home, source: Path, servers: list[RedisServer]
) -> None:
    one, two = servers
    router_file(home.path, *({"00:FF": server.url} for server in servers))
    write_files(source, 5)
    store = ["--store", "router.yaml", "--min-replicas", "1"]
    home.run("pack", source, "packed.flist", *store, "--public-url", "ardb://readers.invalid:1")
    assert router_in(home.path / "packed.flist") == format_router(router_to("ardb://readers.invalid:1"))
    assert home.json("new", home.path / "place", *store)["store"].endswith("router.yaml?min-replicas=1")
    home.run("add", f"{source}/.")
    home.run("seal", "sealed.flist")
    in_package = router_in(home.path / "sealed.flist")
    assert in_package is not None
    assert list(parse_router(in_package).all_urls()) == [one.url, two.url]
    assert held(one) == held(two) == 5


def test_a_large_router_reaches_the_daemon(home: Home, mountpoint: Path) -> None:
    rules = "".join(
        f"    {number:04x}: ardb://a-server-with-a-long-name-{number}.example.org\n" for number in range(3000)
    )
    rules += "    0bb8:ffff: ardb://one-for-the-rest.example.org\n"
    (home.path / "r.yaml").write_text(f"pools:\n  p:\n{rules}lookup: [p]\n")
    home.run("mount", mountpoint)
    home.run("seal", "out.flist", "--router", "r.yaml")
    found = router_in(home.path / "out.flist")
    assert found is not None
    assert parse_router(found) == parse_router((home.path / "r.yaml").read_bytes())


@both_formats
def test_equal_trees_and_stores_give_equal_packages(home: Home, mountpoint: Path, redis: RedisServer) -> None:
    for number in range(2):
        home.run("mount", mountpoint, "--store", redis.url)
        (mountpoint / "file").write_text("content")
        home.run("seal", f"{number}.flist", env={"SOURCE_DATE_EPOCH": "1000"})
    assert (home.path / "0.flist").read_bytes() == (home.path / "1.flist").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--public-url", f"ardb://:{SECRET}@host"], "the public URL has a password"),
        ([f"--public-url=ardb://{SECRET}@host"], "the public URL has a password"),
        (["--public-url", "rediss://host"], "readers fetch from ardb, redis, zdb servers"),
        (["--public-url", "redis://host/5"], "redis://host:6379/5 cannot be the public URL: readers ignore"),
        (["--public-url", "zdb://host/name"], "give the server without a path"),
        (["--router", "named.yaml"], "zdb://two/name cannot be named to readers of the format rocksdb"),
        (["--router", "five.yaml"], "five.yaml names redis://two/5: readers ignore the path of a URL"),
        (["--public-url", "host"], "a store URL looks like"),
        (["--public-url", "ardb://host", "--router", "r.yaml"], "exclude each other"),
        (["--router", "r.yaml"], "r.yaml contains passwords"),
        (["--router", "nothing.yaml"], "nothing.yaml cannot be read"),
        (["--router", "/dev/null"], "router.yaml is empty"),
    ],
)
def test_a_router_that_no_package_may_have_is_refused(
    home: Home, mountpoint: Path, arguments: list[str], hint: str
) -> None:
    (home.path / "r.yaml").write_text(f"pools: {{x: {{00:ff: 'ardb://:{SECRET}@one'}}}}\nlookup: [x]\n")
    (home.path / "named.yaml").write_text("pools: {x: {00:ff: 'zdb://two/name'}}\nlookup: [x]\n")
    (home.path / "five.yaml").write_text("pools: {x: {00:ff: 'redis://two/5'}}\nlookup: [x]\n")
    home.run("mount", mountpoint)
    home.expected_log += ["sealing failed", "cannot be named to readers"]
    for command in (["seal", "out.flist"], ["mount", mountpoint.with_name("other"), "--seal-to", "o.flist"]):
        mountpoint.with_name("other").mkdir(exist_ok=True)
        refused = home.run(*command, *arguments, code=2)
        assert hint in refused.stderr
        assert SECRET not in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    home.run("seal", "out.flist")


def test_a_router_without_a_seal_is_refused(home: Home, mountpoint: Path) -> None:
    refused = home.run("mount", mountpoint, "--public-url", "ardb://host", code=2)
    assert "--seal-to" in refused.stderr


# Pushing.


@both_formats
def test_push_from_the_local_directory_to_a_server(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    contents = write_files(mountpoint)
    home.run("seal", "out.flist")
    before = (home.path / "out.flist").read_bytes()
    with running_redis(password=SECRET) as server:
        to = server.url.replace("redis://", "ardb://")
        done = home.run("push", "out.flist", "--to", to)
        assert done.stdout.startswith(f"ardb://127.0.0.1:{server.port}: 40 blocks sent (")
        assert done.stderr == ""
        assert home.json("push", "out.flist", "--to", to) == {
            "version": 1,
            "store": f"ardb://127.0.0.1:{server.port}",
            "new_blocks": 0,
            "new_bytes": 0,
            "shared_blocks": 40,
            "replaced_blocks": 0,
            "servers": [],
            "notes": [],
            "faults": [],
            "fault_count": 0,
        }
        get = blocks_in_redis(server)
        nodes = read_sealed(home.path / "out.flist")
        assert {name: read_file(nodes[name], get, fast=True) for name in contents} == contents
        home.run("push", "out.flist", "--to", to.replace(SECRET, "wrong"), code=3)
    assert (home.path / "out.flist").read_bytes() == before


@both_formats
def test_push_from_where_the_flist_says_that_its_blocks_are(home: Home, mountpoint: Path) -> None:
    with running_redis() as server:
        home.run("mount", mountpoint, "--store", server.url)
        write_files(mountpoint, 10)
        home.run("seal", "out.flist")
        to = f"dir://{home.blocks}"
        assert home.json("push", "out.flist", "--to", to)["new_blocks"] == 10
    get = blocks_in_directory(home)
    assert all(
        read_file(node, get)
        for node in read_sealed(home.path / "out.flist").values()
        if node.size and node.kind == "file"
    )
    # The server is gone, so from elsewhere.
    refused = home.run("push", "out.flist", "--to", f"dir://{home.path}/copy", code=3)
    assert "Connection refused" in refused.stderr
    assert home.json("push", "out.flist", "--from", to, "--to", f"dir://{home.path}/copy")["new_blocks"] == 10


@both_formats
def test_push_between_two_stores_with_passwords(home: Home, mountpoint: Path) -> None:
    with running_redis(password="first-secret") as one, running_redis(password="second-secret") as two:
        home.run("mount", mountpoint, "--store", one.url)
        write_files(mountpoint, 10)
        home.run("seal", "out.flist")
        assert home.json("push", "out.flist", "--from", one.url, "--to", two.url)["new_blocks"] == 10
        bare = [f"--{way}=redis://127.0.0.1:{server.port}" for way, server in (("from", one), ("to", two))]
        secrets = {"FLISTFS_FROM_PASSWORD": "first-secret", "FLISTFS_STORE_PASSWORD": "second-secret"}
        two.command("FLUSHALL")
        assert (
            json.loads(home.run("push", "out.flist", *bare, "--json", env=secrets).stdout)["new_blocks"] == 10
        )
        turned = {"FLISTFS_FROM_PASSWORD": "second-secret", "FLISTFS_STORE_PASSWORD": "second-secret"}
        two.command("FLUSHALL")
        refused = home.run("push", "out.flist", *bare, code=3, env=turned)
        assert (
            f"127.0.0.1:{one.port} says that the password is wrong; correct FLISTFS_FROM_PASSWORD"
            in refused.stderr
        )
        # What the flist itself names gets no password at all.
        home.run("push", "out.flist", bare[1], code=3, env={"FLISTFS_STORE_PASSWORD": "second-secret"})


@both_formats
def test_push_names_the_files_whose_blocks_are_not_there(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    write_files(mountpoint, 3)
    home.run("seal", "out.flist")
    lost = read_sealed(home.path / "out.flist")[b"001"].blocks[0][0]
    name = shown(lost)
    (home.blocks / name[0] / name[1] / name).unlink()
    refused = home.run("push", "out.flist", "--to", f"dir://{home.path}/copy", code=7)
    assert "lacks 1 of the blocks, in 001; everything else was pushed" in refused.stderr
    home.run("push", "nothing.flist", "--to", f"dir://{home.path}/copy", code=8)
    home.run("push", "out.flist", code=2)
