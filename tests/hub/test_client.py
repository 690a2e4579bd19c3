"""Using a hub with flistfs, and what other clients send to it."""

from __future__ import annotations

import hashlib
import json
import socket
import stat
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

import flistfs
from flistfs import errors
from tests.e2e.schemas import check_answer
from tests.hub.conftest import TIMEOUT, RunningHub

CONTENT = b"what is in it\n" * 1000


def asked(hub: RunningHub, *words: str | Path, code: int = 0, user: str = "alice") -> Any:  # noqa: ANN401  JSON
    """The answer of a command that uses the hub."""
    done = hub.run(*words, "--json", code=code, user=user)
    check_answer(str(words[0]), done.stdout, code)
    assert hub.tokens[user] not in done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A tree of some kinds of entries."""
    source = tmp_path / "source"
    (source / "etc").mkdir(parents=True)
    (source / "etc/hosts").write_bytes(b"127.0.0.1 here\n")
    (source / "large").write_bytes(bytes(range(256)) * 5000)
    (source / "empty").touch()
    (source / "link").symlink_to("etc/hosts")
    (source / "odd\udcff").write_bytes(b"odd")
    return source


def packed(hub: RunningHub, source: Path, format_: str = "sqlite") -> Path:
    package = source.with_name(f"app-{format_}.flist")
    hub.run("pack", source, package, "--format", format_, "--store", f"dir://{source.parent}/blocks")
    return package


def test_an_flist_is_published_as_it_is(hub: RunningHub, source: Path) -> None:
    package = packed(hub, source)
    blocks = f"dir://{source.parent}/blocks"
    done = asked(hub, "publish", package, "--name", "kept:v1", "--store", blocks)
    assert (done["repository"], done["name"], done["way"]) == ("alice", "kept:v1.flist", "flist")
    assert done["new_blocks"] > 0
    assert done["md5"] == hashlib.md5(package.read_bytes()).hexdigest()
    again = asked(hub, "publish", package, "--name", "kept:v2", "--store", blocks)
    assert (again["new_blocks"], again["md5"]) == (0, done["md5"])
    out = source.with_name("downloaded.flist")
    assert asked(hub, "hub", "download", "alice/kept:v1", out) == {
        "version": 1,
        "out": str(out),
        "md5": done["md5"],
    }
    assert out.read_bytes() == package.read_bytes()
    hub.run("verify", out, "--deep", "--store", hub.blocks)


def test_what_hubs_do_not_take_is_sent_as_an_archive(hub: RunningHub, source: Path) -> None:
    package = packed(hub, source, "rocksdb")
    done = asked(hub, "publish", package, "--store", f"dir://{source.parent}/blocks")
    assert (done["name"], done["way"]) == ("app-rocksdb.flist", "archive")
    assert "hubs take flists of the format sqlite only" in done["notes"][0]
    out = source.with_name("downloaded.flist")
    hub.run("hub", "download", "app-rocksdb", out, user="alice")
    assert_equal_trees(hub, out, source)


@pytest.mark.parametrize("way", ["directory", "archive", "flist as archive"])
def test_archives_are_sent(hub: RunningHub, source: Path, way: str) -> None:
    match way:
        case "directory":
            words: list[str | Path] = [source]
        case "archive":
            archive = source.with_name("app.tar.xz")
            with tarfile.open(archive, "w:xz") as tar:
                tar.add(source, ".")
            words = [archive]
        case _:
            words = [packed(hub, source), "--as-archive", "--store", f"dir://{source.parent}/blocks"]
    done = asked(hub, "publish", *words, "--name", "sent")
    assert (done["way"], done["url"]) == ("archive", f"{hub.url}/alice/sent.flist")
    out = source.with_name("downloaded.flist")
    hub.run("hub", "download", "alice/sent", out, user="bob")
    assert_equal_trees(hub, out, source)


def assert_equal_trees(hub: RunningHub, package: Path, source: Path) -> None:
    copy = source.with_name("copy")
    hub.run("extract", package, copy)
    assert {path.relative_to(copy) for path in copy.rglob("*")} == {
        path.relative_to(source) for path in source.rglob("*")
    }
    for path in source.rglob("*"):
        other = copy / path.relative_to(source)
        assert other.lstat().st_mode == path.lstat().st_mode
        assert int(other.lstat().st_mtime) == int(path.lstat().st_mtime) or path.is_symlink()
        if path.is_file() and not path.is_symlink():
            assert other.read_bytes() == path.read_bytes()


def test_names_of_any_letters(hub: RunningHub, source: Path) -> None:
    done = asked(hub, "publish", source, "--name", "größe 1:漢字")
    assert done["name"] == "größe 1:漢字.flist"
    out = source.with_name("downloaded.flist")
    asked(hub, "hub", "download", "alice/größe 1:漢字", out)
    assert_equal_trees(hub, out, source)
    with hub.client() as client:
        head = client.head("/alice/größe 1:漢字.flist")
    assert head.headers["content-disposition"].startswith("inline; filename*=utf-8''gr%C3%B6")


def test_what_lies_there(hub: RunningHub, source: Path) -> None:
    asked(hub, "publish", source, "--name", "one")
    assert asked(hub, "hub", "whoami")["user"] == "alice"
    assert "alice" in asked(hub, "hub", "list")["repositories"]
    assert "one.flist" in [each["name"] for each in asked(hub, "hub", "list", "alice")["flists"]]
    told = asked(hub, "hub", "info", "alice/one", user="bob")
    assert told["flist"]["name"] == "one.flist"
    assert told["metadata"]["backend"]["port"] == hub.blocks_port
    asked(hub, "hub", "link", "one", "latest")
    asked(hub, "hub", "link", "alice/one", "theirs", user="bob")
    assert "theirs.flist -> alice/one.flist" in hub.run("hub", "list", "bob", user="bob").stdout
    asked(hub, "hub", "tag", "v1", "alice/one", "app", user="bob")
    (linked,) = asked(hub, "hub", "list", "bob/v1", user="bob")["flists"]
    assert (linked["name"], linked["target"]) == ("app.flist", "alice/one.flist")
    asked(hub, "hub", "untag", "v1", "alice/one", "app", user="bob")
    asked(hub, "hub", "promote", "alice/one", "copy", user="bob")
    asked(hub, "hub", "rename", "copy", "renamed", user="bob")
    asked(hub, "hub", "merge", "both", "bob/renamed", "alice/one", user="bob")
    asked(hub, "hub", "delete", "renamed", user="bob")
    error = asked(hub, "hub", "delete", "renamed", user="bob", code=13)["error"]
    assert error["code"] == "hub-refused"
    assert "source not found (404)" in error["message"]
    assert "invalid name" in asked(hub, "hub", "rename", "one", ".hidden", code=13)["error"]["message"]
    hub.run("hub", "rename", "a/b", "c", user="alice", code=2)


def test_a_login_is_kept_for_one_hub(hub: RunningHub) -> None:
    wrong = hub.run("hub", "login", hub.url, code=13, stdin="nobodys\n")
    assert "invalid signature (401)" in wrong.stderr
    assert (
        f"{hub.url} knows you as alice"
        in hub.run("hub", "login", hub.url, stdin=f"{hub.tokens['alice']}\n").stdout
    )
    (kept,) = (hub.home / "flistfs").glob("hubs.json")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert hub.run("hub", "whoami").stdout == "alice\n"
    elsewhere = hub.run("hub", "whoami", "--hub", "http://127.0.0.1:1", code=13)
    assert "cannot be asked" in elsewhere.stderr
    hub.run("hub", "logout")
    assert "say which hub, with --hub" in hub.run("hub", "whoami", code=2).stderr
    hub.run("hub", "logout", code=2)
    assert hub.tokens["alice"] not in kept.read_text()
    for url in ("ftp://x", "http://a:b@c", "x"):
        hub.run("hub", "whoami", "--hub", url, code=2)
        if url.startswith("http"):
            hub.run("ls", f"{url}/x.flist", code=2)


def test_python(hub: RunningHub, source: Path) -> None:
    done = flistfs.publish(source, name="python", url=hub.url, token=hub.tokens["alice"])
    assert done.url == f"{hub.url}/alice/python.flist"
    with flistfs.open_hub(hub.url) as client:
        assert client.find("alice", "python").md5 == done.md5
        with pytest.raises(errors.HubRefusedError, match="no authorization provided"):
            client.delete("python")


def test_flists_by_their_urls(hub: RunningHub, source: Path) -> None:
    url = asked(hub, "publish", source, "--name", "by-url")["url"]
    listed = hub.run("ls", "-R", url).stdout
    assert "etc/hosts" in listed
    (kept,) = (hub.home / "flistfs/flists").glob("*/by-url.flist")
    inode = kept.stat().st_ino
    assert hub.run("cat", url, "etc/hosts").stdout == "127.0.0.1 here\n"
    assert hub.run("diff", url, url).stdout == ""
    hub.run("merge", "-o", source.with_name("merged.flist"), url)
    assert kept.stat().st_ino == inode  # it was not fetched again
    kept.write_bytes(b"damaged meanwhile")
    assert hub.run("ls", "-R", url).stdout == listed
    assert kept.stat().st_ino != inode
    (source / "new").touch()
    asked(hub, "publish", source, "--name", "by-url")
    assert "new\n" in hub.run("ls", url).stdout
    for words in (
        ["config", url, "--set", "a=b"],
        ["push", url, "--to", f"dir://{source.parent}/x", "--update"],
    ):
        assert "is a copy of what lies elsewhere" in hub.run(*words, code=2).stderr
    hub.run("config", url, "--set", "a=b", "-o", source.with_name("changed.flist"))
    assert "(404)" in hub.run("ls", f"{hub.url}/alice/nothing.flist", code=13).stderr
    assert "cannot be fetched" in hub.run("ls", "http://127.0.0.1:1/a/b.flist", code=13).stderr
    hub.run("ls", f"{hub.url}/", code=2)
    with pytest.raises(errors.HubRefusedError, match="404"):
        flistfs.open(f"{hub.url}/alice/nothing.flist")
    with lying_hub({"/a.flist": (200, b"abc"), "/a.flist.md5": (200, b"0" * 32)}) as liar:
        assert "has another MD5 than" in hub.run("ls", f"{liar}/a.flist", code=13).stderr
    assert not list((hub.home / "flistfs/flists").glob("*.part"))


# What a hub may answer


def test_a_hub_that_makes_less_of_it(source: Path) -> None:
    files = {"success": True, "response": {"regular": 2, "symlink": 1}}
    answers = {
        "/api/flist/me": (200, b'{"status": "success", "payload": {"username": "a"}}'),
        "/api/flist/me/upload": (200, json.dumps({"payload": {"name": "x.flist", "files": files}}).encode()),
    }
    with (
        lying_hub(answers) as url,
        pytest.raises(errors.HubRefusedError, match="made 2 files and 1 links of 4 and 1"),
    ):
        flistfs.publish(source, name="x", url=url, token="x")
    files["success"] = False
    answers["/api/flist/me/upload"] = (
        200,
        json.dumps({"payload": {"name": "x.flist", "files": files}}).encode(),
    )
    with lying_hub(answers) as url, pytest.raises(errors.HubRefusedError, match="could not make an flist"):
        flistfs.publish(source, name="x", url=url, token="x")


class _Lying(BaseHTTPRequestHandler):
    """Answers everything with what the server was given."""

    def do_GET(self) -> None:
        status, body = self.server.answers.get(self.path, (200, b"<html>"))  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        while size := int(self.rfile.readline(), 16):  # as a body of unknown length comes
            self.rfile.read(size + 2)
        self.rfile.readline()
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def lying_hub(answers: dict[str, tuple[int, bytes]]) -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Lying) as server:
        server.answers = answers  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


LIGHT = {"name": "x.flist", "size": 3, "updated": 1, "type": "regular", "md5": "0" * 32}


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({}, "gives no answer of a hub"),
        ({"/api/flist/a/x/light": (200, b"[" * 100_000)}, "gives no answer of a hub"),
        ({"/api/flist/a/x/light": (200, b"{}")}, "gives no answer of a hub"),
        ({"/api/flist/a/x/light": (500, b"<html>")}, "gives no answer of a hub (500)"),
        ({"/api/flist/a/x/light": (302, b"")}, "(302)"),
        (
            {"/api/flist/a/x/light": (200, json.dumps(LIGHT).encode()), "/a/x.flist": (200, b"abc")},
            "whose MD5 is not what it tells",
        ),
    ],
)
def test_a_hub_that_lies(tmp_path: Path, answers: dict[str, tuple[int, bytes]], message: str) -> None:
    with lying_hub(answers) as url, flistfs.open_hub(url) as client:
        with pytest.raises(errors.HubRefusedError) as caught:
            client.download("a", "x", tmp_path / "out.flist")
        assert message in str(caught.value)
        assert not list(tmp_path.iterdir())


# What other clients send, byte for byte


def replayed(hub: RunningHub, request: bytes) -> tuple[int, Any]:
    host, port = hub.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), TIMEOUT) as plain:
        plain.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer or len(answer) < _length(answer):
            part = plain.recv(65536)
            assert part, answer
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def _length(answer: bytes) -> int:
    head, _, _ = answer.partition(b"\r\n\r\n")
    (length,) = [
        int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
    ]
    return len(head) + 4 + length


def test_what_zflist_sends(hub: RunningHub, source: Path) -> None:
    """As libcurl does it: names are not escaped, and a user is chosen by a cookie."""
    asked(hub, "publish", source, "--name", "zos:v1")

    def verb(method: bytes, path: bytes, more: bytes = b"") -> tuple[int, Any]:
        return replayed(
            hub,
            b"%b %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: zflist/2.3.0\r\nAccept: */*\r\n"
            b"Authorization: Bearer %b\r\nCookie: active-user=alice\r\n%b\r\n"
            % (method, path, hub.url[7:].encode(), hub.tokens["alice"].encode(), more),
        )

    assert verb(b"GET", b"/api/flist/me") == (200, {"status": "success", "payload": {"username": "alice"}})
    done = (200, {"status": "success"})
    assert verb(b"GET", b"/api/flist/me/zos:v1.flist/link/zos.flist") == done
    assert verb(b"GET", b"/api/flist/alice/zos.flist/light")[1]["target"] == "zos:v1.flist"
    assert verb(b"GET", b"/api/flist/me/v1/zos.flist/tag/alice/zos:v1.flist") == done
    assert verb(b"GET", b"/api/flist/me/production/crosstag/alice/v1") == done
    assert verb(b"GET", b"/api/flist/alice/production/taglink") == (200, {"target": "alice/tags/v1"})
    body = b'["alice/zos:v1.flist", "alice/zos.flist"]'
    headers = b"Content-Type: application/json\r\nCharset: utf-8\r\nContent-Length: %d\r\n" % len(body)
    host = hub.url[7:].encode()
    request = (
        b"POST /api/flist/me/merge/merged.flist HTTP/1.1\r\nHost: %b\r\nAuthorization: Bearer %b\r\n"
        % (
            host,
            hub.tokens["alice"].encode(),
        )
    )
    assert replayed(hub, request + headers + b"\r\n" + body) == done
    assert verb(b"DELETE", b"/api/flist/me/v1/zos.flist/tag/alice/zos:v1.flist") == done
    assert verb(b"DELETE", b"/api/flist/me/zos.flist") == done
    assert verb(b"DELETE", b"/api/flist/me/zos.flist") == (
        404,
        {"status": "error", "message": "source not found"},
    )


def test_what_old_clients_send(hub: RunningHub) -> None:
    """jumpscale_lib: the token as a cookie, and a type of content without any."""
    request = (
        b"GET /api/flist/me HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
        b"Cookie: caddyoauth=%b; active-user=alice\r\n\r\n"
        % (hub.url[7:].encode(), hub.tokens["alice"].encode())
    )
    assert replayed(hub, request)[0] == 200
