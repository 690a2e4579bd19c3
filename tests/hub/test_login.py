"""Logging in by password, tokens that end, and who acts for a repository."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from flistfs.api import publishing
from flistfs.errors import HubRefusedError
from flistfs.hub.accounts import Accounts, Role
from flistfs.hub.errors import TooManyError
from flistfs.hub.tries import Tries
from tests.e2e.schemas import check_answer
from tests.hub.conftest import RunningHub, archive, running_hub, said, uploaded

PASSWORD = "correct hörse: battery"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    with running_hub(tmp_path) as running:
        running.run("hub", "user", "passwd", "alice", "--data", running.data, stdin=f"{PASSWORD}\n")
        yield running


def asked(client: httpx2.Client, user: str, password: str, query: str = "") -> httpx2.Response:
    login = httpx2.BasicAuth(user.encode(), password.encode())
    return client.post(f"/api/hub/token{query}", auth=login)


def test_a_token_for_a_password(hub: RunningHub) -> None:
    with hub.client() as anybody:
        made = asked(anybody, "alice", PASSWORD, "?label=laptop&scope=read&expires=12h")
        payload = made.json()["payload"]
        assert payload["user"] == "alice"
        assert "access-control-allow-origin" not in made.headers
        own = {"Authorization": f"bearer {payload['token']}"}
        assert anybody.get("/api/flist/me", headers=own).json()["payload"]["username"] == "alice"
        assert said(anybody.delete("/api/flist/me/x", headers=own), 403) == "this token may not write"
        (token,) = [each for each in tokens(hub) if each["label"] == "laptop"]
        assert token["expires"] == token["created"] + 12 * 3600
        wrong = "wrong user name or password"
        for user, password in (("alice", "wrong"), ("alice", ""), ("nobody", PASSWORD), ("bob", PASSWORD)):
            assert said(asked(anybody, user, password), 401) == wrong
        for query in ("?scope=admin", "?scope=all", "?expires=soon", "?expires=-1d"):
            assert asked(anybody, "alice", PASSWORD, query).status_code == 400
        for header in ("", "Basic", "Basic ?", "Basic YQ==", "Bearer YTpi"):
            answer = anybody.post("/api/hub/token", headers={"Authorization": header})
            assert said(answer, 401) == "a user name and a password are wanted"
        other = {"Sec-Fetch-Site": "cross-site"}
        assert said(anybody.post("/api/hub/token", headers=other), 403)
        assert anybody.delete("/api/hub/token", headers=own).json() == {"status": "success"}
        assert said(anybody.get("/api/flist/me", headers=own), 401) == "invalid signature"
    for secret in (PASSWORD, payload["token"]):
        assert secret not in hub.said()


def tokens(hub: RunningHub) -> list[dict[str, Any]]:
    printed = hub.run("hub", "token", "list", "alice", "--data", hub.data, "--json").stdout
    return json.loads(printed)["tokens"]  # type: ignore[no-any-return]


def test_passwords_are_not_guessed(hub: RunningHub) -> None:
    with hub.client() as anybody:
        for _ in range(10):
            asked(anybody, "alice", "wrong")
        answer = asked(anybody, "alice", PASSWORD)
        assert said(answer, 429) == "too many wrong passwords; try again in some minutes"
        assert 0 < int(answer.headers["retry-after"]) <= 301


def test_one_address_does_not_try_all_names() -> None:
    now = [0.0]
    tries = Tries(3, 60.0, lambda: now[0])
    for _ in range(3):
        tries.check("here")
        tries.failed("here")
    with pytest.raises(TooManyError) as caught:
        tries.check("here")
    assert caught.value.retry_after == 61
    tries.check("there")
    now[0] = 60.0
    tries.check("here")
    tries.failed("here")
    tries.succeeded("here")
    for number in range(30_000):  # names that somebody makes up take no memory for ever
        tries.failed(str(number))
    assert len(tries._failed) == 10_000


def test_login_and_logout_by_the_commands(hub: RunningHub) -> None:
    refused = hub.run("hub", "login", hub.url, "--user", "alice", code=13, stdin="wrong\n")
    assert "wrong user name or password" in refused.stderr
    done = hub.run("hub", "login", hub.url, "--user", "alice", "--json", stdin=f"{PASSWORD}\n")
    check_answer("hub", done.stdout, 0)
    assert hub.run("hub", "whoami").stdout == "alice\n"
    (kept,) = [each for each in tokens(hub) if str(each["label"]).startswith("login on ")]
    assert kept["scope"] == "write"
    hub.run("hub", "logout", "--revoke")
    assert kept not in tokens(hub)
    hub.run("hub", "whoami", code=2)
    hub.run("hub", "login", hub.url, "--user", "alice", code=2, stdin="\n")


def test_hubs_that_know_no_passwords(hub: RunningHub) -> None:
    """An address where there is a server, but no such routes."""
    with pytest.raises(HubRefusedError, match="makes no tokens for passwords"):
        publishing.login_with_password(f"{hub.url}/elsewhere", "alice", PASSWORD)


def test_members(hub: RunningHub) -> None:
    hub.run("hub", "user", "allow", "alice", "official", "--owner", "--data", hub.data)
    listed = hub.run("hub", "user", "list", "--data", hub.data, "--json").stdout
    check_answer("hub", listed, 0)
    assert [(each["name"], each["owned"]) for each in json.loads(listed)["users"]] == [
        ("alice", ["official"]),
        ("bob", []),
    ]
    assert "alice official (owner)\n" in hub.run("hub", "user", "list", "--data", hub.data).stdout
    refused = hub.run("hub", "member", "list", "official", user="bob", code=13)
    assert "only owners of the repository may do this" in refused.stderr
    added = hub.run("hub", "member", "add", "official", "bob", "--json", user="alice")
    check_answer("hub", added.stdout, 0)
    assert hub.run("hub", "member", "list", "official", user="alice").stdout == "alice  owner\nbob  member\n"
    hub.run("hub", "member", "add", "official", "carol", user="bob", code=13)
    assert "user not found" in hub.run("hub", "member", "add", "official", "x", user="alice", code=13).stderr
    with hub.client("bob") as bob:
        bob.headers["Cookie"] = "active-user=official"
        uploaded(bob, archive({"a": b"b"}), "a.tar.gz")
        assert bob.get("/official/a.flist").status_code == 200
    hub.run("hub", "member", "add", "official", "bob", "--owner", user="alice")
    hub.run("hub", "member", "remove", "official", "alice", user="bob")
    answer = hub.run("hub", "member", "list", "official", "--json", user="bob").stdout
    check_answer("hub", answer, 0)
    assert json.loads(answer)["members"] == [{"user": "bob", "role": "owner"}]
    hub.run("hub", "member", "list", "official", user="alice", code=13)
    assert hub.run("hub", "member", "list", "alice", user="alice").stdout == "alice  owner\n"
    with hub.client("bob") as bob:
        for body in ("no json", "[]", '{"role": "king"}', "{}", "x" * 2000):
            path = "/api/hub/members/official/alice"
            assert "malformed json request" in said(bob.put(path, content=body), 400)
        assert said(bob.put("/api/hub/members/alice/bob"), 403)


def test_accounts_of_before_there_were_owners(tmp_path: Path) -> None:
    path = tmp_path / "accounts.sqlite3"
    with Accounts(path) as accounts:
        accounts.add_user("alice")
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE members")
    connection.execute(
        "CREATE TABLE members (repository TEXT NOT NULL, user TEXT NOT NULL REFERENCES users "
        "ON DELETE CASCADE, PRIMARY KEY (repository, user)) WITHOUT ROWID"
    )
    connection.execute("INSERT INTO members VALUES ('official', 'alice')")
    connection.commit()
    connection.close()
    for _ in range(2):
        with Accounts(path) as accounts:
            assert accounts.acts_for("alice", "official")
            assert not accounts.owns("alice", "official")
    with Accounts(path) as accounts:
        accounts.add_member("official", "alice", Role.OWNER)
        assert accounts.owns("alice", "official")
