"""A sealed flist, mounted read-only: what is in it, through the kernel."""

from __future__ import annotations

import errno
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flistfs.format.zeroos.records import Aci, File, encode_aci
from flistfs.fuse import mounts
from flistfs.tree.chunks import CHUNK_SIZE
from tests.e2e.commands import Home, is_mounted, umount, wait_until
from tests.generation1 import directory_key, open_store
from tests.needs import needs_old_flist
from tests.reading.making import DIR, Item, Records, change_entry, packed, records_of
from tests.redis_server import running_redis
from tests.snapshots import snapshot
from tests.trees import SECOND

BIG = os.urandom(5 * CHUNK_SIZE + 77)
_TREE = {
    b"": Item("dir", mode=0o755, size=4096, mtime=5),
    b"big": Item(what=BIG, mtime=6),
    b"empty": Item(),
    b"dir": Item("dir", mode=0o1777, size=4096),
    b"dir/odd\n\xff": Item(what=b"content", mode=0o4755),
    b"link": Item("link", b"dir/odd\n\xff", mode=0o777),
    b"pipe": Item("fifo"),
    b"null": Item("char", b"1,3"),
    **{b"dir/%04d" % number: Item() for number in range(2000)},
}

# As who runs the tests.
TREE = {path: replace(item, uid=os.geteuid(), gid=os.getegid()) for path, item in _TREE.items()}


def _ended(home: Home) -> bool:
    """Whether the process that served has ended well: it takes its log away then."""
    return not list((home.path / "state/flistfs/readers").glob("*.log"))


def test_everything_is_there_and_nothing_can_be_changed(home: Home, mountpoint: Path) -> None:
    package = packed(home.path / "a.flist", records_of(TREE, open_store(f"dir://{home.blocks}")))
    answer = home.json("mount", "--read-only", package, mountpoint)
    assert answer["package"] == str(package)
    found = snapshot(mountpoint)
    assert set(found) == set(TREE)
    for path, snap in found.items():
        item = TREE[path]
        assert (snap.kind, snap.mode) == ("dir" if item.kind == "dir" else item.kind, item.mode), path
        assert (snap.uid, snap.gid, snap.mtime_ns) == (item.uid, item.gid, item.mtime * SECOND), path
    assert found[b"null"].device == (1, 3)
    assert (mountpoint / "big").read_bytes() == BIG
    assert (mountpoint / "link").read_bytes() == b"content"
    with (mountpoint / "big").open("rb") as file:
        for offset in (5 * CHUNK_SIZE, CHUNK_SIZE - 3, 0, 3 * CHUNK_SIZE + 1, len(BIG) - 1):
            file.seek(offset)
            assert file.read(10) == BIG[offset : offset + 10]
    changes: list[Callable[[], object]] = [
        (mountpoint / "new").touch,
        lambda: (mountpoint / "empty").write_text("x"),
        (mountpoint / "empty").unlink,
        (mountpoint / "dir").rmdir,
        lambda: (mountpoint / "big").chmod(0o600),
        lambda: os.utime(mountpoint / "big", (0, 0)),
    ]
    for change in changes:
        with pytest.raises(OSError, match="Read-only") as caught:
            change()
        assert caught.value.errno == errno.EROFS
    umount(mountpoint)
    wait_until(lambda: _ended(home), "the reader ends")
    assert home.listed("status") == []


def test_the_cache_is_bounded_and_content_right_all_the_same(home: Home, mountpoint: Path) -> None:
    package = packed(home.path / "a.flist", records_of(TREE, open_store(f"dir://{home.blocks}")))
    home.run("mount", "--read-only", package, mountpoint, "--cache-size", "1")
    assert (mountpoint / "big").read_bytes() == BIG
    umount(mountpoint)
    wait_until(lambda: _ended(home), "the reader ends")


def test_the_real_flist_can_be_walked(home: Home, mountpoint: Path) -> None:
    home.run("mount", "--read-only", needs_old_flist(), mountpoint)
    assert sum(len(names) + len(files) for _, names, files in os.walk(mountpoint)) == 11_943
    assert (mountpoint / "bin/sh").readlink() == Path("dash")
    with pytest.raises(OSError, match="Input/output error"):
        (mountpoint / "etc/passwd").read_bytes()
    (log,) = (home.path / "state/flistfs/readers").glob("*.log")
    assert "etc/passwd cannot be read" in log.read_text()
    umount(mountpoint)
    wait_until(lambda: _ended(home), "the reader ends")


def test_blocks_come_when_they_are_read_and_again_when_the_store_is_back(
    home: Home, mountpoint: Path
) -> None:
    with running_redis("--appendonly", "yes", password="secret") as server:
        package = packed(home.path / "a.flist", records_of(TREE, open_store(server.url)))
        server.stop()
        mount: list[str | Path] = ["mount", "--read-only", package, mountpoint, "--store", server.url]
        assert "cannot reach" in home.run(*mount, code=3).stderr
        home.run(*mount, "--offline")
        assert (mountpoint / "empty").read_bytes() == b""
        with pytest.raises(OSError, match="Input/output error"):
            (mountpoint / "big").read_bytes()
        server.start()
        assert (mountpoint / "big").read_bytes() == BIG
        assert "secret" not in next((home.path / "state/flistfs/readers").glob("*.log")).read_text()
        umount(mountpoint)
        wait_until(lambda: _ended(home), "the reader ends")


