"""The blocks of a hub, asked as a 0-db is asked."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from io import BufferedRWPair
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flistfs import stores
from flistfs.format.base import Block
from flistfs.format.opening import format_named, formats
from flistfs.hub.blocks import ProtocolError, Requests
from tests.hub.conftest import TIMEOUT, RunningHub

CHUNK = b"a chunk of some file" * 100


def spelled(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


@contextmanager
def connected(hub: RunningHub) -> Iterator[BufferedRWPair]:
    with (
        socket.create_connection(("127.0.0.1", hub.blocks_port), TIMEOUT) as plain,
        plain.makefile("rwb") as file,
    ):
        yield file


def asked(file: BufferedRWPair, *words: bytes) -> bytes:
    """The answer to one command: a line, or the string that it begins."""
    file.write(spelled(*words))
    file.flush()
    return answer(file)


def answer(file: BufferedRWPair) -> bytes:
    line = file.readline()
    if line.startswith(b"$") and not line.startswith(b"$-"):
        return file.read(int(line[1:]) + 2)[:-2]
    return line.rstrip()


@pytest.fixture(params=formats(), ids=lambda each: each.name)
def block(request: pytest.FixtureRequest) -> Block:
    return request.param.codec.encode(CHUNK)  # type: ignore[no-any-return]


def test_a_writer_writes_and_anybody_reads(hub: RunningHub, block: Block) -> None:
    token = hub.tokens["alice"].encode()
    with connected(hub) as file:
        assert asked(file, b"EXISTS", block.hash) == b":0"
        assert asked(file, b"GET", block.hash) == b"$-1"
        assert asked(file, b"SET", block.hash, block.stored) == b"-Authentication required"
        assert asked(file, b"AUTH", b"nobodys") == b"-Access denied"
        assert asked(file, b"AUTH", token) == b"+OK"
        assert asked(file, b"SELECT", b"default") == b"+OK"
        assert asked(file, b"SET", block.hash, block.stored) == block.hash  # as a 0-db says that it is new
        assert asked(file, b"SET", block.hash, block.stored) == b"$-1"
        assert asked(file, b"SET", block.hash, block.stored[:-1] + b"?").startswith(b"-Invalid key")
        assert asked(file, b"SET", b"any name", b"x").startswith(b"-Invalid key")
    with connected(hub) as file:
        assert asked(file, b"get", block.hash) == block.stored
        assert asked(file, b"EXISTS", block.hash, b"x" * 16, block.hash) == b":2"
        file.write(spelled(b"MGET", b"x" * 16, block.hash) + spelled(b"QUIT"))
        file.flush()
        assert [file.readline(), answer(file), answer(file), answer(file)] == [
            b"*2\r\n",
            b"$-1",
            block.stored,
            b"+OK",
        ]
        assert file.read() == b""
    with connected(hub) as file:
        assert asked(file, b"SELECT", b"default", token) == b"+OK"
        assert asked(file, b"SET", block.hash, block.stored) == b"$-1"


def test_a_token_to_read_does_not_write(hub: RunningHub, block: Block) -> None:
    token = hub.run("hub", "token", "new", "bob", "--scope", "read", "--data", hub.data).stdout.strip()
    with connected(hub) as file:
        assert asked(file, b"AUTH", token.encode()) == b"-Access denied"
        assert asked(file, b"SET", block.hash, block.stored) == b"-Authentication required"


def test_other_commands(hub: RunningHub) -> None:
    with connected(hub) as file:
        assert asked(file, b"PING") == b"+PONG"
        assert b"server_name: 0-db" in asked(file, b"INFO")
        assert asked(file, b"SELECT", b"other") == b"-Namespace not found"
        for command in (b"FLUSHDB", b"DEL", b"KEYS", b"CONFIG", b"\xff\n"):
            assert asked(file, command, b"x") == b"-Command not supported"
        for wrong in ([b"GET"], [b"GET", b"a", b"b"], [b"SET", b"a"], [b"AUTH"], [b"EXISTS"], [b"MGET"]):
            assert asked(file, *wrong) == b"-Invalid argument"
        for path in (b"../../accounts.sqlite3", b"/etc/passwd" + b"x" * 53, b".." * 32):
            assert asked(file, b"GET", path) == b"$-1"


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\n",
        b"*1025\r\n",
        b"*1\r\n$99999999\r\n",
        b"*1\r\n$-1\r\n",
        b"*" + b"1" * 99,
        b"*1\r\n$1\r\nxyz",
    ],
)
def test_what_is_no_request_ends_the_connection(hub: RunningHub, junk: bytes) -> None:
    with connected(hub) as file:
        file.write(junk)
        file.flush()
        assert file.readline().startswith(b"-Protocol error")
        assert file.read() == b""


def test_a_pipeline(hub: RunningHub, block: Block) -> None:
    with connected(hub) as file:
        asked(file, b"AUTH", hub.tokens["alice"].encode())
        asked(file, b"SET", block.hash, block.stored)
        file.write(spelled(b"GET", block.hash) * 500 + spelled(b"PING"))
        file.flush()
        assert all(answer(file) == block.stored for _ in range(500))
        assert answer(file) == b"+PONG"


@given(
    st.lists(st.lists(st.binary(max_size=20), min_size=1, max_size=4), max_size=6),
    st.lists(st.integers(1, 60), max_size=20),
)
def test_requests_arrive_in_any_pieces(requests: list[list[bytes]], sizes: list[int]) -> None:
    data = b"".join(spelled(*request) for request in requests)
    parser, found = Requests(), []
    for size in [*sizes, len(data)]:
        parser.feed(data[:size])
        data = data[size:]
        found += parser.take(2)
    while more := parser.take(2):
        found += more
    assert found == requests


@given(st.binary(max_size=200))
def test_any_bytes_are_requests_or_an_error(data: bytes) -> None:
    parser = Requests()
    parser.feed(data)
    with suppress(ProtocolError):
        assert all(parser.take(10))


def test_a_tree_is_packed_into_a_hub_and_mounted_from_it(hub: RunningHub, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "etc").mkdir(parents=True)
    (source / "etc/hosts").write_bytes(b"127.0.0.1 here\n")
    (source / "large").write_bytes(bytes(range(256)) * 9000)
    address = f"127.0.0.1:{hub.blocks_port}"
    package = tmp_path / "out.flist"
    refused = hub.run("pack", source, package, "--format", "sqlite", "--store", f"zdb://{address}", code=3)
    assert "Authentication required" in refused.stderr
    hub.run(
        "pack", source, package, "--format", "sqlite", "--store", f"zdb://:{hub.tokens['alice']}@{address}"
    )
    hub.run("verify", package, "--deep")
    assert hub.run("cat", package, "etc/hosts").stdout == "127.0.0.1 here\n"
    with hub.client("alice") as client:
        answer = client.post(
            "/api/flist/me/upload-flist", files={"file": ("mine.flist", package.read_bytes())}
        )
        assert answer.status_code == 200
    codec = format_named("sqlite").codec
    with closing(stores.open_store(f"zdb://{address}", codec, reading=True)) as store:
        store.check()
        assert store.missing([codec.no_block]) == {codec.no_block}
