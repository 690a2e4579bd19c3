"""Who acts for a repository, and who says so."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from flistfs.hub.accounts import Accounts, Role
from tests.e2e.schemas import check_answer
from tests.hub.conftest import RunningHub, archive, running_hub, said, uploaded


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[RunningHub]:
    with running_hub(tmp_path) as running:
        yield running


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


def test_who_may_say_who_acts(hub: RunningHub) -> None:
    path = "/api/hub/members/official/bob"
    hub.run("hub", "user", "allow", "alice", "official", "--owner", "--data", hub.data)
    reading = hub.run("hub", "token", "new", "alice", "--scope", "read", "--data", hub.data).stdout.strip()
    hub.add_user("root", "admin")
    with hub.client() as anybody:
        assert said(anybody.put(path), 401)
        assert said(anybody.put(path, headers={"Authorization": f"Bearer {reading}"}), 403)
    with hub.client("bob") as bob:
        assert said(bob.put(path), 403)
        assert said(bob.delete("/api/hub/members/official/alice"), 403)
    with hub.client("root") as root:
        assert root.put(path).json() == {"status": "success"}
        assert said(root.delete("/api/hub/members/official/nobody"), 404) == "user not found"
        assert said(root.put(path, headers={"Origin": "https://other.example"}), 403)
        listed = root.get("/api/hub/members/official")
        assert "access-control-allow-origin" not in listed.headers
        assert listed.json()["payload"]["members"] == [
            {"user": "alice", "role": "owner"},
            {"user": "bob", "role": "member"},
        ]
    with hub.client("bob") as bob:  # a member acts for it, and says of nobody else that it does
        assert said(bob.get("/api/hub/members/official"), 403)


def test_the_repository_of_ones_own_name_may_be_left_out(hub: RunningHub) -> None:
    hub.run("hub", "member", "add", "bob", "--owner", user="alice")
    assert hub.run("hub", "member", "list", user="alice").stdout == "alice  owner\nbob  owner\n"
    hub.run("hub", "member", "remove", "bob", user="alice")
    assert hub.run("hub", "member", "list", user="alice").stdout == "alice  owner\n"
    hub.run("hub", "member", "remove", "alice", user="alice")  # its own is its own
    assert hub.run("hub", "member", "list", user="alice").stdout == "alice  owner\n"
    hub.run("hub", "member", "add", "a", "b", "c", code=2, user="alice")
    hub.run("hub", "member", "add", code=2, user="alice")
