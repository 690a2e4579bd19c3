"""What hostile clients send: no header, name or form of theirs means anything else than it says."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

from tests.hub.conftest import TIMEOUT, RunningHub, archive, said, uploaded

HOSTILE = (
    "..",
    ".",
    "../../x",
    "a/b",
    "/etc/passwd",
    "a\nb",
    "a\r\nSet-Cookie: x=y",
    "\0",
    "~",
    "\u202eflist",
    "x" * 300,
)


@pytest.fixture(scope="module")
def alice(hub: RunningHub) -> Iterator[httpx2.Client]:
    with hub.client("alice") as client:
        uploaded(client, archive({"a": b"b"}), "one.tar.gz")
        yield client


def everything(hub: RunningHub) -> set[str]:
    """All that is in the directory of the hub, but for what it keeps of its own."""
    return {
        str(path.relative_to(hub.data))
        for path in hub.data.rglob("*")
        if path.relative_to(hub.data).parts[0] in {"users", "incoming"}
    }


def raw(hub: RunningHub, request: bytes) -> bytes:
    """All that is answered to some bytes."""
    host, port = hub.url.removeprefix("http://").split(":")
    answer = b""
    with socket.create_connection((host, int(port)), TIMEOUT) as plain, suppress(OSError):
        plain.sendall(request)
        plain.shutdown(socket.SHUT_WR)
        while part := plain.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_mean_something_else(hub: RunningHub, alice: httpx2.Client, name: str) -> None:
    before = everything(hub)
    part = quote(name, safe="")
    for path in (
        f"{part}/link/x",
        f"one/link/{part}",
        f"one/rename/{part}",
        f"x/crosslink/{part}/one",
        f"x/crosslink/alice/{part}",
        f"{part}/crosslink/alice/one",
        f"promote/{part}/one/x",
        f"promote/alice/{part}/x",
        f"promote/alice/one/{part}",
        f"{part}/x/tag/alice/one",
        f"t/{part}/tag/alice/one",
        f"t/x/tag/{part}/one",
        f"{part}/crosstag/alice/t",
        f"x/crosstag/{part}/t",
        f"x/crosstag/alice/{part}",
    ):
        answer = alice.get(f"{hub.url}/api/flist/me/{path}")
        assert answer.status_code in {200, 400, 401, 404, 405}, path
        assert "set-cookie" not in answer.headers
        if answer.status_code == 200:  # it is a name like others
            break
    assert everything(hub) == before or name == "~" or "/" in name
    assert not any(".." in path or path.startswith("/") for path in everything(hub))
    for path in ("api/flist/me/{}", "api/flist/me/t/x/tag/alice/{}"):
        assert alice.delete(f"{hub.url}/{path.format(part)}").status_code in {200, 400, 404, 405}
    outside = hub.home / "x.flist"
    assert not outside.exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_uploads_that_mean_something_else(hub: RunningHub, alice: httpx2.Client, name: str) -> None:
    files = {"file": (f"{name}.tar.gz", archive({"a": b"b"}))}
    answer = alice.post("/api/flist/me/upload", files=files)
    assert answer.status_code in {200, 400}
    made = {path for path in everything(hub) if path.startswith("users/")}
    assert all(path.count("/") <= 2 and not Path(path).name.startswith("..") for path in made)
    assert {path.split("/")[1] for path in made} == {"alice"}
    cookie = {"Cookie": f"active-user={quote(name)}"}
    assert alice.get("/api/flist/me", headers=cookie).status_code in {200, 400}


def test_a_header_of_ours_holds_no_line_of_theirs(hub: RunningHub, alice: httpx2.Client) -> None:
    for name in ('quo"te', "semi;colon", "ünï", "a%0d%0ab", "back\\slash"):
        answer = alice.get(f"/api/flist/me/promote/alice/one/{quote(name, safe='')}")
        assert answer.status_code == 200
        package = alice.get(f"/alice/{quote(name, safe='')}.flist")
        assert package.status_code == 200
        disposition = package.headers["content-disposition"]
        assert disposition.startswith("inline; filename")
        assert disposition.count('"') in {0, 2}
        assert alice.delete(f"/api/flist/me/{quote(name, safe='')}").status_code == 200


def test_ten_thousand_parts(hub: RunningHub, alice: httpx2.Client) -> None:
    before = everything(hub)
    files = [("file", ("many.tar.gz", archive({}))), *((f"x{n}", ("", b"")) for n in range(10_000))]
    assert "(Maximum segment count exceeded)" in said(alice.post("/api/flist/me/upload", files=files), 400)
    fields = {f"metadata-{n}": "x" for n in range(150)}
    large = {"files": {"file": ("f.tar.gz", archive({}))}, "data": {"metadata-x": "x" * (2 << 20)}}
    assert said(alice.post("/api/flist/me/upload", **large), 400) == "a field of the form is too large"  # type: ignore[arg-type]
    assert everything(hub) == before
    assert uploaded(alice, archive({}), "fields.tar.gz", **fields)["name"] == "fields.flist"


SMUGGLED = b"DELETE /api/flist/me/one HTTP/1.1\r\nHost: a\r\nAuthorization: bearer %b\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 4\r\nContent-Length: 5\r\n",
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length: +4\r\n",
        b"Content-Length: 4, 4\r\n",
        b"Content-Length: -1\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n",
    ],
)
def test_no_request_hides_in_another(hub: RunningHub, alice: httpx2.Client, head: bytes) -> None:
    """However a body ends, a request that a proxy would have taken for its content is none."""
    token = hub.tokens["alice"].encode()
    hidden = SMUGGLED % token
    answer = raw(hub, b"POST /api/flist/me/upload HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n" + hidden)
    assert answer.count(b"HTTP/1.1 ") <= 1, answer
    assert not answer.startswith(b"HTTP/1.1 2")
    assert alice.get("/alice/one.flist").status_code == 200


def test_the_rest_of_a_refused_upload_is_no_request(hub: RunningHub, alice: httpx2.Client) -> None:
    hidden = SMUGGLED % hub.tokens["alice"].encode()
    body = b"x" * 100_000 + hidden
    head = b"POST /api/flist/me/upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    answer = raw(hub, head + body)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 401")
    assert alice.get("/alice/one.flist").status_code == 200


def test_pages_of_other_sites_change_nothing(hub: RunningHub, alice: httpx2.Client) -> None:
    """What a browser sends for another site, with the only thing of ours that it may hold: a cookie."""
    with hub.client() as browser:
        browser.cookies.set("caddyoauth", hub.tokens["alice"])
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "cross-site", "Origin": hub.url},
        ):
            for path in ("one/link/evil", "one/rename/evil", "promote/alice/one/evil"):
                assert said(browser.get(f"/api/flist/me/{path}", headers=headers), 403)
            assert said(browser.delete("/api/flist/me/one", headers=headers), 403)
            assert said(
                browser.post("/api/flist/me/merge/evil", content='["alice/one"]', headers=headers), 403
            )
    answer = alice.get("/api/flist/me")
    assert "access-control-allow-origin" not in answer.headers
    assert "access-control-allow-credentials" not in alice.get("/api/flist").headers
