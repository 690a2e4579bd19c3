"""Blocks of a base that are in another store, or nowhere."""

from __future__ import annotations

import json
import os
import secrets
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from flistfs.tree.chunks import CHUNK_SIZE
from tests.e2e.commands import Home, is_mounted, umount, wait_until
from tests.e2e.test_reopen import BIG, BLOCKS, TREE, content_of, held, make_base, served, store_at
from tests.generation1 import open_store
from tests.independent_reader import read_flist
from tests.reading.making import DIR, Item, change_entry, packed, records_of
from tests.redis_server import running_redis


def test_blocks_come_from_the_store_that_is_named(home: Home, mountpoint: Path) -> None:
    """They are copied by the seal, as far as the tree needs them; the password is seen nowhere, nor kept."""
    secret = secrets.token_hex(16)
    with running_redis(password=secret) as server:
        make_base(home, server.url)
        url = f"redis://127.0.0.1:{server.port}"
        blocks = home.path / "blocks"
        told = home.run(
            *("mount", mountpoint, "--from", "base.flist", "--store", store_at(blocks)),
            *("--base-store", server.url),
        )
        assert (mountpoint / "usr/small").read_bytes() == b"small"
        assert held(blocks) == 0
        lines = home.processes().values()
        assert any("flistfs.daemons.session" in line for line in lines)
        assert not [line for line in lines if secret in line]
        umount(mountpoint)
        wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
        assert home.status()["base_store"] == url
        home.run("mount", mountpoint, env={"FLISTFS_BASE_PASSWORD": secret})
        assert (mountpoint / "usr/big").read_bytes() == BIG
        (mountpoint / "usr/same").unlink()
        (mountpoint / "usr/small").unlink()
        umount(mountpoint)
        wait_until(lambda: home.status()["state"] == "unmounted", "the daemon has ended")
        home.expected_log += ["needs a password", "sealing failed", "base's"]
        assert "needs a password; give FLISTFS_BASE_PASSWORD" in home.run("seal", "out.flist", code=3).stderr
        summary = home.run("seal", "out.flist", "--json", env={"FLISTFS_BASE_PASSWORD": secret}).stdout
        assert json.loads(summary)["new_blocks"] == 0
        assert held(blocks) == BLOCKS - 1
        assert content_of(read_flist(home.path / "out.flist"), b"usr/big", store_at(blocks)) == BIG
        assert secret not in told.stdout + told.stderr + summary + home.logs()
        for path in home.path.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def test_blocks_come_from_where_the_flist_says(home: Home, mountpoint: Path, source: Path) -> None:
    (source / "file").write_bytes(BIG)
    (source / "cache").write_bytes(b"not wanted")
    with running_redis() as server:
        home.run("pack", source, "base.flist", "--store", server.url)
        blocks = home.path / "blocks"
        home.run("mount", mountpoint, "--from", "base.flist", "--store", store_at(blocks))
        assert (mountpoint / "file").read_bytes() == BIG
        (pid,) = home.daemons()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: home.status()["state"] == "died", "the daemon is gone")
        home.run("seal", "out.flist", "--exclude", "cache")
        assert held(blocks) == 4
        assert content_of(read_flist(home.path / "out.flist"), b"file", store_at(blocks)) == BIG
    # The store of the base is gone; everything is in the other.
    home.run("mount", mountpoint, "--from", "out.flist", "--store", store_at(blocks))
    home.run("seal", "again.flist")


def test_blocks_come_from_the_usual_store(home: Home, tmp_path: Path) -> None:
    make_base(home, store_at(home.blocks))
    with running_redis() as server:
        home.run("new", tmp_path / "name", "--from", "base.flist", "--store", server.url)
        home.run("add", __file__)
        summary = home.json("seal", "out.flist")
        assert summary["files"] == 5
        assert served(server, "set") == BLOCKS + summary["new_blocks"]
        assert "no faults" in home.run("verify", "out.flist", "--deep").stdout


