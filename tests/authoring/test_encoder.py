"""Chunks become blocks, in this process or another, and what was encoded before is not encoded again."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from flistfs.authoring.upload.encoder import LocalEncoder, StoredChunk
from flistfs.authoring.upload.encoder_process import EncoderProcess, Settings, SpareProcesses
from flistfs.authoring.upload.known_blocks import Known, KnownBlocks
from flistfs.errors import StoreUnavailableError
from flistfs.sources.data import BytesSource, FileSource, Source, SpoolSource, Unreadable, file_version
from flistfs.stores.directory import DirectoryStore
from flistfs.tree.chunks import BlockRef
from tests.generation1 import CODEC, decode_block, encode_block, open_store


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "blocks", CODEC)


def content_of(store: DirectoryStore, result: object) -> bytes:
    assert isinstance(result, StoredChunk)
    return decode_block(store.get(result.hash), BlockRef(result.hash, result.key))


def source_of(path: Path, offset: int = 0) -> FileSource:
    status = path.stat()
    return FileSource(os.fsencode(path), offset, status.st_size - offset, file_version(status))


def test_chunks_from_everywhere(store: DirectoryStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    with (tmp_path / "spool").open("wb+") as spool:
        spool.write(b"in the spool")
        spool.flush()
        encoder = LocalEncoder(store, spool.fileno(), KnownBlocks())
        sources: list[Source] = [
            SpoolSource(3, 3),
            SpoolSource(7, 9),
            source_of(tmp_path / "file", 4),
            BytesSource(b"bytes"),
        ]
        results = encoder.store(sources).results
    # What lies behind the end of the spool reads as zeros, as a hole does.
    wanted = [b"the", b"spool" + bytes(4), b"456789", b"bytes"]
    assert [content_of(store, result) for result in results] == wanted


def test_equal_chunks_are_new_once(store: DirectoryStore) -> None:
    encoder = LocalEncoder(store, -1, KnownBlocks())
    chunks = [BytesSource(b"same"), BytesSource(b"other"), BytesSource(b"same")]
    for new in ([True, True, False], [False, False, False]):
        results = encoder.store(chunks).results
        assert [result.is_new for result in results if isinstance(result, StoredChunk)] == new


@pytest.mark.parametrize("change", ["content", "size", "gone", "link", "fifo"])
def test_a_file_that_changed_is_no_chunk(store: DirectoryStore, tmp_path: Path, change: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    source = source_of(path)
    time.sleep(0.01)  # so that its time is another
    match change:
        case "content":
            path.write_bytes(b"CONTENT")
        case "size":
            path.write_bytes(b"content and more")
        case "gone":
            path.unlink()
        case "link":
            path.rename(tmp_path / "other")
            path.symlink_to("other")
        case _:
            path.unlink()
            os.mkfifo(path)
    (result,) = LocalEncoder(store, -1, KnownBlocks()).store([source]).results
    assert isinstance(result, Unreadable)


def test_what_is_known_is_not_encoded_again(store: DirectoryStore, tmp_path: Path) -> None:
    large, small = BytesSource(os.urandom(100_000)), BytesSource(b"small")
    first = LocalEncoder(store, -1, KnownBlocks(tmp_path / "cache/known")).store([large, small])
    later = LocalEncoder(store, -1, KnownBlocks(tmp_path / "cache/known"))
    with patch.object(type(CODEC), "encode", side_effect=encode_block) as encoding:
        second = later.store([large, small])
        third = later.store([large, small])
    assert [call.args[0] for call in encoding.call_args_list] == [b"small"]
    assert second.results == third.results
    assert [result[:3] for result in second.results] == [result[:3] for result in first.results]


def test_what_is_known_but_not_in_the_store_is_stored(tmp_path: Path) -> None:
    large = BytesSource(os.urandom(100_000))
    for name in ("one", "other"):
        store = DirectoryStore(tmp_path / name, CODEC)
        (result,) = LocalEncoder(store, -1, KnownBlocks(tmp_path / "known")).store([large]).results
        assert content_of(store, result) == large.data


def spoil(store: DirectoryStore, name: bytes) -> Path:
    """Change a block's bytes, not its size, some years ago."""
    path = Path(store.url.removeprefix("dir://"), chr(name[0]), chr(name[1]), name.decode())
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, (10**9, 10**9))
    return path


