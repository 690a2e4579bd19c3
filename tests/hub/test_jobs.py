"""Jobs: following what takes long, converting, and what an archive may hold."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import flistfs
from tests.e2e.commands import wait_until
from tests.hub.conftest import RunningHub, archive, running_hub, said, uploaded
from tests.hub.test_faults import half_an_upload, packers
from tests.hub.test_hub import CONTENT
from tests.images.building import docker_archive, layer_of
from tests.images.test_layers import file


@pytest.fixture(scope="module")
def alice(hub: RunningHub) -> Iterator[httpx2.Client]:
    with hub.client("alice") as client:
        yield client


def new_job(client: httpx2.Client) -> str:
    return str(client.post("/api/flist/me/jobs").json()["payload"]["jobid"])


def events(client: httpx2.Client, job: str) -> list[dict[str, Any]]:
    """All events of a job, once it is over."""
    with client.stream("GET", f"/listen/{job}") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def test_an_upload_is_followed(hub: RunningHub, alice: httpx2.Client) -> None:
    job = new_job(alice)
    found: list[list[dict[str, Any]]] = []

    def follow() -> None:
        with hub.client() as anybody:
            found.append(events(anybody, job))

    followers = [threading.Thread(target=follow) for _ in range(2)]
    for each in followers:
        each.start()
    answer = alice.post(
        "/api/flist/me/upload", params={"job": job}, files={"file": ("job.tar.gz", archive({"a": CONTENT}))}
    )
    assert answer.status_code == 200
    for each in followers:
        each.join()
    counts = {
        "regular": 1,
        "symlink": 0,
        "directory": 1,
        "special": 0,
        "failure": 0,
        "fullsize": len(CONTENT),
    }
    last = {"status": "info", "info": {"file": "job.flist", "filename": "job.flist", "flist": counts}}
    for said_by_one in found:
        *before, end = said_by_one
        assert end == last
        assert {each["status"] for each in before} <= {"update"}
        assert all(0 <= each["progress"] <= 100 for each in before)
    with hub.client() as anybody:
        assert events(anybody, job) == [last]  # who comes late is told, too


def test_how_jobs_fail(hub: RunningHub, alice: httpx2.Client) -> None:
    job = new_job(alice)
    refused = alice.post(
        "/api/flist/me/upload", params={"job": job}, files={"file": ("bad.tar.gz", b"no archive")}
    )
    message = said(refused, 400)
    assert events(alice, job) == [{"status": "error", "message": message}]
    again = {"params": {"job": job}, "files": {"file": ("a.tar.gz", archive({}))}}
    assert said(alice.post("/api/flist/me/upload", **again), 400) == "this job has begun already"  # type: ignore[arg-type]
    for wanted in ("nothing", ""):
        again["params"] = {"job": wanted}
        assert said(alice.post("/api/flist/me/upload", **again), 404) == "job id not found"  # type: ignore[arg-type]
    assert said(alice.get("/listen/nothing"), 404) == "job id not found"
    with hub.client("bob") as bob:
        again["params"] = {"job": new_job(alice)}
        assert said(bob.post("/api/flist/me/upload", **again), 404) == "job id not found"  # type: ignore[arg-type]


def test_so_many_jobs_of_one_user(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub, hub.client("alice") as client, hub.client("bob") as other:
        jobs = [new_job(client) for _ in range(100)]
        refused = client.post("/api/flist/me/jobs")
        assert said(refused, 429) == "there are too many jobs; try again later"
        assert int(refused.headers["retry-after"]) > 0
        new_job(other)
        query = {"params": {"job": jobs[7]}, "files": {"file": ("a.zip", b"")}}
        assert client.post("/api/flist/me/upload", **query).status_code == 400  # type: ignore[arg-type]
        new_job(client)  # in place of what is over
        assert said(client.get(f"/listen/{jobs[7]}"), 404)
        assert client.head(f"/listen/{jobs[0]}").status_code == 200


def test_a_job_whose_client_goes(hub: RunningHub, alice: httpx2.Client) -> None:
    job = new_job(alice)
    with half_an_upload(hub, hub.tokens["alice"], query=f"?job={job}"):
        wait_until(lambda: len(packers(hub)) == 1, "the archive is being packed")
        with hub.client() as anybody, anybody.stream("GET", f"/listen/{job}") as answer:
            first = next(line for line in answer.iter_lines() if line)
        assert json.loads(first.removeprefix("data: "))["status"] == "update"
    wait_until(lambda: not packers(hub), "its process ends")
    assert events(alice, job) == [{"status": "error", "message": "it was not finished"}]


@pytest.mark.parametrize("format_", ["rocksdb", "sqlite"])
def test_converting(hub: RunningHub, alice: httpx2.Client, tmp_path: Path, format_: str) -> None:
    name = f"convert-{format_}"
    uploaded(alice, archive({"file": CONTENT, "empty": b""}), f"{name}.tar.gz")
    job = new_job(alice)
    with hub.client("bob") as bob:
        answer = bob.post(f"/api/flist/me/convert/alice/{name}/converted?format={format_}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["payload"]["files"]["response"]["regular"] == 2
        assert answer.json()["payload"]["name"] == "converted.flist"
        package = tmp_path / "a.flist"
        package.write_bytes(bob.get("/bob/converted.flist").content)
    with flistfs.open(package) as flist:
        assert flist.format == format_
        assert b"".join(flist.read("file")) == CONTENT
    hub.run("verify", package, "--deep")
    done = alice.post(f"/api/flist/me/convert/alice/{name}/{name}-2", params={"format": format_, "job": job})
    assert done.status_code == 200
    assert events(alice, job)[-1]["status"] == "info"


def test_the_name_of_an_entry_is_told_as_it_is(alice: httpx2.Client) -> None:
    """What the hub calls otherwise for the caller are files of its own, and nothing that is in an archive."""
    data = archive({"None": b"", "../None": b""})
    refused = alice.post("/api/flist/me/upload", files={"file": ("none.tar.gz", data)})
    assert "../None: its name contains '..'" in said(refused, 400)


def test_what_is_not_converted(hub: RunningHub, alice: httpx2.Client) -> None:
    uploaded(alice, archive({"file": CONTENT}), "c.tar.gz")
    path = "/api/flist/me/convert/alice"
    assert said(alice.post(f"{path}/nothing/x"), 404) == "source not found"
    assert said(alice.post(f"{path}/c/x?format=zip"), 400) == "there is no such format"
    assert said(alice.post(f"{path}/c/.x"), 400) == "invalid name of flist"
    (hub.data / "users/alice/damaged.flist").write_bytes(b"junk")
    message = said(alice.post(f"{path}/damaged/x?format=rocksdb"), 400)
    assert str(hub.home) not in message
    assert message.startswith("it is not a readable flist")
    (hub.data / "users/alice/damaged.flist").unlink()


def test_converting_what_lacks_blocks(tmp_path: Path) -> None:
    with running_hub(tmp_path) as hub, hub.client("alice") as alice:
        uploaded(alice, archive({"file": CONTENT}), "c.tar.gz")
        for block in [*(hub.data / "blocks").rglob("*")]:
            if block.is_file():
                block.unlink()
        message = said(alice.post("/api/flist/me/convert/alice/c/x?format=rocksdb"), 400)
        assert "file" in message
        assert str(hub.home) not in message
        assert alice.get("/alice/x.flist").status_code == 404


def test_the_contents_of_many(hub: RunningHub, alice: httpx2.Client) -> None:
    names = [f"{number:05}-{'x' * 60}" for number in range(15_000)]
    uploaded(alice, archive(dict.fromkeys(names, b"")), "many.tar.gz")
    answer = alice.get("/api/flist/alice/many")
    assert len(answer.content) > 1 << 20
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert [each["path"] for each in answer.json()["content"]] == [f"/{name}" for name in names]
    package = alice.get("/alice/many.flist").content
    copied = alice.post("/api/flist/me/upload-flist", files={"file": ("many2.flist", package)}).json()
    assert copied["payload"]["files"]["response"] == answer.json()
    head = alice.head("/api/flist/alice/many")
    assert (head.status_code, head.content) == (200, b"")


def test_an_archive_may_hold_too_much(tmp_path: Path) -> None:
    sparse = io.BytesIO()
    with tarfile.open(None, "w", sparse, format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("hole")
        member.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": "hole",
            "GNU.sparse.realsize": str(1 << 40),
        }
        member.size = 512
        tar.addfile(member, io.BytesIO(b"0\n".ljust(512, b"\0")))
    with (
        running_hub(tmp_path, "--max-upload", "4M", "--max-entries", "100") as hub,
        hub.client("alice") as alice,
    ):
        for name, data, message in (
            ("many", archive({f"{number}": b"" for number in range(101)}), "more than 100 entries"),
            ("bomb", archive({"zeros": bytes(5 << 20)}), "more than 4,194,304 bytes of content"),
            ("sparse", sparse.getvalue(), "more than 4,194,304 bytes of content"),
            ("image", archive({"manifest.json": bytes(5 << 20)}), "more than 4,194,304 bytes"),
        ):
            answer = alice.post("/api/flist/me/upload", files={"file": (f"{name}.tar.gz", data)})
            assert message in said(answer, 400)
        assert uploaded(alice, archive({f"{n}": b"" for n in range(99)}), "x.tar.gz")["name"] == "x.flist"
        assert not list((hub.data / "incoming").iterdir())


def test_an_image_becomes_the_tree_of_its_layers(
    hub: RunningHub, alice: httpx2.Client, tmp_path: Path
) -> None:
    layers = [layer_of([file("a", "low")]), layer_of([file("a", "high"), file(".wh.b")])]
    saved = docker_archive(tmp_path / "app.tar", layers, ["app:1"], Entrypoint=["/a"]).read_bytes()
    for name, data in (("app.tar", saved), ("zipped.tar.gz", gzip.compress(saved))):
        made = uploaded(alice, data, name)["name"]
        (tmp_path / made).write_bytes(alice.get(f"/alice/{made}").content)
        with flistfs.open(tmp_path / made) as flist:
            assert b"".join(flist.read("a")) == b"high"
            assert b'name = "/a"' in b"".join(flist.read(".startup.toml"))
        assert alice.get(f"/api/flist/alice/{made}/metadata").json()["entrypoint"] == ["/a"]
    damaged = docker_archive(tmp_path / "bad.tar", [layer_of([file(".wh.")])], ["app:1"]).read_bytes()
    refused = alice.post("/api/flist/me/upload", files={"file": ("bad.tar", damaged)})
    assert ".wh.: it is a whiteout of nothing" in said(refused, 400)
    assert not list((hub.data / "incoming").iterdir())