def test_a_file_that_would_hang_readers_is_an_error(home: Home, mountpoint: Path) -> None:
    records = records_of({b"a": Item(what=b"x"), b"b": Item(), b"d": DIR})
    change_entry(records, b"a", lambda entry: replace(entry, attributes=File(())))
    change_entry(records, b"b", lambda entry: replace(entry, name=b"d/../x"))
    home.run("mount", "--read-only", packed(home.path / "a.flist", records), mountpoint)
    assert sorted(path.name for path in mountpoint.iterdir()) == ["a", "d"]
    with pytest.raises(OSError, match="Input/output error"):
        (mountpoint / "a").read_bytes()
    umount(mountpoint)
    wait_until(lambda: _ended(home), "the reader ends")


def test_set_id_bits_are_shown_only_where_the_owner_is_known(home: Home, mountpoint: Path) -> None:
    records = records_of({name: Item(mode=0o6755) for name in (b"known", b"unknown", b"impossible")})
    for name, key, aci in (
        (b"unknown", b"1" * 32, Aci(b"nobody-of-that-name", b"root", 0o106755)),
        (b"impossible", b"2" * 32, Aci(b"root", b"root", 0o106755, uid=2**32 - 1, gid=2**40)),
    ):
        records[key] = encode_aci(aci)
        change_entry(records, name, lambda entry, key=key: replace(entry, aclkey=key))  # type: ignore[misc]
    home.run("mount", "--read-only", packed(home.path / "a.flist", records), mountpoint)
    found = {path.name: path.stat() for path in mountpoint.iterdir()}
    assert {name: stat.S_IMODE(each.st_mode) for name, each in found.items()} == {
        "known": 0o6755,
        "unknown": 0o755,
        "impossible": 0o755,
    }
    assert (found["impossible"].st_uid, found["impossible"].st_gid) == (65534, 65534)
    umount(mountpoint)
    wait_until(lambda: _ended(home), "the reader ends")


def _damaged_owner(records: Records) -> None:
    (key,) = (key for key in records if len(key) == 32)
    records[key] = records[key][:-8]


def _damaged_list(records: Records) -> None:
    raw = bytearray(records[directory_key(b"")])
    raw[8:16] = b"\xff" * 8
    records[directory_key(b"")] = bytes(raw)


@pytest.mark.parametrize(
    "damage", [_damaged_owner, _damaged_list, lambda records: records.pop(directory_key(b""))]
)
def test_a_damaged_root_is_not_mounted(
    home: Home, mountpoint: Path, damage: Callable[[Records], object]
) -> None:
    records = records_of({})
    damage(records)
    package = packed(home.path / "a.flist", records)
    refused = home.run("mount", "--read-only", package, mountpoint, code=8)
    assert "damaged" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not is_mounted(mountpoint)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_the_foreground(home: Home, mountpoint: Path, number: signal.Signals) -> None:
    package = packed(home.path / "a.flist", records_of(TREE))
    with home.started("mount", "--foreground", "--read-only", package, mountpoint) as running:
        wait_until(lambda: is_mounted(mountpoint) or running.poll() is not None, "it is mounted")
        assert (mountpoint / "dir").is_dir()
        running.send_signal(number)
        _, said = running.communicate()
    assert running.returncode == 0, said
    assert not is_mounted(mountpoint)


def test_a_reader_that_was_killed_leaves_a_place_to_mount_again(home: Home, mountpoint: Path) -> None:
    package = packed(home.path / "a.flist", records_of(TREE))
    command: list[str | Path] = ["mount", "--foreground", "--read-only", package, mountpoint]
    with home.started(*command, env={"TMPDIR": str(home.path)}) as running:  # it cannot clean up
        wait_until(lambda: is_mounted(mountpoint), "it is mounted")
        running.kill()
    assert mounts.is_dead(mountpoint)
    home.run("mount", "--read-only", package, mountpoint)
    assert (mountpoint / "dir").is_dir()
    umount(mountpoint)
    wait_until(lambda: _ended(home), "the reader ends")


def test_what_cannot_be_mounted_is_refused_in_one_line(home: Home, mountpoint: Path) -> None:
    (home.path / "none.flist").write_text("not a readable flist")
    package = packed(home.path / "a.flist", records_of(TREE))
    refusals: list[tuple[list[str | Path], int, str]] = [
        (["--read-only", "none.flist", mountpoint], 8, "not a readable flist"),
        (["--read-only", package, mountpoint / "no"], 4, "not there"),
        (["--read-only", package, mountpoint, "--seal-to", "x"], 2, "belongs to a session"),
        (["--read-only", package, mountpoint, "--router", "x"], 2, "belongs to a session"),
        (["--read-only", package, mountpoint, "--public-url", "ardb://x"], 2, "belongs to a session"),
        (["--read-only", package, mountpoint, "--min-replicas", "1"], 2, "belongs to a session"),
        (["--read-only", package, mountpoint, "--store", "nonsense"], 2, "nor a URL"),
        ([mountpoint, "--cache-size", "1M"], 2, "--read-only"),
    ]
    for arguments, code, said in refusals:
        refused = home.run("mount", *arguments, code=code)
        assert said in refused.stderr
        assert len(refused.stderr.splitlines()) == 1
    assert not is_mounted(mountpoint)
