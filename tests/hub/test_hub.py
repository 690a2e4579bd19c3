"""The hub as its clients see it: every route, in the shapes that 0-hub has."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

import flistfs
from tests.hub.conftest import FLISTFS, RunningHub, archive, running_hub, said, uploaded

CONTENT = b"what is in it\n" * 1000


@pytest.fixture(scope="module")
def alice(hub: RunningHub) -> Iterator[httpx2.Client]:
    with hub.client("alice") as client:
        yield client


@pytest.fixture(scope="module")
def bob(hub: RunningHub) -> Iterator[httpx2.Client]:
    with hub.client("bob") as client:
        yield client


@pytest.fixture(scope="module")
def anybody(hub: RunningHub) -> Iterator[httpx2.Client]:
    with hub.client() as client:
        yield client


@pytest.fixture
def one(alice: httpx2.Client, request: pytest.FixtureRequest) -> str:
    """An flist of alice's, with a name of its own for each test."""
    name = f"{request.node.name.split('[')[0]}.flist"
    uploaded(alice, archive({"file": CONTENT}), name.replace(".flist", ".tar.gz"))
    return name


# Uploads


def test_an_archive_becomes_an_flist(hub: RunningHub, alice: httpx2.Client, tmp_path: Path) -> None:
    files = {"etc/hosts": b"127.0.0.1 here\n", "big": bytes(range(256)) * 8192, ".README.md": b"# Hello\n"}
    answer = uploaded(
        alice, archive(files), "app:v1.2.tar.gz", **{"metadata-made": "by hand", "metadata-port": "x"}
    )
    assert answer["name"] == "app:v1.2.flist"
    stats = answer["files"]
    assert stats["success"] is True
    counts = {"regular": 3, "symlink": 0, "directory": 2, "special": 0, "failure": 0}
    assert stats["response"] == {**counts, "fullsize": sum(map(len, files.values()))}
    assert stats.items() >= counts.items()
    package = tmp_path / "app.flist"
    package.write_bytes(alice.get("/alice/app:v1.2.flist").content)
    with flistfs.open(package) as flist:
        assert flist.format == "sqlite"
        for name, content in files.items():
            assert b"".join(flist.read(name)) == content
        found = flist.metadata
        assert found["made"] == b"by hand"
        assert "port" not in found
        assert json.loads(found["readme"])["readme"] == "# Hello\n"
        assert json.loads(found["backend"]) == {
            "namespace": "default",
            "host": "127.0.0.1",
            "port": hub.blocks_port,
        }
    hub.run("verify", package, "--deep")


@pytest.mark.parametrize(
    ("suffix", "mode"), [("tar", "w"), ("tar.bz2", "w:bz2"), ("tgz", "w:gz"), ("tar.xz", "w:xz")]
)
def test_every_kind_of_archive(alice: httpx2.Client, suffix: str, mode: str) -> None:
    assert uploaded(alice, archive({"a": b"b"}, mode), f"kind.{suffix}")["name"] == "kind.flist"


def test_the_format_of_an_upload(alice: httpx2.Client, tmp_path: Path) -> None:
    files = {"file": ("old.tar.gz", archive({"a": b"b"}))}
    assert alice.post("/api/flist/me/upload?format=rocksdb", files=files).status_code == 200
    (tmp_path / "old.flist").write_bytes(alice.get("/alice/old.flist").content)
    with flistfs.open(tmp_path / "old.flist") as flist:
        assert flist.format == "rocksdb"
        assert b"".join(flist.read("a")) == b"b"
    assert said(alice.post("/api/flist/me/upload?format=tar", files=files), 400) == "there is no such format"
    answer = alice.post("/api/flist/me/upload?format=rocksdb", files=files, data={"metadata-a": "b"})
    assert said(answer, 400) == "an flist of the format rocksdb has no place for metadata"


