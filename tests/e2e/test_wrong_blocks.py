"""Blocks of the right size and wrong content: found, replaced, and never taken for stored."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from flistfs.stores import Store
from tests.e2e.commands import Home, umount, wait_until
from tests.generation1 import encode_block, open_store
from tests.redis_server import RedisServer, running_redis
from tests.stores.routers import router_file

CONTENT = {f"file{number}": os.urandom(3000) for number in range(5)}
BLOCKS = [encode_block(content) for content in CONTENT.values()]


def write(directory: Path) -> None:
    for name, content in CONTENT.items():
        (directory / name).write_bytes(content)


def spoil(server: RedisServer, count: int = 2) -> None:
    for block in BLOCKS[:count]:
        server.command("SET", block.hash.decode(), "x" * block.size)


def is_right(store: Store) -> bool:
    return all(store.copies(block.hash) == [block.stored] for block in BLOCKS)


def spoil_files(blocks: Path, count: int = 2) -> None:
    """Change blocks of a directory, as if the disk had done it before the machine was started."""
    for block in BLOCKS[:count]:
        name = block.hash.decode()
        path = blocks / name[0] / name[1] / name
        path.write_bytes(bytes(block.size))
        os.utime(path, (10**9, 10**9))


def test_pack_into_a_directory_replaces_what_is_wrong(home: Home, source: Path) -> None:
    write(source)
    home.run("pack", source, "out.flist")
    spoil_files(home.blocks)
    home.run("verify", "out.flist", "--deep", code=10)
    summary = home.json("pack", source, "again.flist")
    assert (summary["replaced_blocks"], summary["new_blocks"], summary["shared_blocks"]) == (2, 2, 3)
    home.run("verify", "again.flist", "--deep")
    spoil_files(home.blocks, 1)
    said = home.run("pack", source, "third.flist").stdout
    assert "note: 1 block was wrong in the store, and replaced\n" in said
    home.run("new")
    spoil_files(home.blocks)
    assert home.json("add", f"{source}/.")["replaced_blocks"] == 2


def test_check_content_of_pack_seal_and_push(home: Home, source: Path, mountpoint: Path) -> None:
    write(source)
    with running_redis() as server, running_redis() as other:
        store = open_store(server.url)
        place = ["--store", server.url]
        home.run("pack", source, "out.flist", *place)
        spoil(server)
        # A server looks after its blocks itself, unless somebody asks for more.
        assert home.json("pack", source, "plain.flist", *place)["replaced_blocks"] == 0
        assert home.json("pack", source, "checked.flist", *place, "--check-content")["replaced_blocks"] == 2
        assert is_right(store)

        home.run("mount", mountpoint, *place)
        write(mountpoint)
        home.run("sync")
        spoil(server)
        home.expected_log += ["the store holds 2 corrupt blocks"]
        assert home.json("seal", "sealed.flist", "--check-content")["replaced_blocks"] == 2
        assert is_right(store)

        home.run("push", "out.flist", "--to", other.url)
        spoil(other, 1)
        push = ["push", "out.flist", "--to", other.url]
        assert home.json(*push)["replaced_blocks"] == 0
        said = home.run(*push, "--check-content").stdout
        assert said.endswith("note: 1 block was wrong in the store, and replaced\n")
        assert is_right(open_store(other.url))


def test_a_wrong_block_that_is_not_at_hand_is_named_by_the_seal(home: Home, mountpoint: Path) -> None:
    with running_redis() as server:
        home.run("mount", mountpoint, "--store", server.url)
        write(mountpoint)
        home.run("sync")
        umount(mountpoint)
        wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
        spoil(server)
        home.expected_log += ["corrupt"]
        refused = home.run("seal", "out.flist", "--check-content", code=7)
        assert "the store holds 2 corrupt blocks of 2 files: file0, file1. Add them again" in refused.stderr
        assert not (home.path / "out.flist").exists()
        home.run("mount", mountpoint)
        write(mountpoint)
        assert home.json("seal", "out.flist", "--check-content")["replaced_blocks"] == 2
        assert is_right(open_store(server.url))


@pytest.mark.parametrize("mounted", [False, True])
def test_what_a_seal_asks_for_heals(home: Home, source: Path, mountpoint: Path, *, mounted: bool) -> None:
    write(source)
    with running_redis() as server:
        home.run(*(["mount", mountpoint] if mounted else ["new"]), "--store", server.url)
        home.run("add", f"{source}/.")
        # Twice: what an encoder that still runs has compared once may be wrong the next time.
        for _ in range(2):
            spoil(server)
            home.expected_log += ["corrupt"]
            refused = home.run("seal", "out.flist", "--check-content", code=7)
            assert (
                "2 corrupt blocks of 2 files: file0, file1. Add them again with --check-content, or write "
                "them again, and seal again with --check-content;"
            ) in refused.stderr
            assert home.json("add", f"{source}/.", "--check-content")["replaced_blocks"] == 2
            assert is_right(open_store(server.url))
        home.run("seal", "out.flist", "--check-content")


@pytest.mark.parametrize("mounted", [False, True])
def test_what_is_written_again_heals_before_the_next_seal(
    home: Home, mountpoint: Path, *, mounted: bool
) -> None:
    with running_redis() as server:
        home.run("mount", mountpoint, "--store", server.url)
        write(mountpoint)
        home.run("sync")
        umount(mountpoint)
        wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
        spoil(server)
        home.expected_log += ["corrupt"]
        if mounted:
            home.run("mount", mountpoint)  # which keeps no copies of what it had
        home.run("seal", "out.flist", "--check-content", code=7)
        if not mounted:
            home.run("mount", mountpoint)
        write(mountpoint)
        home.run("sync")
        assert is_right(open_store(server.url))
        spoil(server, 1)  # all that was found wrong was healed: what is written is trusted again
        write(mountpoint)
        home.run("sync")
        assert not is_right(open_store(server.url))
        umount(mountpoint)


def test_replicas_heal_each_other(home: Home, mountpoint: Path) -> None:
    with running_redis() as one, running_redis() as two:
        router = router_file(home.path, {"00:FF": one.url}, {"00:FF": two.url})
        home.run("mount", mountpoint, "--store", router)
        write(mountpoint)
        home.run("sync")
        umount(mountpoint)
        wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
        spoil(one)
        home.expected_log += ["the store holds 2 corrupt blocks"]
        assert home.json("seal", "out.flist", "--check-content")["replaced_blocks"] == 2
        assert is_right(open_store(one.url))
        spoil(two, 3)
        # Readers ask the first: nobody would have noticed.
        assert "3 faults" in home.run("verify", "out.flist", "--deep", code=10).stderr
        repaired = home.run("verify", "out.flist", "--repair", "--from", one.url, "--store", router)
        assert repaired.stdout.startswith("3 blocks repaired\nno faults")
        assert is_right(open_store(two.url))


def test_the_store_of_a_base_heals_too(home: Home, source: Path) -> None:
    write(source)
    with running_redis() as base, running_redis() as server:
        home.run("pack", source, "base.flist", "--store", base.url)
        home.run("push", "base.flist", "--to", server.url)
        spoil(server)
        home.run("new", "--from", "base.flist", "--store", server.url)
        home.expected_log += ["the store holds 2 corrupt blocks"]
        assert home.json("seal", "out.flist", "--check-content")["replaced_blocks"] == 2
        assert is_right(open_store(server.url))


def test_a_repair_from_blocks_that_were_taken_for_files_says_so(home: Home, source: Path) -> None:
    write(source)
    blocks, meant = home.path / "other", "dir://PATH may have been meant"
    with running_redis() as server:
        home.run("pack", source, "out.flist", "--store", server.url)
        home.run("push", "out.flist", "--to", f"dir://{blocks}")
        spoil(server)
        (home.path / "empty").mkdir()
        repair: list[str | Path] = ["verify", "out.flist", "--repair", "--from"]
        assert meant not in home.run(*repair, "empty", code=10).stderr
        said = home.run(*repair, "other", code=10).stderr
        assert "note: other looks like a directory of blocks; --from dir://PATH may have been meant" in said
        assert "2 blocks repaired" in home.run(*repair, f"dir://{blocks}").stdout
        assert meant not in home.run(*repair, "other").stderr


@pytest.mark.parametrize("way", ["dir", "redis"])
def test_verify_repairs_from_a_directory_of_files(home: Home, source: Path, way: str) -> None:
    write(source)
    with running_redis() as server:
        place = f"dir://{home.blocks}" if way == "dir" else server.url
        home.run("pack", source, "out.flist", "--store", place)
        if way == "dir":
            spoil_files(home.blocks)
        else:
            spoil(server)
            server.command("DEL", BLOCKS[4].hash.decode())
        broken = 2 if way == "dir" else 3
        (source / "file1").unlink()
        verify: list[str | Path] = ["verify", "out.flist", "--deep", "--repair", "--from", source, "--json"]
        answer = json.loads(home.run(*verify, code=10).stdout)
        assert answer["repaired"] == broken - 1
        assert [fault["path"] for fault in answer["faults"]] == ["file1"]
        (source / "elsewhere").write_bytes(CONTENT["file1"])
        answer = json.loads(home.run(*verify).stdout)
        assert (answer["repaired"], answer["faults"]) == (1, [])
        assert is_right(open_store(place))


def test_wrong_blocks_of_a_base_are_mended_as_the_seal_says(home: Home, source: Path) -> None:
    write(source)
    with running_redis() as server:
        home.run("pack", source, "base.flist", "--store", server.url)
        home.run("new", "--from", "base.flist", "--store", server.url)
        spoil(server)
        home.expected_log += ["corrupt"]
        said = home.run("seal", "out.flist", "--check-content", code=7).stderr
        assert "repair those of the base with flistfs verify --repair, and seal again" in said
        home.run("verify", "base.flist", "--repair", "--from", source)
        home.run("seal", "out.flist", "--check-content")


def test_options_that_do_not_go_together(home: Home, source: Path) -> None:
    home.run("pack", source, "out.flist")
    said = home.run("verify", "out.flist", "--repair", code=2).stderr
    assert "say with --from where right blocks are" in said
    assert "belong together" in home.run("verify", "out.flist", "--from", source, code=2).stderr
    assert (
        "leave one out"
        in home.run("verify", "out.flist", "--no-store", "--repair", "--from", source, code=2).stderr
    )
    for name in ("nosuchdir", "n" * 300):
        refused = home.run("verify", "out.flist", "--repair", "--from", name, code=2).stderr
        assert "there is no such directory or file" in refused
    down = ["verify", "out.flist", "--repair", "--from", "redis://127.0.0.1:1"]
    assert "cannot reach redis://127.0.0.1:1" in home.run(*down, code=3).stderr
