"""A tree goes in through the kernel, and comes out of the package and the store as it was."""

from __future__ import annotations

import gzip
import os
import pwd
import random
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import redis as redis_client

from flistfs.format.opening import format_named
from flistfs.stores import open_store
from tests.both import both_formats, read_sealed
from tests.e2e.commands import FLISTFS, Home, is_mounted, shell
from tests.redis_server import RedisServer
from tests.snapshots import Snap, assert_flist_equals, snapshot
from tests.trees import make_everything

HOST = "a-host-of-some-name"

COPIES = {
    "cp": 'cp -a "$SOURCE"/. .',
    "tar": 'tar -C "$SOURCE" -cf - . | tar --same-owner -xpf -',
    "rsync": 'rsync -aH --devices --specials "$SOURCE"/ ./',
}


def blocks_in_redis(server: RedisServer) -> Callable[[bytes], bytes | None]:
    client = redis_client.Redis(port=server.port, password=server.password)

    def get(name: bytes) -> bytes | None:
        value = client.get(name)
        assert value is None or isinstance(value, bytes)
        return value

    return get


def blocks_in_directory(home: Home) -> Callable[[bytes], bytes | None]:
    store = open_store(f"dir://{home.blocks}", format_named(home.format).codec)
    return store.get


@pytest.mark.parametrize("how", COPIES)
@both_formats
def test_every_kind_of_entry_comes_back(
    home: Home, mountpoint: Path, source: Path, redis: RedisServer, how: str
) -> None:
    make_everything(source)
    if how == "tar":
        (source / "specials/socket").unlink()  # an archive holds none
        shell("touch -r fifo .", cwd=source / "specials")
    wanted = snapshot(source)
    home.run("mount", mountpoint, "--store", redis.url)
    shell(COPIES[how], cwd=mountpoint, SOURCE=str(source))
    live = snapshot(mountpoint)
    summary = home.json("seal", "out.flist")

    nodes = read_sealed(home.path / "out.flist")
    assert_flist_equals(nodes, wanted, blocks_in_redis(redis), fast=True)
    assert {path: comparable(snap, how) for path, snap in live.items()} == {
        path: comparable(snap, how) for path, snap in wanted.items()
    }
    assert not is_mounted(mountpoint)
    assert summary["files"] == sum(node.kind == "file" for node in nodes.values())
    assert summary["directories"] == sum(node.kind == "dir" for node in nodes.values())
    assert summary["links"] == sum(node.kind == "link" for node in nodes.values())
    assert summary["unrepresentable"] == expected_unrepresentable(wanted, home.format)


def comparable(snap: Snap, how: str) -> Snap:
    """What a copying program promises to keep: tar keeps whole seconds only; directories' sizes differ."""
    return replace(
        snap,
        size=0 if snap.kind == "dir" else snap.size,
        mtime_ns=snap.mtime_ns // 10**9 if how == "tar" else snap.mtime_ns,
    )


