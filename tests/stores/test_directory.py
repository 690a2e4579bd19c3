"""What only the directory store does.

It is one file because all of it is about one store, and shares what stands in for its servers and disks.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from flistfs.errors import BlockMissingError, StoreError, StoreRefusedError
from flistfs.format.base import Block
from flistfs.stores import MAX_BLOCK_SIZE, directory
from flistfs.stores.directory import DirectoryStore
from tests.generation1 import CODEC
from tests.stores.blocks import block, blocks, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "parent" / "store"


@pytest.fixture
def store(root: Path) -> DirectoryStore:
    return DirectoryStore(root, CODEC)


def file_of(root: Path, stored: Block) -> Path:
    name = stored.hash.decode()
    return root / name[0] / name[1] / name


def files_in(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if not path.is_dir()}


def failing(code: int) -> Callable[..., NoReturn]:
    def fail(*_args: object, **_kwargs: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return fail


def test_nothing_is_made_before_it_is_needed(store: DirectoryStore, root: Path) -> None:
    assert store.missing([block().hash]) == {block().hash}
    store.sync()
    assert not root.parent.exists()


def test_the_directory_is_private_and_its_parents_are_not(store: DirectoryStore, root: Path) -> None:
    previous = os.umask(0o022)
    try:
        store.check()
    finally:
        os.umask(previous)
    assert root.stat().st_mode & 0o777 == 0o700
    assert root.parent.stat().st_mode & 0o777 == 0o755


def test_the_mode_of_a_directory_that_is_there_is_kept(root: Path) -> None:
    root.mkdir(parents=True)
    root.chmod(0o750)
    store = DirectoryStore(root, CODEC)
    store.check()
    store.put([block()])
    assert root.stat().st_mode & 0o777 == 0o750


def test_layout(store: DirectoryStore, root: Path) -> None:
    store.put([block()])
    assert files_in(root) == {file_of(root, block())}
    assert file_of(root, block()).read_bytes() == value_of(block())


def test_a_block_that_is_there_is_not_written_again(store: DirectoryStore, root: Path) -> None:
    store.put([block()])
    before = file_of(root, block()).stat()
    store.put([block()])
    after = file_of(root, block()).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_block_is_compared_once_a_boot(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, right, wrong = blocks(3)
    store.put([written, right, wrong])
    names = [written.hash, right.hash, wrong.hash]
    read: list[str] = []
    real = directory._read

    def watched(file: str) -> bytes:
        read.append(file)
        return real(file)

    monkeypatch.setattr(directory, "_read", watched)
    assert store.wrong(names, thorough=False) == set()
    assert read == []  # it was written by the store itself, a moment ago
    file_of(root, wrong).write_bytes(b"x" * wrong.size)
    yesterday = int(time.time()) - 10**9
    for one in (right, wrong):
        os.utime(file_of(root, one), (yesterday, yesterday))
    for _ in range(2):  # what is wrong stays so, what is right is not read again
        assert store.wrong(names, thorough=False) == {wrong.hash}
    assert sorted(read) == sorted(str(file_of(root, one)) for one in (right, wrong, wrong))
    assert file_of(root, right).stat().st_mtime > yesterday
    store.put([wrong])
    assert store.get(wrong.hash) == value_of(wrong)
    read.clear()
    assert store.wrong(names, thorough=False) == set()
    assert read == []
    assert store.wrong(names, thorough=True) == set()
    assert len(read) == 3


def test_a_block_that_somebody_wrote_into_is_compared(store: DirectoryStore, root: Path) -> None:
    store.put([block()])
    with file_of(root, block()).open("r+b") as file:
        file.seek(50)
        file.write(b"changed")
    assert store.missing([block().hash], {block().hash: block().size}) == set()
    assert store.wrong([block().hash], thorough=False) == {block().hash}


def test_what_the_disk_cannot_read_any_more_is_wrong_and_written_anew(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put([block()])
    before = file_of(root, block()).stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr(directory, "_read", failing(errno.EIO))
        assert store.wrong([block().hash], thorough=True) == {block().hash}
        store.put([block()])
    assert file_of(root, block()).stat().st_ino != before
    assert store.get(block().hash) == value_of(block())


@pytest.fixture
def whole_seconds(tmp_path: Path) -> Iterator[Path]:
    """A file system whose times are whole seconds: inodes of 128 bytes have no room for more."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to mount a disk")
    image, mountpoint = tmp_path / "disk", tmp_path / "mounted"
    mountpoint.mkdir()
    with image.open("wb") as disk:
        disk.truncate(8 << 20)
    try:
        subprocess.run(
            ["mkfs.ext4", "-q", "-I", "128", "-O", "^has_journal", image], check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("needs mkfs.ext4")
    mounted = subprocess.run(
        ["mount", "-o", "loop", image, mountpoint], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a disk here: {mounted.stderr}")
    try:
        yield mountpoint
    finally:
        subprocess.run(["umount", mountpoint], check=True)


def test_whole_seconds_are_no_sign_of_a_block_that_was_compared(
    whole_seconds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(whole_seconds / "store", CODEC)
    right, changed = blocks(2)
    store.put([right, changed])
    file = file_of(whole_seconds / "store", changed)
    file.write_bytes(b"x" * changed.size)
    assert file.stat().st_mtime_ns % 10**9 == 0
    assert store.wrong([right.hash, changed.hash], thorough=False) == {changed.hash}
    monkeypatch.setattr(directory, "_read", failing(errno.EIO))
    assert store.wrong([right.hash], thorough=False) == set()  # unread


def test_a_time_that_was_put_back_says_nothing(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cp -p`, `rsync -a` and `touch -r` do that."""
    monkeypatch.setattr(directory, "_booted", lambda: 0.0)
    store.put([block()])
    file = file_of(root, block())
    compared = file.stat().st_mtime_ns - 100 * 10**9  # as if it was so long ago
    file.write_bytes(b"x" * block().size)
    os.utime(file, ns=(compared, compared))
    assert store.wrong([block().hash], thorough=False) == {block().hash}


@pytest.mark.parametrize("clock", ["booted", "time"])
def test_what_was_compared_in_another_boot_or_in_the_future_is_compared(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    store.put([block()])
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr(directory, "_read", failing(errno.EIO))
        assert store.wrong([block().hash], thorough=False) == set()  # unread
        if clock == "booted":
            patch.setattr(directory, "_booted", lambda: now + 100)
        else:
            patch.setattr(time, "time", lambda: now - 100)
        assert store.wrong([block().hash], thorough=False) == {block().hash}


@pytest.mark.parametrize("seconds", [10**9, -(10**9)])
def test_a_time_of_another_boot_or_of_the_future_says_nothing(
    store: DirectoryStore, root: Path, seconds: int
) -> None:
    store.put([block()])
    file = file_of(root, block())
    file.write_bytes(b"x" * block().size)
    other = int(time.time()) + seconds
    os.utime(file, (other, other))
    assert store.wrong([block().hash], thorough=False) == {block().hash}


def test_a_file_that_may_not_be_marked_is_compared_again(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put([block()])
    file_of(root, block()).write_bytes(value_of(block()))
    monkeypatch.setattr(directory, "_note_compared", failing(errno.EPERM))
    assert store.wrong([block().hash], thorough=False) == set()


def test_what_a_power_cut_left_is_replaced(store: DirectoryStore, root: Path) -> None:
    empty, short = block(seed=1), block(seed=2)
    store.put([empty, short])
    os.truncate(file_of(root, empty), 0)
    os.truncate(file_of(root, short), 10)
    assert store.missing([empty.hash]) == {empty.hash}
    with pytest.raises(BlockMissingError):
        store.get(empty.hash)
    store.put([empty, short])
    assert [store.get(one.hash) for one in (empty, short)] == [value_of(empty), value_of(short)]


@pytest.mark.parametrize(
    "name",
    [
        b"",
        b"..",
        b"../../../etc/passwd",
        b"/etc/passwd",
        b"ab",
        b"AB" * 32,
        b"ab" * 31 + b"\n/",
        b"\xff" * 16,
    ],
)
def test_names_that_are_not_hashes_are_refused(store: DirectoryStore, root: Path, name: bytes) -> None:
    for attempt in (
        lambda: store.get(name),
        lambda: store.missing([name]),
        lambda: store.put([Block(name, b"", (b"value",))]),
    ):
        with pytest.raises(StoreRefusedError, match="lower-case hex"):
            attempt()
    assert not root.exists()


def test_a_name_with_a_line_end_is_refused(store: DirectoryStore) -> None:
    with pytest.raises(StoreRefusedError):
        store.get(b"ab" * 32 + b"\n")


def test_a_file_that_is_no_block_is_not_read(store: DirectoryStore, root: Path) -> None:
    huge = file_of(root, block(seed=1))
    huge.parent.mkdir(parents=True)
    with huge.open("wb") as sparse:
        sparse.truncate(MAX_BLOCK_SIZE * 1000)
    with pytest.raises(StoreError, match="too large"):
        store.get(block(seed=1).hash)
    link = file_of(root, block(seed=2))
    link.parent.mkdir(parents=True)
    link.symlink_to("/etc/passwd")
    assert store.missing([block(seed=2).hash]) == {block(seed=2).hash}
    with pytest.raises(StoreError):
        store.get(block(seed=2).hash)


@pytest.mark.parametrize("call", ["writev", "open", "rename"])
def test_a_failing_disk(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store.put([block(seed=1)])
    with monkeypatch.context() as patch:
        patch.setattr(os, call, failing(errno.ENOSPC))
        with pytest.raises(StoreRefusedError, match="disk is full") as caught:
            store.put([block(seed=2)])
    assert str(root) in str(caught.value)
    assert files_in(root) == {file_of(root, block(seed=1))}
    store.put([block(seed=2)])
    assert store.get(block(seed=2).hash) == value_of(block(seed=2))


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (errno.EDQUOT, StoreRefusedError, "quota"),
        (errno.EROFS, StoreRefusedError, "read-only"),
        (errno.EACCES, StoreRefusedError, "permission denied"),
        (errno.EIO, StoreError, "Input/output error"),
    ],
)
def test_what_is_said_of_an_error(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[StoreError], text: str
) -> None:
    monkeypatch.setattr(os, "writev", failing(code))
    with pytest.raises(StoreError, match=text) as caught:
        store.put([block()])
    assert type(caught.value) is kind


def test_a_really_full_disk(store: DirectoryStore) -> None:
    # /dev/full is a disk that is full whenever it is written to.
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError, match="No space"):  # noqa: PTH123
        directory._write_all(full.fileno(), block().parts)


def test_short_writes_are_continued(
    store: DirectoryStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.writev
    monkeypatch.setattr(os, "writev", lambda descriptor, views: real(descriptor, [views[0][:7]]))
    store.put([block(1000)])
    assert store.get(block(1000).hash) == value_of(block(1000))


def test_a_failed_flush_is_reported(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.check()
    monkeypatch.setattr(directory, "_syncfs", failing(errno.EIO))
    with pytest.raises(StoreError, match="cannot flush"):
        store.sync()


def test_syncfs_reports_what_the_kernel_says() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        directory._syncfs(-1)


def test_old_leftovers_are_swept_and_young_ones_kept(root: Path) -> None:
    tmp = root / "tmp"
    tmp.mkdir(parents=True)
    old, young = tmp / "old", tmp / "young"
    old.touch()
    young.touch()
    yesterday = time.time() - 25 * 3600
    os.utime(old, (yesterday, yesterday))
    DirectoryStore(root, CODEC)
    assert files_in(root) == {young}


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "store"):
        store = DirectoryStore(path, CODEC)
        with pytest.raises(StoreRefusedError, match="not a directory"):
            store.check()
        with pytest.raises(StoreRefusedError, match="not a directory"):
            store.put([block()])


def test_a_store_that_vanished_is_made_again(store: DirectoryStore, root: Path) -> None:
    store.put([block(seed=1)])
    root.rename(root.with_name("moved"))
    store.put([block(seed=2)])
    assert files_in(root) == {file_of(root, block(seed=2))}


def _put_all(root: Path, sizes: int) -> None:
    DirectoryStore(root, CODEC).put(blocks(60, sizes))


def test_several_processes(root: Path) -> None:
    context = multiprocessing.get_context("spawn")  # pytest has threads: no fork
    processes = [context.Process(target=_put_all, args=(root, 5000)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert files_in(root) == {file_of(root, one) for one in blocks(60, 5000)}
    assert all(DirectoryStore(root, CODEC).get(one.hash) == value_of(one) for one in blocks(60, 5000))


# Links that somebody has planted


@pytest.mark.parametrize("depth", [1, 2])
def test_a_link_in_the_place_of_a_directory_is_not_followed(
    store: DirectoryStore, root: Path, tmp_path: Path, depth: int
) -> None:
    store.put([block()])
    planted = file_of(root, block()).parents[2 - depth]
    planted.rename(tmp_path / "elsewhere")
    planted.symlink_to(tmp_path / "elsewhere")
    before = files_in(tmp_path / "elsewhere")
    for use in (
        lambda: store.missing([block().hash]),
        lambda: store.get(block().hash),
        lambda: store.put([block()]),
    ):
        with pytest.raises(StoreRefusedError, match=f"{planted} is a symbolic link"):
            use()
    assert files_in(tmp_path / "elsewhere") == before


def plant_link(path: Path, elsewhere: Path) -> None:
    elsewhere.write_bytes(value_of(block()))
    path.symlink_to(elsewhere)


@pytest.mark.parametrize(
    "plant",
    [plant_link, lambda path, _: os.mkfifo(path), lambda path, _: path.symlink_to("/dev/zero")],
    ids=["link", "pipe", "device"],
)
def test_what_is_no_file_in_the_place_of_a_block_is_none(
    store: DirectoryStore, root: Path, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    store.put([block()])
    file = file_of(root, block())
    file.unlink()
    plant(file, tmp_path / "elsewhere")
    assert store.missing([block().hash]) == {block().hash}
    with pytest.raises(BlockMissingError):
        store.get(block().hash)
    store.put([block()])
    assert not file.is_symlink()
    assert store.get(block().hash) == value_of(block())


def test_a_link_in_the_place_of_the_directory_for_writing_is_not_followed(root: Path, tmp_path: Path) -> None:
    DirectoryStore(root, CODEC).check()
    precious = tmp_path / "elsewhere" / "precious"
    precious.parent.mkdir()
    precious.touch()
    os.utime(precious, (0, 0))  # older than what is swept away
    (root / "tmp").symlink_to(precious.parent)
    store = DirectoryStore(root, CODEC)
    assert precious.exists()
    with pytest.raises(StoreRefusedError, match="tmp is a symbolic link"):
        store.put([block()])
    assert list(precious.parent.iterdir()) == [precious]