def test_blocks_that_no_store_has_are_named(home: Home, mountpoint: Path) -> None:
    base = home.path / "base-blocks"
    make_base(home, store_at(base))
    lost = read_flist(home.path / "base.flist")[b"usr/big"].blocks[2][0].decode()
    (base / lost[0] / lost[1] / lost).unlink()
    home.expected_log += ["the store lost", "sealing failed", "reading back"]
    home.run("mount", mountpoint, "--from", "base.flist", "--base-store", store_at(base))
    with (mountpoint / "usr/big").open("rb") as file:
        assert file.read(CHUNK_SIZE) == BIG[:CHUNK_SIZE]
        file.seek(2 * CHUNK_SIZE)
        with pytest.raises(OSError, match="Input/output error"):
            file.read(1)
    refused = home.run("seal", "out.flist", code=7)
    assert len(refused.stderr.splitlines()) == 1
    assert "lost 1 block of 1 file: usr/big. Write them again, or copy those of the base" in refused.stderr
    assert is_mounted(mountpoint)
    assert held(home.blocks) == BLOCKS - 1  # the others were copied
    assert json.loads(home.run("seal", "less.flist", "--exclude", "usr", "--json").stdout)["files"] == 1
    # Without a store of its own it is the session's that lost it.
    home.run("mount", mountpoint, "--from", "base.flist")
    refused = home.run("seal", "out.flist", code=7)
    assert "copy those of the base with flistfs push and seal again" in refused.stderr
    (mountpoint / "usr/big").unlink()
    home.run("seal", "out.flist")


def test_a_corrupt_block_is_not_copied(home: Home, tmp_path: Path) -> None:
    base = home.path / "base-blocks"
    make_base(home, store_at(base))
    name = read_flist(home.path / "base.flist")[b"usr/small"].blocks[0][0].decode()
    (base / name[0] / name[1] / name).write_bytes(b"1000000000000000" + os.urandom(20))
    home.expected_log += ["the store lost", "sealing failed", "is corrupt"]
    home.run("new", tmp_path / "name", "--from", "base.flist", "--base-store", store_at(base))
    refused = home.run("seal", "out.flist", code=7)
    assert "lost 1 block of 2 files: usr/same, usr/small." in refused.stderr
    assert held(home.blocks) == BLOCKS - 1


def test_accounts_that_are_corrupt_end_a_seal_at_once(home: Home, tmp_path: Path) -> None:
    tree = {b"etc": DIR, b"etc/passwd": Item(what=b"root:x:0:0::/:/bin/sh\n")}
    packed(home.path / "base.flist", records_of(tree, open_store(store_at(home.blocks))))
    (block,) = (path for path in home.blocks.rglob("*") if path.is_file())
    block.write_bytes(b"1000000000000000" + os.urandom(20))
    home.expected_log += ["reading back", "sealing failed"]
    home.run("new", tmp_path / "name", "--from", "base.flist")
    refused = home.run("seal", "out.flist", "--timeout", "600", code=8)
    assert refused.stderr.startswith(f"flistfs: etc/passwd of the tree cannot be read: block {block.name} is")
    assert len(refused.stderr.splitlines()) == 1


def test_a_block_of_another_length_is_an_error(home: Home, mountpoint: Path) -> None:
    """Only reading it shows: what would lie behind its end must not come from elsewhere."""
    records = records_of(TREE, open_store(store_at(home.blocks)))
    change_entry(records, b"usr/small", lambda entry: replace(entry, size=10))
    packed(home.path / "bad.flist", records)
    home.expected_log += ["reading back"]
    home.run("mount", mountpoint, "--from", "bad.flist")
    with pytest.raises(OSError, match="Input/output error"):
        (mountpoint / "usr/small").read_bytes()
    assert "has 5 bytes instead of 10" in home.logs()
    home.run("abort", "--yes")
