"""Users and tokens of a hub, by the commands and on their own."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from flistfs.errors import UsageError
from flistfs.hub.accounts import Accounts, Scope
from flistfs.hub.errors import HubError
from tests.e2e.schemas import check_answer
from tests.hub.conftest import RunningHub


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(tmp_path: Path, clock: Clock) -> Iterator[Accounts]:
    with Accounts(tmp_path / "accounts.sqlite3", clock) as opened:
        opened.add_user("alice", "right")
        yield opened


def test_a_token_is_a_text_that_is_kept_nowhere(accounts: Accounts, tmp_path: Path) -> None:
    text = accounts.new_token("alice", "laptop", Scope.WRITE)
    assert "." not in text
    assert text.replace("_", "").replace("-", "").isalnum()
    token = accounts.token(text)
    assert token is not None
    assert (token.user, token.label, token.scope) == ("alice", "laptop", Scope.WRITE)
    assert accounts.token(text + "x") is None
    assert accounts.token("\udcff") is None
    for path in tmp_path.iterdir():
        assert text.encode() not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600 or path.suffix != ".sqlite3"


def test_tokens_end(accounts: Accounts, clock: Clock) -> None:
    text = accounts.new_token("alice", "", Scope.READ, 3600)
    assert accounts.token(text) is not None
    clock.now += 3599
    assert accounts.token(text) is not None
    clock.now += 1
    assert accounts.token(text) is None
    other = accounts.new_token("alice", "", Scope.READ)
    (_, token) = accounts.tokens("alice")
    accounts.revoke(token.id)
    assert accounts.token(other) is None
    with pytest.raises(UsageError, match="there is no token"):
        accounts.revoke(token.id)


def test_the_last_use_is_known_to_the_minute(accounts: Accounts, clock: Clock) -> None:
    text = accounts.new_token("alice", "", Scope.READ)
    for seconds, used in ((0, 1_000_000), (59, 1_000_000), (1, 1_000_060)):
        clock.now += seconds
        accounts.token(text)
        (token,) = accounts.tokens()
        assert token.used == used


def test_scopes_have_an_order() -> None:
    assert Scope.ADMIN.allows(Scope.WRITE)
    assert Scope.WRITE.allows(Scope.READ)
    assert not Scope.READ.allows(Scope.WRITE)


def test_who_goes_leaves_no_token(accounts: Accounts) -> None:
    text = accounts.new_token("alice", "", Scope.WRITE)
    accounts.add_member("official", "alice")
    assert accounts.acts_for("alice", "official")
    accounts.remove_user("alice")
    assert accounts.token(text) is None
    assert not accounts.acts_for("alice", "official")
    for call in (accounts.remove_user, lambda name: accounts.set_password(name, "x")):
        with pytest.raises(UsageError, match="there is no user alice"):
            call("alice")


def test_passwords_are_tried_so_many_times(accounts: Accounts, clock: Clock) -> None:
    assert accounts.is_password("alice", "right")
    assert not accounts.is_password("nobody", "right")
    for _ in range(10):
        assert not accounts.is_password("alice", "wrong")
    with pytest.raises(HubError, match="too many wrong passwords"):
        accounts.is_password("alice", "right")
    clock.now += 301
    assert accounts.is_password("alice", "right")
    accounts.set_password("alice", "new")
    assert not accounts.is_password("alice", "right")


@pytest.mark.parametrize("name", ["", ".x", "a/b", "a\nb", "me", "api", "\udcff", "x" * 201])
def test_names_that_no_user_has(accounts: Accounts, name: str) -> None:
    with pytest.raises(UsageError, match="invalid name"):
        accounts.add_user(name)


def test_by_the_commands(tmp_path: Path) -> None:
    hub = RunningHub(tmp_path)

    def run(*words: str, code: int = 0, stdin: str = "") -> str:
        done = hub.run("hub", *words, "--data", hub.data, "--json", code=code, stdin=stdin)
        check_answer("hub", done.stdout, code)
        return done.stdout

    run("user", "add", "alice")
    run("user", "add", "alice", code=2)
    run("user", "passwd", "alice", stdin="a password\n")
    run("user", "passwd", "alice", code=2)
    run("user", "allow", "alice", "official")
    (user,) = json.loads(run("user", "list"))["users"]
    assert (user["name"], user["has_password"], user["repositories"]) == ("alice", True, ["official"])
    assert json.loads(run("token", "new", "alice", "--expires", "90d"))["token"].startswith("flh_")
    run("token", "new", "alice", "--expires", "soon", code=2)
    run("token", "new", "bob", code=2)
    (token,) = json.loads(run("token", "list"))["tokens"]
    assert token["expires"] - token["created"] == 90 * 86400
    run("token", "revoke", str(token["id"]))
    run("token", "revoke", "77", code=2)
    run("user", "remove", "alice")
    assert json.loads(run("user", "list"))["users"] == []
    assert b"a password" not in (hub.data / "accounts.sqlite3").read_bytes()
