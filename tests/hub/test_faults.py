"""A hub whose clients go, whose processes die, and whose store fails: nothing is half published."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from tests.e2e.commands import wait_until
from tests.hub.conftest import TIMEOUT, RunningHub, archive, running_hub, said, uploaded
from tests.hub.killing import Campaign
from tests.redis_server import running_redis

LARGE = archive({"large": os.urandom(4 << 20)}, "w")


def packers(hub: RunningHub) -> list[int]:
    """The processes that pack uploads."""
    assert hub.process is not None
    found = []
    for children in Path(f"/proc/{hub.process.pid}/task").glob("*/children"):
        found += [int(pid) for pid in children.read_text().split()]
    return found


@contextmanager
def half_an_upload(
    hub: RunningHub, token: str, name: str = "half.tar", query: str = ""
) -> Iterator[socket.socket]:
    """An upload that stays where it is, in the middle of its archive."""
    body = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n' % name.encode()
        + LARGE[: 2 << 20]
    )
    head = (
        f"POST /api/flist/me/upload{query} HTTP/1.1\r\nHost: {hub.url.removeprefix('http://')}\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {len(body) + 99999999}\r\n\r\n"
    )
    host, port = hub.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), TIMEOUT) as plain:
        plain.sendall(head.encode() + body)
        yield plain


def test_a_client_that_goes_leaves_nothing(hub: RunningHub) -> None:
    with half_an_upload(hub, hub.tokens["alice"]):
        wait_until(lambda: len(packers(hub)) == 1, "the archive is being packed")
    wait_until(lambda: not packers(hub), "its process ends")
    wait_until(lambda: not list((hub.data / "incoming").iterdir()), "its files are gone")
    with hub.client() as client:
        assert client.get("/alice/half.flist").status_code == 404


def test_a_process_that_dies_ends_its_upload_alone(hub: RunningHub) -> None:
    with half_an_upload(hub, hub.tokens["alice"]) as plain:
        wait_until(lambda: len(packers(hub)) == 1, "the archive is being packed")
        os.kill(packers(hub)[0], signal.SIGKILL)
        plain.shutdown(socket.SHUT_WR)
        assert plain.recv(65536).startswith((b"HTTP/1.1 400", b"HTTP/1.1 500"))
    with hub.client("alice") as client:
        assert client.get("/alice/half.flist").status_code == 404
        assert uploaded(client, archive({"a": b"b"}), "after.tar.gz")["name"] == "after.flist"


def test_uploads_wait_for_each_other_and_nothing_else_does(tmp_path: Path) -> None:
    with running_hub(tmp_path, "--jobs", "1") as hub, hub.client("bob") as client:
        with ExitStack() as held:
            for name in ("alice", "bob"):
                held.enter_context(half_an_upload(hub, hub.tokens[name]))
            wait_until(lambda: len(packers(hub)) == 1, "one is being packed")
            assert client.get("/api/flist").json() == []
            assert client.get("/healthz").status_code == 200
            assert len(packers(hub)) == 1
        assert uploaded(client, archive({"a": b"b"}), "third.tar.gz")["name"] == "third.flist"


def test_a_hub_ends_whatever_is_at_work(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub:
        with half_an_upload(hub, hub.tokens["alice"]):
            wait_until(lambda: len(packers(hub)) == 1, "the archive is being packed")
            hub.stop()
        assert not (hub.data / "users/alice").exists()
        hub.start()


def test_an_upload_may_be_too_large(tmp_path: Path) -> None:
    with running_hub(tmp_path, "--max-upload", "1M") as hub, hub.client("alice") as client:
        answer = client.post("/api/flist/me/upload", files={"file": ("a.tar", LARGE)})
        assert said(answer, 413) == "the upload is too large"
        assert not list((hub.data / "incoming").iterdir())


def test_a_store_that_is_gone(tmp_path: Path) -> None:
    with (
        running_redis() as redis,
        running_hub(tmp_path, "--store", redis.url) as hub,
        hub.client("alice") as client,
    ):
        uploaded(client, archive({"a": b"b"}), "a.tar.gz")
        package = client.get("/alice/a.flist").content
        redis.stop()
        sent = {"file": ("b.flist", package)}
        assert "store" in said(client.post("/api/flist/me/upload-flist", files=sent), 503)
        assert client.get("/alice/a.flist").status_code == 200
        assert client.get("/alice/b.flist").status_code == 404
        redis.start()


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /api/flist HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /api/flist HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_no_request(hub: RunningHub, request_: bytes) -> None:
    host, port = hub.url.removeprefix("http://").split(":")
    answer = b""
    # The server may close before all is sent.
    with socket.create_connection((host, int(port)), TIMEOUT) as plain, suppress(OSError):
        plain.sendall(request_)
        plain.shutdown(socket.SHUT_WR)
        answer = plain.recv(65536)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200"))
    with hub.client() as client:
        assert client.get("/healthz").status_code == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk(tmp_path: Path) -> None:
    """An upload that does not fit leaves nothing, and the hub goes on."""
    (tmp_path / "hub").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12M,mode=700", "none", tmp_path / "hub"], check=True)
    try:
        with running_hub(tmp_path, "--timeout", "1") as hub, hub.client("alice") as client:
            before = uploaded(client, archive({"a": b"before"}), "a.tar.gz")
            too_large = {"file": ("b.tar", archive({"large": os.urandom(24 << 20)}, "w"))}
            answer = client.post("/api/flist/me/upload", files=too_large)
            assert said(answer, 500) == "the flist could not be stored; try again later"
            package = {"file": ("c.flist", os.urandom(24 << 20))}
            full = client.post("/api/flist/me/upload-flist", files=package)
            assert said(full, 507) == "the hub's disk is full; try again later"
            assert [each["name"] for each in client.get("/api/flist/alice").json()] == [before["name"]]
            assert not list((hub.data / "incoming").iterdir())
    finally:
        subprocess.run(["umount", "-l", tmp_path / "hub"], check=True)


def test_kills(tmp_path: Path) -> None:
    Campaign(tmp_path, random.Random(1)).run(3)