def test_the_name_of_an_upload(alice: httpx2.Client, anybody: httpx2.Client) -> None:
    data = archive({"a": b"b"})
    assert uploaded(alice, data, "x.flist.tar.gz")["name"] == "x.flist"
    alice.headers["X-Original-Name"] = "/home/me/original:1.tar.gz"
    try:
        assert uploaded(alice, data, "other.tar.gz")["name"] == "original:1.flist"
        for given in ("plain", "suffix.flist"):
            alice.headers["X-Original-Name"] = given
            assert uploaded(alice, data, "other.tar.gz")["name"] == f"{given.removesuffix('.flist')}.flist"
        alice.headers["X-Original-Name"] = "/..tar.gz"
        assert "invalid name" in said(alice.post("/api/flist/me/upload", files={"file": ("o", data)}), 400)
    finally:
        del alice.headers["X-Original-Name"]
    assert anybody.get("/alice/original:1.flist").status_code == 200


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"files": {"other": ("a.tar.gz", b"")}}, "no file found"),
        ({"data": {"a": "b"}}, "no file found"),
        (
            {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
            "the form is invalid",
        ),
        ({"files": {"file": ("a.zip", b"x")}}, "this file is not allowed"),
        ({"files": {"file": ("a.flist", b"x")}}, "this file is not allowed"),
        ({"files": {"file": ("..tar.gz", b"x")}}, "invalid name of flist"),
        ({"files": {"file": ("bad.tar.gz", b"no archive")}}, "it is not a tar archive, or is damaged"),
        (
            {"files": {"file": ("cut.tar.gz", archive({"a": bytes(9999)})[:-50])}},
            "the gzip file is truncated",
        ),
        (
            {"files": {"file": ("many.tar.gz", b""), **{f"x{n}": ("", b"") for n in range(300)}}},
            "the form is invalid",
        ),
    ],
)
def test_what_is_no_upload(alice: httpx2.Client, form: dict[str, object], message: str) -> None:
    before = alice.get("/api/fileslist").json()
    assert message in said(alice.post("/api/flist/me/upload", **form), 400)  # type: ignore[arg-type]
    assert alice.get("/api/fileslist").json() == before


def test_an_flist_whose_blocks_are_there(
    hub: RunningHub, alice: httpx2.Client, bob: httpx2.Client, one: str
) -> None:
    package = alice.get(f"/alice/{one}").content
    answer = bob.post("/api/flist/me/upload-flist", files={"file": ("copy.flist", package)})
    assert answer.status_code == 200
    payload = answer.json()["payload"]
    assert payload["name"] == "copy.flist"
    assert payload["files"]["response"]["content"] == [{"path": "/file", "size": len(CONTENT)}]
    assert bob.get("/bob/copy.flist.md5").text == f"{hashlib.md5(package).hexdigest()}\n"
    source = hub.home / "source"
    source.mkdir(exist_ok=True)
    (source / "absent").write_bytes(b"nobody has this")
    hub.run(
        "pack", source, hub.home / "absent.flist", "--format", "sqlite", "--store", f"dir://{hub.home}/other"
    )
    lacking = bob.post(
        "/api/flist/me/upload-flist",
        files={"file": ("absent.flist", (hub.home / "absent.flist").read_bytes())},
    )
    assert said(lacking, 400) == "unauthorized upload, contents is not fully present on backend: absent"
    junk = bob.post("/api/flist/me/upload-flist", files={"file": ("junk.flist", b"junk")})
    assert said(junk, 400).startswith("the upload is not a readable flist: it is not a gzip file")
    assert payload["files"]["status"] == 0
    assert not list((hub.data / "incoming").iterdir())


# Lists