@pytest.mark.parametrize("check_content", [False, True])
def test_what_is_there_but_wrong_is_replaced(
    store: DirectoryStore, tmp_path: Path, *, check_content: bool
) -> None:
    chunks = [
        BytesSource(os.urandom(100_000)),
        BytesSource(b"small"),
        BytesSource(b"right"),
        BytesSource(b"new"),
    ]
    known = tmp_path / "known"
    first = LocalEncoder(store, -1, KnownBlocks(known)).store(chunks[:3]).results
    for result in first[:2]:
        assert isinstance(result, StoredChunk)
        spoil(store, result.hash)
    encoder = LocalEncoder(store, -1, KnownBlocks(known))
    results = encoder.store([*chunks, chunks[0]], check_content=check_content).results
    kinds = [(result.is_new, result.replaced) for result in results if isinstance(result, StoredChunk)]
    assert kinds == [(True, True), (True, True), (False, False), (True, False), (False, False)]
    assert [content_of(store, result) for result in results[:4]] == [chunk.data for chunk in chunks]


def test_a_block_that_could_not_be_replaced_is_compared_again(store: DirectoryStore) -> None:
    encoder = LocalEncoder(store, -1, KnownBlocks())
    chunk = BytesSource(b"chunk")
    (result,) = encoder.store([chunk]).results
    assert isinstance(result, StoredChunk)
    spoil(store, result.hash)
    with (
        patch.object(store, "put", side_effect=StoreUnavailableError("down")),
        pytest.raises(StoreUnavailableError),
    ):
        encoder.store([chunk], check_content=True)
    (result,) = encoder.store([chunk], check_content=True).results
    assert isinstance(result, StoredChunk)
    assert result.replaced


