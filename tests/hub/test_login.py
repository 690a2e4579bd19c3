"""Logging in by password, and tokens that end."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from argon2 import PasswordHasher, extract_parameters

from flistfs.api import publishing
from flistfs.errors import HubRefusedError, UsageError
from flistfs.hub import login
from flistfs.hub.accounts import Accounts
from flistfs.hub.errors import TooManyError
from flistfs.hub.tries import Tries
from tests.e2e.schemas import check_answer
from tests.hub.conftest import FLISTFS, RunningHub, running_hub, said

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


def test_what_a_token_is_to_be_in_the_body(hub: RunningHub) -> None:
    basic = httpx2.BasicAuth(b"alice", PASSWORD.encode())
    with hub.client() as anybody:
        body = {"label": "body", "scope": "read", "expires": None}
        made = anybody.post("/api/hub/token?scope=write", auth=basic, json=body)
        assert made.status_code == 200, made.text
        (token,) = [each for each in tokens(hub) if each["label"] == "body"]
        assert (token["scope"], token["expires"]) == ("read", None)
        for content in ("no json", "[]", '{"scope": 1}', '{"scope": "admin"}', "x" * 2000):
            assert said(anybody.post("/api/hub/token", auth=basic, content=content), 400)


def test_a_right_password_does_not_free_an_address(hub: RunningHub) -> None:
    with hub.client() as anybody:
        for number in range(50):
            if number % 10 == 0:
                assert asked(anybody, "alice", PASSWORD).status_code == 200
            assert asked(anybody, f"name{number}", "wrong").status_code == 401
        assert said(asked(anybody, "alice", PASSWORD), 429)


def test_a_network_of_ipv6_is_one_address() -> None:
    assert login._network("2001:db8::1") == login._network("2001:db8::ffff:1") == "2001:db8::/64"
    assert login._network("2001:db8:0:1::1") != login._network("2001:db8::1")
    for plain in ("192.0.2.1", "::ffff:192.0.2.1", ""):
        assert login._network(plain) == plain


def test_unknown_users_take_one_verification_and_no_hashing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Work that is done only for some of them would tell who is known."""
    done: list[str] = []

    class Counted(PasswordHasher):
        def hash(self, *arguments: Any, **options: Any) -> str:  # noqa: ANN401
            done.append("hash")
            return super().hash(*arguments, **options)

        def verify(self, hash: str | bytes, password: str | bytes) -> Any:  # noqa: A002, ANN401
            parameters = extract_parameters(str(hash))
            done.append(f"verify {parameters}")
            return super().verify(hash, password)

    monkeypatch.setattr("flistfs.hub.accounts.PasswordHasher", Counted)
    with Accounts(tmp_path / "accounts.sqlite3") as accounts:
        accounts.add_user("alice", "right")
        accounts.add_user("bob")
        done.clear()
        for name in ("alice", "bob", "nobody"):
            assert not accounts.is_password(name, "wrong")
    assert len(done) == 3
    assert len(set(done)) == 1
    assert done[0].startswith("verify")


def test_secrets_that_cannot_be_sent(hub: RunningHub) -> None:
    for locale in ("C.UTF-8", "C"):
        done = subprocess.run(
            [FLISTFS, "hub", "login", hub.url, "--user", "alice"],
            env={**hub.env, "LC_ALL": locale},
            input=b"secr\xff\n",
            capture_output=True,
            check=False,
        )
        assert done.returncode == 2
        assert b"the password is not UTF-8" in done.stderr
        assert b"secr\\" not in done.stderr
    with pytest.raises(UsageError, match="colon"):
        publishing.login_with_password(hub.url, "a:b", PASSWORD)
