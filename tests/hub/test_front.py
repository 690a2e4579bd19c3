"""What stands before the routes of a hub: proxies, the description, and how much one may ask for."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from starlette.routing import Route

from flistfs.hub.app import routed
from flistfs.hub.hub import Hub, Settings
from flistfs.hub.openapi import description
from tests.hub.conftest import RunningHub, archive, running_hub, uploaded
from tests.hub.test_blocks import answer, connected, spelled

FORWARDED = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "hub.example"}


@pytest.mark.parametrize(
    ("proxies", "forwarded", "source"),
    [
        ((), FORWARDED, None),
        (("10.0.0.1",), FORWARDED, None),
        (("127.0.0.1",), FORWARDED, "https://hub.example"),
        (("10.0.0.1", "127.0.0.0/8"), FORWARDED, "https://hub.example"),
        (("127.0.0.1",), {"X-Forwarded-Host": "evil.example, hub.example"}, "http://hub.example"),
        (("127.0.0.1",), {"X-Forwarded-Host": "hub.example/<script>", "X-Forwarded-Proto": "file"}, None),
    ],
)
def test_what_proxies_say(
    tmp_path: Path, proxies: tuple[str, ...], forwarded: Mapping[str, str], source: str | None
) -> None:
    options = [word for each in proxies for word in ("--proxy", each)]
    with running_hub(tmp_path, *options) as hub, hub.client("alice") as client:
        uploaded(client, archive({"a": b"b"}), "a.tar.gz")
        told = client.get("/alice/a.flist.json", headers=forwarded).json()
        assert told["source"] == f"{source or hub.url}/alice/a.flist"
        is_own = client.get("/api/flist/me", headers={**forwarded, "Origin": "https://hub.example"})
        assert is_own.status_code == (200 if source else 403)


def test_what_is_no_proxy(hub: RunningHub) -> None:
    refused = hub.run("hub", "serve", "--data", hub.home / "x", "--proxy", "proxy.example", code=2)
    assert "--proxy" in refused.stderr


def test_blocks_at_a_rate(tmp_path: Path) -> None:
    """Who asks for more than its share waits, and gets it."""
    with running_hub(tmp_path, "--block-rate", "20") as hub, connected(hub) as file:
        began = time.monotonic()
        file.write(spelled(b"EXISTS", *[b"x" * 32] * 15) * 4)
        file.flush()
        assert [answer(file) for _ in range(4)] == [b":0"] * 4
        assert time.monotonic() - began > 1.5  # 60 of them, of which 20 are free


# The description


def operations() -> set[tuple[str, str]]:
    return {(method, path) for path, methods in description()["paths"].items() for method in methods}


def test_every_route_is_described(tmp_path: Path) -> None:
    with closing(Hub(Settings(tmp_path, f"dir://{tmp_path}/blocks", "sqlite"))) as hub:
        served = {
            (method.lower(), route.path)
            for route in routed(hub).routes
            if isinstance(route, Route)
            for method in route.methods or ()
            if method not in {"HEAD", "INFO"}
        }
    assert operations() == served


def schema_of(path: str, kind: str) -> dict[str, Any]:
    answer_ = description()["paths"][path]["get"]["responses"]["200"]["content"][kind]["schema"]
    return {**answer_, "components": description()["components"]}


def test_answers_are_as_described(hub: RunningHub) -> None:
    with hub.client("alice") as client:
        uploaded(client, archive({"a": b"b", "d/e": b""}), "described.tar.gz", **{"metadata-x": "y"})
        client.get("/api/flist/me/described/link/l")
        client.get("/api/flist/me/t/l/tag/alice/described")
        client.get("/api/flist/me/tl/crosstag/alice/t")
        assert client.get("/api/openapi.json").json() == description()
        for path in (path for method, path in operations() if method == "get"):
            kinds = description()["paths"][path]["get"]["responses"]["200"]["content"]
            if "application/json" not in kinds or "{source}" in path or "crosstag" in path:
                continue
            name = "tl" if "taglink" in path else "described"
            asked = path.format(user="alice", repository="alice", name=name, tag="t")
            found = client.get(asked)
            assert found.status_code == 200, asked
            Draft202012Validator(schema_of(path, "application/json")).validate(found.json())