def test_each_batch_is_compared_if_it_is_to_be(store: DirectoryStore) -> None:
    encoder = LocalEncoder(store, -1, KnownBlocks())
    chunk = BytesSource(b"chunk")
    encoder.store([chunk])
    with patch.object(store, "wrong", wraps=store.wrong) as comparing:
        for wish in (True, False, True):
            encoder.store([chunk, chunk], check_content=wish)
    assert [call.kwargs["thorough"] for call in comparing.call_args_list] == [True, False, True]


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b""])
def test_a_damaged_database_is_begun_anew(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "known"
    path.write_bytes(damage)
    chunks = {b"key": bytes(100_000)}
    KnownBlocks(path).note(chunks, {b"key": Known(b"hash", 7)})
    assert KnownBlocks(path).find(chunks) == {b"key": Known(b"hash", 7)}


def test_a_database_that_is_locked_costs_only_knowledge(tmp_path: Path) -> None:
    path = tmp_path / "known"
    chunks = {b"key": bytes(100_000)}
    known = KnownBlocks(path)
    with sqlite3.connect(path) as other:
        other.execute("BEGIN EXCLUSIVE")
        known.note(chunks, {b"key": Known(b"hash", 7)})
    other.close()
    assert known.find(chunks) == {b"key": Known(b"hash", 7)}
    assert KnownBlocks(path).find(chunks) == {}


def test_the_database_stays_within_bounds(tmp_path: Path) -> None:
    path = tmp_path / "known"
    with patch("flistfs.authoring.upload.known_blocks._MAX_ROWS", 100):
        known = KnownBlocks(path)
        chunks = {b"%d" % number: bytes(1 << 16) for number in range(300)}
        known.note(chunks, {key: Known(key, 1) for key in chunks})
        again = KnownBlocks(path).find(chunks)
    assert 0 < len(again) <= 100
    assert b"299" in again


def test_a_process_does_the_same_and_may_die(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "blocks", CODEC)
    with (tmp_path / "spool").open("wb+") as spool:
        spool.write(b"chunk")
        spool.flush()
        process = EncoderProcess(Settings(store.url, "rocksdb", None), spool.fileno(), SpareProcesses())
        (result,) = process.store([SpoolSource(0, 5)]).results
        assert content_of(store, result) == b"chunk"
        assert process._running is not None
        os.kill(process._running.process.pid, signal.SIGKILL)
        with pytest.raises(StoreUnavailableError, match="has ended"):
            process.store([SpoolSource(0, 5)])
        (result,) = process.store([SpoolSource(0, 5)]).results
        assert isinstance(result, StoredChunk)
        assert not result.is_new
        process.close()
        with pytest.raises(StoreUnavailableError):
            process.store([SpoolSource(0, 5)])


def test_a_process_hands_on_what_the_store_says(tmp_path: Path) -> None:
    with (tmp_path / "spool").open("wb+") as spool:
        process = EncoderProcess(
            Settings("redis://127.0.0.1:1", "rocksdb", "secret"), spool.fileno(), SpareProcesses()
        )
        with pytest.raises(StoreUnavailableError, match="cannot reach"):
            process.store([SpoolSource(0, 5)])
        assert process._running is not None
        arguments = Path(f"/proc/{process._running.process.pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{process._running.process.pid}/environ").read_bytes()
        assert b"secret" not in arguments + environment
        process.close()
    assert "secret" not in repr(Settings("redis://host", "rocksdb", "secret"))
    assert open_store("redis://host", "secret").url == "redis://host:6379"


def failing_python(directory: Path) -> Path:
    python = directory / "python"
    python.write_text(
        "#!/bin/sh\necho Traceback >&2\necho 'ImportError: no module named flistfs' >&2\nexit 1\n"
    )
    python.chmod(0o755)
    return python


@pytest.mark.parametrize("kind", ["missing", "failing", "unable"])
def test_a_process_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    settings = Settings(f"dir://{tmp_path}/blocks", "rocksdb", None)
    match kind:
        case "missing":
            monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
            why = f"No such file or directory: '{tmp_path}/python'"
        case "failing":
            monkeypatch.setattr("sys.executable", str(failing_python(tmp_path)))
            why = "ImportError: no module named flistfs"
        case _:
            settings = replace(settings, log=tmp_path / "nowhere/log")
            why = f"No such file or directory: '{tmp_path}/nowhere/log'"
    with (tmp_path / "spool").open("wb+") as spool:
        process = EncoderProcess(settings, spool.fileno(), SpareProcesses())
        for _ in range(2):  # the same each time, so that it is logged once
            with pytest.raises(StoreUnavailableError) as refused:
                process.store([SpoolSource(0, 5)])
            assert str(refused.value).startswith("the process that encodes cannot be started: ")
            assert str(refused.value).endswith(why)
        monkeypatch.undo()
        if kind == "unable":
            (tmp_path / "nowhere").mkdir()
        assert len(process.store([SpoolSource(0, 5)]).results) == 1
        process.close()
    assert capfd.readouterr().err == ""


def test_forked_processes_that_the_system_has_no_room_for_are_an_error(tmp_path: Path) -> None:
    """It leaves room for a descriptor that forking needs, and none for the next."""
    program = f"""
import os, resource
from flistfs.authoring.upload import encoder_process
from flistfs.format.rocksdb.generation1 import ROCKSDB
from flistfs.errors import StoreUnavailableError
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), 100))
try:
    encoder_process.prepare("dir://{tmp_path}/blocks", ROCKSDB.codec)
except StoreUnavailableError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "no process that encodes can be started: Too many open files (see ulimit -a)\n"


def test_encoders_take_what_was_forked_and_start_no_more(tmp_path: Path) -> None:
    """They can start none here. Those that nobody takes end with the object that holds them."""
    program = f"""
import os
from unittest.mock import patch
from flistfs.authoring.upload import encoder_process
from flistfs.format.rocksdb.generation1 import ROCKSDB
from flistfs.sources.data import SpoolSource
url = "dir://{tmp_path}/blocks"
spool = open("{tmp_path}/spool", "wb+")
spares = encoder_process.prepare(url, ROCKSDB.codec)
settings = encoder_process.Settings(url, "rocksdb", None)
first, second, third = encoder_process.make_encoders(settings, spares, spool.fileno())
with patch.object(encoder_process, "_start", side_effect=OSError("no more")):
    print(*(len(each.store([SpoolSource(0, 5)]).results) for each in (first, second)))
first.close()
second.close()
del spares, first, second, third
os.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("1 1\n", "")