def test_lists(hub: RunningHub, alice: httpx2.Client, anybody: httpx2.Client, one: str) -> None:
    assert f"alice/{one}" in anybody.get("/api/flist").json()
    (found,) = [each for each in anybody.get("/api/repositories/").json() if each["name"] == "alice"]
    assert found.keys() == {"name", "official", "updated"}
    (entry,) = [each for each in anybody.get("/api/flist/alice").json() if each["name"] == one]
    package = anybody.get(f"/alice/{one}").content
    assert entry == {
        "name": one,
        "size": f"{len(package) / 1024:.2f} KB",
        "updated": entry["updated"],
        "type": "regular",
    }
    assert entry in anybody.get("/api/fileslist").json()["alice"]
    assert alice.get("/api/flist/me").json() == {"status": "success", "payload": {"username": "alice"}}
    light = anybody.get(f"/api/flist/alice/{one}/light").json()
    assert light == {
        "name": one,
        "size": len(package),
        "updated": entry["updated"],
        "type": "regular",
        "md5": hashlib.md5(package).hexdigest(),
    }
    assert anybody.request("INFO", f"/api/flist/alice/{one}").json() == light
    contents = {
        "content": [{"path": "/file", "size": len(CONTENT)}],
        "regular": 1,
        "symlink": 0,
        "directory": 0,
        "special": 0,
        "failure": 0,
        "fullsize": len(CONTENT),
    }
    for path in (f"/api/flist/alice/{one}", f"/api/flist/alice/{one.removesuffix('.flist')}"):
        assert anybody.get(path).json() == contents
    assert alice.get(f"/api/flist/me/{one}").json() == contents
    assert anybody.get(f"/api/flist/alice/{one}/metadata").json()["backend"]["port"] == hub.blocks_port


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/api/flist/nobody", "user not found"),
        ("/api/flist/nobody/x", "user not found"),
        ("/api/flist/alice/nothing", "source not found"),
        ("/api/flist/alice/nothing/light", "source not found"),
        ("/api/flist/alice/nothing/metadata", "source not found"),
        ("/api/flist/alice/tags/nothing", "tag not found"),
        ("/alice/nothing.flist", "source not found"),
        ("/alice/nothing.flist.md5", "source not found"),
        ("/nowhere", "not found"),
        ("/alice/file.html", "there is no such page"),
    ],
)
def test_what_is_not_there(anybody: httpx2.Client, one: str, path: str, message: str) -> None:
    assert one
    assert said(anybody.get(path), 404) == message


@pytest.mark.parametrize("name", ["%2e%2e", ".hidden", "a%0ab", "%ff", "%00", "a%2Fb"])
def test_names_lead_nowhere_else(anybody: httpx2.Client, name: str) -> None:
    for path in (
        f"/api/flist/{name}",
        f"/api/flist/alice/{name}/light",
        f"/alice/{name}.flist",
        f"/{name}/x.flist",
    ):
        assert anybody.get(path).status_code in {400, 404}, path


# Files


