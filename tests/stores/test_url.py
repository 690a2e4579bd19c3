"""Store URLs: what they mean, and that none of them gives its password away."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flistfs.errors import UsageError
from flistfs.stores import default_store_url, without_password
from flistfs.stores.combined.routed import RoutedStore
from flistfs.stores.directory import DirectoryStore
from flistfs.stores.redis.cluster import ClusterStore
from flistfs.stores.redis.server import RedisStore
from flistfs.stores.url import StoreUrl, parse_store_url
from tests.generation1 import open_store
from tests.stores.routers import router_file

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("ardb://host", StoreUrl("ardb", "host", 16379)),
        ("ardb://host/", StoreUrl("ardb", "host", 16379)),
        ("ardb://host:1", StoreUrl("ardb", "host", 1)),
        ("ardb://host/some%2Fname", StoreUrl("ardb", "host", 16379, name="some/name")),
        ("ardb://pw@host:123", StoreUrl("ardb", "host", 123, "pw")),
        ("ardb://:pw@host:123", StoreUrl("ardb", "host", 123, "pw")),
        ("ARDB://host", StoreUrl("ardb", "host", 16379)),
        ("redis://:a%3Ab%40%2f%25@host/2", StoreUrl("redis", "host", 6379, "a:b@/%", "2")),
        ("redis://:p@w@host", StoreUrl("redis", "host", 6379, "p@w")),
        ("redis://:a:b@host", StoreUrl("redis", "host", 6379, "a:b")),
        ("redis://:@host", StoreUrl("redis", "host", 6379)),
        ("redis://@host", StoreUrl("redis", "host", 6379)),
        ("rediss://[::1]:7", StoreUrl("rediss", "::1", 7)),
        ("rediss://[fe80::1]", StoreUrl("rediss", "fe80::1", 6379)),
        ("zdb://127.0.0.1/ns", StoreUrl("zdb", "127.0.0.1", 9900, name="ns")),
        ("redis://bücher.example", StoreUrl("redis", "xn--bcher-kva.example", 6379)),
        ("redis+cluster://:pw@host", StoreUrl("redis+cluster", "host", 6379, "pw")),
        ("redis+cluster://host:7/", StoreUrl("redis+cluster", "host", 7)),
        ("router:///a/r%20x.yaml", StoreUrl("router", path=Path("/a/r x.yaml"))),
        ("router:///r?min-replicas=12", StoreUrl("router", path=Path("/r"), min_replicas=12)),
        ("dir:///a/b", StoreUrl("dir", path=Path("/a/b"))),
        ("dir:///a%20b/%C3%BC/%3F", StoreUrl("dir", path=Path("/a b/ü/?"))),
        ("dir:////a", StoreUrl("dir", path=Path("/a"))),
        ("dir:///", StoreUrl("dir", path=Path("/"))),
    ],
)
def test_meaning(url: str, parsed: StoreUrl) -> None:
    assert parse_store_url(url) == parsed


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("", "looks like"),
        ("host:6379", "looks like"),
        ("redis:host", "looks like"),
        ("http://host", "looks like"),
        ("redis://", "names no host"),
        ("redis://:6379", "names no host"),
        ("redis://:pw@", "names no host"),
        ("redis://user:pw@host", "not a user name"),
        ("redis://host:", "invalid port"),
        ("redis://host:0", "invalid port"),
        ("redis://host:65536", "invalid port"),
        ("redis://host:+1", "invalid port"),
        ("redis://host:٣", "invalid port"),
        ("redis://host:" + "9" * 5000, "invalid port"),
        ("redis://::1", "names no host"),
        ("redis://fe80::1", "brackets"),
        ("redis://[::1", "IPv6"),
        ("redis://[nonsense]", "IPv6"),
        ("redis://[::1]x", "IPv6"),
        ("redis://ho%73t", "host name"),
        ("redis://a..b", "host name"),
        ("redis://" + "a" * 64, "host name"),
        ("redis://host/name", "database number"),
        ("redis://host/1/2", "database number"),
        ("ardb://host/1/2", "one name"),
        ("redis://host?db=1", "query"),
        ("redis://host#1", "query"),
        ("redis+cluster://host/0", "no databases"),
        ("router://r.yaml", "absolute path"),
        ("router:///r?", "number of servers"),
        ("router:///r?min-replicas=0", "number of servers"),
        ("router:///r?min-replicas=1&x=2", "number of servers"),
        ("router:///r?min-replicas=+1", "number of servers"),
        ("router:///r?min-replicas=1?", "number of servers"),
        ("router:///r#x", "query"),
        ("dir:///a?b", "query"),
        ("dir://a/b", "absolute path"),
        ("dir://", "absolute path"),
        ("dir://./a", "absolute path"),
        ("dir:///a%00b", "NUL"),
        ("redis://host\n", "percent-encoded"),
        ("redis:// host", "percent-encoded"),
        ("dir:///\udc80", "percent-encoded"),
    ],
)
def test_malformed(url: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint) as caught:
        open_store(url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://host:{SECRET}",
        f"redis://user:{SECRET}@host",
        f"redis://:{SECRET}@",
        f"redis://:{SECRET}@ho st",
        f"redis://:{SECRET}@host:x",
        f"redis://:{SECRET}@host?x",
        f"redis://:x/{SECRET}@host",
        f"redis://:[{SECRET}@[host",
        f"http://:{SECRET}@host",
        f"redis:{SECRET}@host",
        f"redis+cluster://:{SECRET}@host/x",
        f"router://{SECRET}@host/x",
        f"router:///x?{SECRET}",
        f"dir://{SECRET}@host/x",
    ],
)
def test_a_malformed_url_is_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_store_url(url)
    assert SECRET not in str(caught.value)
    assert SECRET not in without_password(url)


def test_the_password_argument_is_used_if_the_url_has_none() -> None:
    assert parse_store_url("redis://host", "other").password == "other"
    assert parse_store_url("redis://:@host", "other").password == "other"
    assert parse_store_url("redis://:own@host", "other").password == "own"
    assert parse_store_url("redis://host", "").password is None


def test_a_password_that_cannot_be_sent() -> None:
    with pytest.raises(UsageError, match="not text"):
        parse_store_url("redis://host", "\ud800")


def test_open_store_picks_the_kind(tmp_path: Path) -> None:
    assert isinstance(open_store(f"dir://{tmp_path}"), DirectoryStore)
    assert isinstance(open_store("ardb://host"), RedisStore)
    assert isinstance(open_store("redis+cluster://host"), ClusterStore)
    router = router_file(tmp_path, {"00:FF": "ardb://host"})
    assert isinstance(open_store(f"router://{router}"), RoutedStore)


def test_the_default_store_is_a_directory_among_the_users_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "my data"))
    assert parse_store_url(default_store_url()).path == tmp_path / "my data" / "flistfs" / "blocks"
    assert " " not in default_store_url()


@pytest.mark.parametrize(
    "url",
    [
        "ardb://pw@host:1/x%20y",
        "rediss://:pw@[::1]",
        "redis+cluster://:pw@host",
        "dir:///a%20b%25",
        "router:///a%20b%25?min-replicas=2",
    ],
)
def test_what_is_shown_means_the_same(url: str) -> None:
    shown = without_password(url)
    assert "pw" not in shown
    assert parse_store_url(shown, parse_store_url(url).password) == parse_store_url(url)


def test_without_password_of_nonsense() -> None:
    assert SECRET not in without_password(f"redis://user:{SECRET}@host")


SCHEMES = ["ardb", "redis", "rediss", "redis+cluster", "zdb", "dir", "router"]
urls = st.one_of(
    st.text(),
    st.builds("{}://{}".format, st.sampled_from(SCHEMES), st.text()),
    st.from_regex(r"(ardb|rediss?|redis\+cluster|zdb|dir|router)://[a-z%:@/\[\]0-9.?#=-]*", fullmatch=True),
)


@given(urls, st.none() | st.text())
@example("redis://[::1%25eth0]", None)
@example("redis://\u2100", None)  # NFKC makes a slash of it
def test_nothing_but_usage_errors(url: str, password: str | None) -> None:
    try:
        store = open_store(url, password)
    except UsageError:
        without_password(url)
    else:
        assert without_password(url) == store.url == without_password(store.url)
        store.close()


@given(st.text().filter(bool), st.sampled_from(["ardb://:{}@host:1/n", "redis://{}@[::1]", "zdb://:{}@h"]))
def test_passwords_are_kept_and_never_shown(password: str, form: str) -> None:
    try:
        quoted = quote(SECRET + password, safe="")
    except UnicodeEncodeError:
        return
    parsed = parse_store_url(form.format(quoted))
    assert parsed.password == SECRET + password
    shown = f"{parsed} {parsed!r} {without_password(form.format(quoted))} {open_store(form.format(quoted))!r}"
    assert SECRET not in shown