def expected_unrepresentable(wanted: dict[bytes, Snap], format_: str) -> dict[str, int]:
    """Count what the format or its readers drop, from the tree that was copied."""
    snaps = list(wanted.values())
    names = [path.rpartition(b"/")[2] for path in wanted]
    is_first = format_ == "rocksdb"
    return {
        "xattrs": 0,
        "hard_links": sum(snap.kind != "dir" and snap.nlink > 1 for snap in snaps),
        "times": sum(not 0 <= snap.mtime_ns // 10**9 < 2**32 for snap in snaps),
        "owners": is_first * sum((snap.uid, snap.gid) != (0, 0) for snap in snaps),
        "set_id": sum(bool(snap.mode & 0o7000) for snap in snaps),
        "large_devices": is_first * sum(snap.device is not None and snap.device[1] > 255 for snap in snaps),
        # Readers of generation 1 show them, and take any name.
        "special_files": 0 if is_first else sum(snap.kind not in {"dir", "file", "link"} for snap in snaps),
        "names": 0 if is_first else sum(name != name.decode(errors="ignore").encode() for name in names),
    }


@both_formats
def test_a_directory_store_holds_the_same(home: Home, mountpoint: Path, source: Path) -> None:
    make_everything(source)
    home.run("mount", mountpoint)
    shell('cp -a "$SOURCE"/. .', cwd=mountpoint, SOURCE=str(source))
    home.run("seal", "out.flist")
    assert_flist_equals(
        read_sealed(home.path / "out.flist"), snapshot(source), blocks_in_directory(home), fast=True
    )


@both_formats
def test_what_build_tools_do(home: Home, mountpoint: Path, source: Path) -> None:
    (source / "program.sh").write_text("#!/bin/sh\necho hello\n")
    shell(
        """
        git init -q repo && cd repo && git config user.email a@b.c && git config user.name n
        for i in $(seq 50); do echo $i > file$i; done
        git add . && git commit -qm first
        """,
        cwd=source,
    )
    home.run("mount", mountpoint)
    shell(
        """
        install -D -m 755 "$SOURCE/program.sh" usr/bin/program
        test "$(usr/bin/program)" = hello
        git clone -q "$SOURCE/repo" clone && git -C clone fsck --strict
        ln usr/bin/program usr/bin/again && ln -s program usr/bin/soft
        test "$(stat -c %h usr/bin/program)" = 2
        mkfifo pipe && mkdir -p a/b/c && mv a/b d && rm -r a
        echo one > file && chmod 600 file && touch -d '2001-02-03 04:05:06 UTC' file
        test "$(stat -c '%a %Y' file)" = "600 981173106"
        rsync -a clone/ again/ && rsync -a --delete again/ clone/ && diff -r clone again
        rm -r again
        """,
        cwd=mountpoint,
        SOURCE=str(source),
    )
    wanted = snapshot(mountpoint)
    home.run("seal", "out.flist")
    nodes = read_sealed(home.path / "out.flist")
    assert_flist_equals(nodes, wanted, blocks_in_directory(home), fast=True)
    assert nodes[b"d/c"].kind == "dir"
    assert b"a" not in nodes
    assert nodes[b"usr/bin/again"].blocks == nodes[b"usr/bin/program"].blocks


def test_reads_at_any_offset_while_written_and_after(
    home: Home, mountpoint: Path, redis: RedisServer
) -> None:
    home.run("mount", mountpoint, "--store", redis.url)
    chance = random.Random(5)
    content = bytearray(chance.randbytes(3 * 524288 + 77))
    path = mountpoint / "file"
    path.write_bytes(content)
    for round_number in range(3):
        for _ in range(30):
            at = chance.randrange(len(content))
            part = chance.randbytes(chance.choice([1, 100, 5000]))
            with path.open("r+b", buffering=0) as file:
                file.seek(at)
                file.write(part)
                content[at : at + len(part)] = part
                start = chance.randrange(len(content))
                file.seek(start)
                assert file.read(10000) == content[start : start + 10000]
        home_status = home.status()
        assert home_status["files"] == 1, round_number
        drop_kernel_cache(path)
        assert path.read_bytes() == content
    assert path.stat().st_size == len(content)
    home.run("seal", "out.flist")


def drop_kernel_cache(path: Path) -> None:
    """Have the kernel forget a file's pages, so that the next read asks the daemon."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@both_formats
def test_equal_trees_in_other_order_give_equal_packages(home: Home, tmp_path: Path, source: Path) -> None:
    make_everything(source)
    packages = []
    names = sorted(path.name for path in source.iterdir())
    for number, order in enumerate((names, names[::-1])):
        mountpoint = tmp_path.resolve() / f"mount-{number}"
        mountpoint.mkdir()
        home.run("mount", mountpoint)
        for name in order:
            shell('cp -a "$SOURCE" .', cwd=mountpoint, SOURCE=str(source / name))
        shutil.copystat(source, mountpoint)
        out = tmp_path / f"{number}.flist"
        # Between the tree's newest ordinary times and the copies' ctimes, all of which it clamps.
        home.run("seal", out, "--mount", mountpoint, env={"SOURCE_DATE_EPOCH": "1000000000"})
        packages.append(out.read_bytes())
    assert packages[0] == packages[1]
    nodes = read_sealed(tmp_path / "0.flist")
    assert max(node.mtime for node in nodes.values()) == 1000000000
    assert max(node.ctime for node in nodes.values()) == 1000000000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a command another host name")
@both_formats
def test_the_package_says_nothing_of_the_machine(home: Home, mountpoint: Path) -> None:
    script = f"""
        hostname {HOST} && cd {home.path}
        {FLISTFS} mount {mountpoint} && echo content > {mountpoint}/file
        chown 0:4243 {mountpoint}/file && {FLISTFS} seal out.flist
    """
    done = subprocess.run(
        ["unshare", "--uts", "bash", "-euc", script], env=home.environment(), check=False, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    raw = gzip.decompress((home.path / "out.flist").read_bytes())
    assert b"4243" in raw  # else it is packed so that nothing could be found in it
    for secret in (HOST, str(home.path), str(mountpoint), str(Path.cwd())):
        assert secret.encode() not in raw, secret


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
@both_formats
def test_names_of_this_machines_accounts_stay_out(home: Home, mountpoint: Path) -> None:
    account = next(account for account in pwd.getpwall() if account.pw_uid not in {0, 65534})
    home.run("mount", mountpoint)
    (mountpoint / "file").touch()
    os.chown(mountpoint / "file", account.pw_uid, account.pw_gid)
    home.run("seal", "out.flist")
    node = read_sealed(home.path / "out.flist")[b"file"]
    assert (node.uname, node.gname) == (b"%d" % account.pw_uid, b"%d" % account.pw_gid)


@both_formats
def test_owner_option_gives_everything_to_somebody_else(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "etc").mkdir()
    (mountpoint / "etc/passwd").write_text("web:x:1234:99::/:/bin/sh\nbroken line\n")
    (mountpoint / "etc/group").write_text("www:x:99:\n")
    summary = home.json("seal", "out.flist", "--owner", "1234:99")
    nodes = read_sealed(home.path / "out.flist")
    assert {(node.uid, node.gid, node.uname, node.gname) for node in nodes.values()} == {
        (1234, 99, b"web", b"www")
    }
    assert summary["unrepresentable"]["owners"] == (len(nodes) if home.format == "rocksdb" else 0)


@both_formats
def test_root_may_have_another_name_in_the_tree(home: Home, mountpoint: Path) -> None:
    home.run("mount", mountpoint)
    (mountpoint / "etc").mkdir()
    (mountpoint / "etc/passwd").write_text("admin:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n")
    home.run("seal", "out.flist", "--owner", "0:0")
    root = read_sealed(home.path / "out.flist")[b""]
    assert (root.uname, root.gname) == (b"admin", b"root")


def test_old_rocksdb_tools_agree_with_the_package(home: Home, mountpoint: Path, tmp_path: Path) -> None:
    home.run("mount", mountpoint)
    for number in range(50):
        (mountpoint / str(number)).mkdir()
    home.run("seal", "out.flist")
    directory = tmp_path / "unpacked"
    directory.mkdir()
    shell('tar -xzf "$PACKAGE"', cwd=directory, PACKAGE=str(home.path / "out.flist"))
    assert "OK" in shell("ldb --db=. checkconsistency", cwd=directory)
    lines = subprocess.run(["ldb", f"--db={directory}", "scan", "--hex"], capture_output=True, check=True)
    assert len(lines.stdout.splitlines()) == 51 + 1  # directories, and the one ACI they share