def test_a_package_is_downloaded(hub: RunningHub, anybody: httpx2.Client, one: str) -> None:
    whole = anybody.get(f"/alice/{one}")
    md5 = hashlib.md5(whole.content).hexdigest()
    headers = whole.headers
    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == f'inline; filename="{one}"'
    assert headers["etag"] == f'"{md5}"'
    assert headers["access-control-allow-origin"] == "*"
    assert headers["cache-control"] == "no-cache"
    head = anybody.head(f"/alice/{one}")
    assert (head.status_code, head.content, head.headers["content-length"]) == (
        200,
        b"",
        str(len(whole.content)),
    )
    part = anybody.get(f"/alice/{one}", headers={"Range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    for wanted in ("bytes=10-19,30-39", "bytes=-5"):
        assert anybody.get(f"/alice/{one}", headers={"Range": wanted}).status_code == 206
    for wanted, status in (("bytes=999999999-", 416), ("junk", 400)):
        refused = anybody.get(f"/alice/{one}", headers={"Range": wanted})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (status, "*")
    for known in ({"If-None-Match": f'"{md5}"'}, {"If-Modified-Since": headers["last-modified"]}):
        assert anybody.get(f"/alice/{one}", headers=known).status_code == 304
    assert anybody.get(f"/alice/{one}.md5").text == f"{md5}\n"
    told = anybody.get(f"/alice/{one}.json").json()
    assert told["checksum"] == md5
    assert told["source"] == str(anybody.base_url.join(f"/alice/{one}"))
    bare = one.removesuffix(".flist")
    assert anybody.get(f"/alice/{bare}.json").json() == told
    source, storage = told["source"], told["storage"]
    assert storage == hub.blocks
    assert anybody.get(f"/alice/{bare}.txt").text == (
        f"File:     {one}\nUploader: alice\nSource:   {source}\nStorage:  {storage}\nChecksum: {md5}\n"
    )
    options = anybody.options(f"/alice/{one}")
    assert options.status_code == 200
    assert options.headers["allow"] == "GET, HEAD, OPTIONS"
    assert anybody.post(f"/alice/{one}").status_code == 405
    allowed = anybody.options(f"/api/flist/me/{one}").headers["allow"]
    assert allowed == "DELETE, GET, HEAD, INFO, OPTIONS"


# What users do


def test_links(alice: httpx2.Client, bob: httpx2.Client, anybody: httpx2.Client, one: str) -> None:
    success = {"status": "success"}
    assert alice.get(f"/api/flist/me/{one}/link/latest").json() == success
    light = anybody.get("/api/flist/alice/latest/light").json()
    assert (light["type"], light["target"], light["name"]) == ("symlink", one, "latest.flist")
    assert light["md5"] == anybody.get(f"/alice/{one}.md5").text.strip()
    assert anybody.get("/alice/latest.flist.txt").text.startswith("File:     latest.flist\n")
    assert alice.get(f"/api/flist/me/own/crosslink/alice/{one}").json() == success
    assert anybody.get("/api/flist/alice/own/light").json()["target"] == f"../alice/{one}"
    assert bob.get(f"/api/flist/me/theirs/crosslink/alice/{one}").json() == success
    assert anybody.get("/api/flist/bob/theirs/light").json()["target"] == f"../alice/{one}"
    (entry,) = [each for each in anybody.get("/api/flist/bob").json() if each["name"] == "theirs.flist"]
    assert (entry["type"], entry["target"]) == ("symlink", f"alice/{one}")
    assert entry["linktime"] > 0
    assert anybody.get("/bob/theirs.flist").content == anybody.get(f"/alice/{one}").content
    assert said(bob.get("/api/flist/me/x/crosslink/nobody/y"), 404) == "source repository not found"
    assert said(bob.get("/api/flist/me/x/crosslink/alice/nothing"), 404) == "source not found"
    assert said(alice.get(f"/api/flist/me/latest/link/{one}"), 401) == "link destination is already a file"
    assert alice.delete(f"/api/flist/me/{one}").json() == success
    assert said(anybody.get("/api/flist/bob/theirs/light"), 404) == "source not found"
    assert anybody.get("/bob/theirs.flist").status_code == 404
    assert bob.delete("/api/flist/me/theirs").json() == success
    assert said(bob.delete("/api/flist/me/theirs"), 404) == "source not found"


def test_tags(alice: httpx2.Client, bob: httpx2.Client, anybody: httpx2.Client, one: str) -> None:
    assert bob.get(f"/api/flist/me/v1/app/tag/alice/{one}").json() == {"status": "success"}
    (entry,) = anybody.get("/api/flist/bob/tags/v1").json()
    assert (entry["name"], entry["target"]) == ("app.flist", f"alice/{one}")
    assert anybody.get("/bob/tags/v1/app.flist").content == anybody.get(f"/alice/{one}").content
    assert anybody.get("/bob/tags/v1/app.flist.md5").text == anybody.get(f"/alice/{one}.md5").text
    assert {"name": "v1", "size": "0 KB", "type": "tag"}.items() <= anybody.get("/api/flist/bob").json()[
        0
    ].items()
    assert alice.get("/api/flist/me/production/crosstag/bob/v1").json() == {"status": "success"}
    for name in ("production", "production.flist"):
        assert anybody.get(f"/api/flist/alice/{name}/taglink").json() == {"target": "bob/tags/v1"}
    (link,) = [each for each in anybody.get("/api/flist/alice").json() if each["name"] == "production"]
    assert (link["type"], link["target"]) == ("taglink", "bob/tags/v1")
    assert said(anybody.get(f"/api/flist/alice/{one}/taglink"), 404) == "source not found"
    assert (
        said(alice.get("/api/flist/me/x.flist/crosstag/bob/v1"), 401) == "tag symlink cannot ends with .flist"
    )
    name = one.removesuffix(".flist")
    taken = "there is a .flist file with the same name existing already"
    assert said(alice.get(f"/api/flist/me/{name}/crosstag/bob/v1"), 401) == taken
    assert said(alice.get("/api/flist/me/x/crosstag/bob/nothing"), 404) == "source tag not found"
    assert said(bob.delete(f"/api/flist/me/v1/other/tag/alice/{one}"), 404) == "target not found on this tag"
    for source, message in (
        ("nobody/x", "source repository not found"),
        ("alice/nothing", "source not found"),
    ):
        assert said(bob.delete(f"/api/flist/me/v1/app/tag/{source}"), 404) == message
    alice.delete(f"/api/flist/me/{one}")  # where it led no longer matters
    assert bob.delete(f"/api/flist/me/v1/app/tag/alice/{one}").json() == {"status": "success"}
    assert anybody.get("/api/flist/bob/tags/v1").status_code == 404
    assert anybody.get("/api/flist/alice/production/taglink").json() == {"target": "bob/tags/v1"}
    assert alice.delete("/api/flist/me/production").json() == {"status": "success"}


def test_renaming_loses_nothing(alice: httpx2.Client, anybody: httpx2.Client, one: str) -> None:
    content = anybody.get(f"/alice/{one}").content
    assert alice.get(f"/api/flist/me/{one}/rename/renamed").json() == {"status": "success"}
    assert anybody.get("/alice/renamed.flist").content == content
    uploaded(alice, archive({"other": b""}), one.replace(".flist", ".tar.gz"))
    assert said(alice.get(f"/api/flist/me/{one}/rename/renamed"), 409) == "destination already exists"
    assert anybody.get("/alice/renamed.flist").content == content
    assert said(alice.get("/api/flist/me/nothing/rename/x"), 404) == "source not found"


def test_promoting_copies(alice: httpx2.Client, bob: httpx2.Client, anybody: httpx2.Client, one: str) -> None:
    answer = bob.get(f"/api/flist/me/promote/alice/{one}/mine").json()
    assert answer["payload"] == {
        "source": {"username": "alice", "filename": one},
        "destination": {"username": "bob", "filename": "mine.flist"},
    }
    assert said(bob.get("/api/flist/me/promote/nobody/x/mine"), 404) == "user not found"
    assert said(bob.get("/api/flist/me/promote/alice/nothing/mine"), 404) == "source not found"
    content = anybody.get(f"/alice/{one}").content
    bob.get(f"/api/flist/me/dangling/crosslink/alice/{one}")
    alice.delete(f"/api/flist/me/{one}")
    assert anybody.get("/bob/mine.flist").content == content
    # Not through a link that leads nowhere, into the repository of another.
    assert bob.get("/api/flist/me/promote/bob/mine/dangling").status_code == 200
    assert anybody.get("/bob/dangling.flist").content == content
    assert anybody.get(f"/alice/{one}").status_code == 404


def test_merging(alice: httpx2.Client, anybody: httpx2.Client, one: str) -> None:
    uploaded(alice, archive({"file": b"another", "more": b"more"}), "second.tar.gz")
    wanted = [f"alice/{one}", "alice/second"]
    assert alice.post("/api/flist/me/merge/both", content=json.dumps(wanted)).json() == {"status": "success"}
    found = anybody.get("/api/flist/alice/both").json()["content"]
    assert found == [{"path": "/file", "size": len(CONTENT)}, {"path": "/more", "size": 4}]
    for body, message in (
        ("no json", "malformed json request"),
        ("[]", "no source found"),
        ("{}", "malformed json request"),
        ('"x"', "malformed json request"),
        ('["alice/b/c"]', "alice/b/c.flist does not exists"),
        ('["nouser"]', "malformed source filename"),
        ("[1]", "malformed source filename"),
        ('["alice/nothing"]', "alice/nothing.flist does not exists"),
    ):
        assert said(alice.post("/api/flist/me/merge/both", content=body), 400) == message
    assert (
        said(alice.post("/api/flist/me/merge/.x", content=json.dumps(wanted)), 400)
        == "build name not allowed"
    )


def test_metadata_of_a_merge_are_the_first_ones(alice: httpx2.Client, anybody: httpx2.Client) -> None:
    for name, fields in (("m1", {"metadata-one": "7"}), ("m2", {"metadata-one": "8", "metadata-two": "[1]"})):
        uploaded(alice, archive({name: b"x"}), f"{name}.tar.gz", **fields)
    two = anybody.get("/api/flist/alice/m2/metadata").json()
    assert (two["one"], two["two"]) == ("8", [1])  # as 0-hub tells them
    alice.post("/api/flist/me/merge/m3", content=json.dumps(["alice/m1", "alice/m2"]))
    found = anybody.get("/api/flist/alice/m3/metadata").json()
    assert found.keys() == {"one", "backend"}
    assert found["one"] == "7"


def test_what_is_asked_with_more_slashes(alice: httpx2.Client, one: str) -> None:
    for path in (f"//api/flist/alice//{one}/light", f"//alice/{one}.md5", "//api/flist/me/"):
        assert alice.get(f"{alice.base_url}{path}").status_code == 200, path


def test_head_changes_nothing(alice: httpx2.Client, one: str) -> None:
    answer = alice.head(f"/api/flist/me/{one}/rename/moved")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, OPTIONS")
    assert alice.get(f"/alice/{one}").status_code == 200


def test_who_has_nothing_yet(hub: RunningHub) -> None:
    hub.add_user("carol")
    with hub.client("carol") as carol:
        assert said(carol.get("/api/flist/me/a/link/b"), 404) == "user not found"
        assert said(carol.delete("/api/flist/me/a"), 404) == "user not found"


# Who may do what


def test_who_may_not(hub: RunningHub, anybody: httpx2.Client, one: str) -> None:
    def asked(**headers: str) -> httpx2.Response:
        return anybody.delete(f"/api/flist/me/{one}", headers=headers)

    assert said(asked(), 401) == "no authorization provided"
    assert said(asked(Authorization="basic x"), 400) == "invalid authorization header"
    assert said(asked(Authorization=""), 401) == "no authorization provided"
    for text in ("bearer nobodys", "bearer"):
        assert said(asked(Authorization=text), 401) == "invalid signature"
    assert said(asked(Authorization="bearer a.b.c"), 403) == "invalid token"
    own = f"BEARER {hub.tokens['alice']}"
    assert said(asked(Authorization=own, Origin="http://evil.example"), 403) == "another site may not do this"
    assert said(asked(Authorization=own, **{"Sec-Fetch-Site": "cross-site"}), 403)
    read = hub.run("hub", "token", "new", "alice", "--scope", "read", "--data", hub.data).stdout.strip()
    assert said(asked(Authorization=f"bearer {read}"), 403) == "this token may not write"
    assert anybody.get("/api/flist/me", headers={"Authorization": f"bearer {read}"}).status_code == 200
    assert anybody.get(f"/alice/{one}").status_code == 200
    assert (
        anybody.get("/api/flist/me", headers={"Cookie": f"caddyoauth={hub.tokens['alice']}"}).status_code
        == 200
    )
    assert said(anybody.post("/api/flist/me/docker", headers={"Authorization": own}), 501)


def test_acting_for_another_repository(hub: RunningHub, alice: httpx2.Client, anybody: httpx2.Client) -> None:
    def who() -> str:
        cookie = {"Cookie": "active-user=official"}
        return str(alice.get("/api/flist/me", headers=cookie).json()["payload"]["username"])

    assert who() == "alice"
    hub.run("hub", "user", "allow", "alice", "official", "--data", hub.data)
    assert who() == "official"
    data = {"file": ("a.tar.gz", archive({"a": b"b"}))}
    done = alice.post("/api/flist/me/upload", files=data, headers={"Cookie": "active-user=official"})
    assert done.status_code == 200
    assert anybody.get("/official/a.flist").status_code == 200
    hub.run("hub", "user", "allow", "alice", "official", "--remove", "--data", hub.data)
    assert who() == "alice"


def test_a_revoked_token_is_worth_nothing(hub: RunningHub, anybody: httpx2.Client) -> None:
    token = hub.run(
        "hub", "token", "new", "bob", "--label", "lost", "--expires", "1h", "--data", hub.data
    ).stdout
    headers = {"Authorization": f"bearer {token.strip()}"}
    assert anybody.get("/api/flist/me", headers=headers).status_code == 200
    listed = json.loads(hub.run("hub", "token", "list", "bob", "--data", hub.data, "--json").stdout)["tokens"]
    (found,) = [each for each in listed if each["label"] == "lost"]
    assert found["used"] >= found["created"]
    assert token.strip() not in str(listed)
    hub.run("hub", "token", "revoke", str(found["id"]), "--data", hub.data)
    assert anybody.get("/api/flist/me", headers=headers).status_code == 401
    assert hub.tokens["bob"] not in hub.said()


# Serving


def test_curl_as_documented(hub: RunningHub, tmp_path: Path, anybody: httpx2.Client) -> None:
    (tmp_path / "rootfs.tar.gz").write_bytes(archive({"file": CONTENT}))
    command = ["curl", "-sS", "-H", f"Authorization: bearer {hub.tokens['alice']}"]
    command += ["-F", f"file=@{tmp_path}/rootfs.tar.gz", f"{hub.url}/api/flist/me/upload"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["payload"]["name"] == "rootfs.flist"
    assert anybody.get("/healthz").text == "ok\n"
    metrics = anybody.get("/metrics").text
    assert 'flistfs_hub_answers_total{method="POST",status="200"} ' in metrics
    assert "flistfs_hub_uploads_packing 0\n" in metrics
    assert "alice" not in metrics


def test_behind_a_proxy(tmp_path: Path) -> None:
    with running_hub(tmp_path, "--public-url", "https://hub.example/") as hub, hub.client("alice") as client:
        uploaded(client, archive({"a": b"b"}), "a.tar.gz")
        assert client.get("/alice/a.flist.json").json()["source"] == "https://hub.example/alice/a.flist"
        assert client.get("/api/flist/me", headers={"Origin": "https://hub.example"}).status_code == 200
        assert client.get("/api/flist/me", headers={"Origin": "https://evil.example"}).status_code == 403
        for origin in ("null", "http://[", "", "https://hub.example.evil"):
            assert client.get("/api/flist/me", headers={"Origin": origin}).status_code == 403
    hub.run("hub", "serve", "--public-url", "hub.example", "--data", hub.data, code=2)


def test_only_one_serves_a_directory(hub: RunningHub) -> None:
    refused = hub.run("hub", "serve", "--data", hub.data, "--listen", "127.0.0.1:0", code=6)
    assert "another process serves the hub" in refused.stderr


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    hub = RunningHub(tmp_path)
    for options in (["--listen", "203.0.113.1:1"], ["--listen", "127.0.0.1:0", "--blocks", "203.0.113.1:1"]):
        refused = hub.run("hub", "serve", "--data", hub.data, *options, code=9)
        assert "the hub cannot listen" in refused.stderr
    hub.run("hub", "serve", "--data", hub.data, "--listen", "nowhere", code=2)


def test_an_open_hub_is_for_this_machine(tmp_path: Path) -> None:
    with running_hub(tmp_path, "--open") as hub, hub.client() as client:
        assert client.get("/api/flist/me").json()["payload"] == {"username": "Administrator"}
        uploaded(client, archive({"a": b"b"}), "a.tar.gz")
        assert client.get("/Administrator/a.flist").status_code == 200
        for host in ("evil.example", "evil.example:80", ""):
            assert client.get("/api/flist", headers={"Host": host}).status_code in {400, 403}
        assert client.get("/api/flist/me", headers={"Origin": "http://evil.example"}).status_code == 403
    refused = subprocess.run(
        [FLISTFS, "hub", "serve", "--open", "--listen", "0.0.0.0:0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "--open" in refused.stderr


def test_what_was_published_outlives_a_crash(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub:
        with hub.client("alice") as client:
            uploaded(client, archive({"a": b"b"}), "a.tar.gz")
            md5 = client.get("/alice/a.flist.md5").text
        hub.stop(kill=True)
        (hub.data / "incoming/left").write_bytes(b"half")
        hub.start()
        with hub.client() as client:
            assert client.get("/alice/a.flist.md5").text == md5
        assert not list((hub.data / "incoming").iterdir())
