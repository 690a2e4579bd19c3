"""What every store promises, shown on each of them."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from flistfs import stores
from flistfs.errors import BlockMissingError, StoreRefusedError
from flistfs.format.base import Block
from flistfs.format.opening import formats
from flistfs.stores import MAX_BLOCK_SIZE, Store
from tests.generation1 import open_store
from tests.redis_server import free_port, running_cluster, running_redis
from tests.stores.blocks import Made, value_of
from tests.stores.routers import router_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "s3cret: with @ / and ü"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout key.pem -out cert.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command.split(), *names], cwd=directory, check=True, capture_output=True)
    return directory


KINDS = [
    "dir",
    "redis",
    "redis with password",
    "ardb with name",
    "rediss",
    "router",
    "router with replicas",
    "cluster",
    "cluster with password",
]


@pytest.fixture(scope="module", params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    match request.param:
        case "dir":
            yield f"dir://{tmp_path_factory.mktemp('store')}/a directory/blocks".replace(" ", "%20")
        case "redis":
            with running_redis() as server:
                yield server.url
        case "redis with password":
            with running_redis(password=PASSWORD) as server:
                yield server.url.replace(PASSWORD, "s3cret%3A%20with%20%40%20%2F%20and%20%C3%BC")
        case "ardb with name":
            with running_redis() as server:
                yield f"ardb://127.0.0.1:{server.port}/7"
        case "router":
            with running_redis() as one, running_redis(password=PASSWORD) as two:
                secret = two.url.replace(PASSWORD, quote(PASSWORD, safe=""))
                file = router_file(tmp_path_factory.mktemp("router"), {"00:7F": one.url, "80:FF": secret})
                yield f"router://{file}"
        case "router with replicas":
            with running_redis() as one, running_redis() as two:
                directory = tmp_path_factory.mktemp("router")
                file = router_file(directory, {"00:FF": one.url, "0:f": two.url, "00:7f": f"{one.url}/0"})
                yield f"router://{file}"
        case "cluster" | "cluster with password":
            if shutil.which("redis-cli") is None:
                pytest.skip("redis-cli, which makes a cluster, is not there")
            password = PASSWORD if "password" in request.param else None
            with running_cluster(password) as cluster:
                yield cluster.url.replace(PASSWORD, quote(PASSWORD, safe=""))
        case _:
            directory = request.getfixturevalue("certificate")
            port = str(free_port())
            files = ["--tls-cert-file", f"{directory}/cert.pem", "--tls-key-file", f"{directory}/key.pem"]
            with running_redis("--tls-port", port, "--tls-auth-clients", "no", *files):
                yield f"rediss://localhost:{port}"


@pytest.fixture(params=formats(), ids=lambda each: each.name)
def made(request: pytest.FixtureRequest) -> Made:
    return Made(request.param.codec)


@pytest.fixture
def store(
    url: str, made: Made, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    if url.startswith("rediss"):
        directory: Path = request.getfixturevalue("certificate")
        monkeypatch.setenv("SSL_CERT_FILE", f"{directory}/cert.pem")
    opened = stores.open_store(url, made.codec)
    yield opened
    opened.close()


def test_check_passes_and_may_be_repeated(store: Store) -> None:
    store.check()
    store.check()


def test_what_was_put_comes_back(store: Store, made: Made) -> None:
    stored = [made.block(1), made.block(16), made.block(17), made.block(4096), made.block(512 * 1024 + 36)]
    store.put(stored)
    assert [store.get(one.hash) for one in stored] == [value_of(one) for one in stored]


def test_any_number_of_parts(store: Store, made: Made) -> None:
    # More parts than one system call takes, empty ones among them.
    parts = tuple(b"%d" % n if n % 3 else b"" for n in range(3000))
    odd = made.named(parts)
    store.put([odd])
    assert store.get(odd.hash) == b"".join(parts)


def test_put_again_changes_nothing(store: Store, made: Made) -> None:
    again = made.block(5000, seed=1)
    store.put([again, again])
    store.put([again])
    assert store.get(again.hash) == value_of(again)


def test_put_and_missing_of_nothing(store: Store) -> None:
    store.put([])
    assert store.missing([]) == set()


def test_missing_names_exactly_what_is_not_there(store: Store, made: Made) -> None:
    some = made.blocks(1500, size=40)
    there, absent = some[::2], some[1::2]
    assert store.missing([one.hash for one in some]) == {one.hash for one in some}
    store.put(there)
    asked = [one.hash for one in (*some, *some[:3])]
    assert store.missing(asked) == {one.hash for one in absent}


def test_a_large_batch(store: Store, made: Made) -> None:
    # More commands and more bytes than go into one pipeline.
    many = made.blocks(1100, size=20_000)
    store.put(many)
    assert store.missing([one.hash for one in many]) == set()
    assert all(store.get(one.hash) == value_of(one) for one in many[::100])


def test_the_largest_block(store: Store, made: Made) -> None:
    largest = made.block(MAX_BLOCK_SIZE)
    store.put([largest])
    assert store.get(largest.hash) == value_of(largest)


def test_a_block_that_is_too_large_is_refused(store: Store, made: Made) -> None:
    small, large = made.block(10, seed=2), made.block(MAX_BLOCK_SIZE + 1)
    with pytest.raises(StoreRefusedError, match="too large"):
        store.put([small, large])
    assert store.missing([large.hash]) == {large.hash}


def test_wrong_blocks_are_found_and_put_goes_over_them(store: Store, made: Made) -> None:
    some = made.blocks(40, size=2000)
    names = [one.hash for one in some]
    changed = [Block(one.hash, one.key, (b"0" * 16, b"x" * 1984)) for one in some[::7]]
    store.put([*some, *changed])
    assert store.missing(names, {one.hash: one.size for one in some}) == set()
    assert store.wrong([*names, made.absent], thorough=True) == {one.hash for one in changed}
    assert store.copies(changed[0].hash)[0] == value_of(changed[0])
    store.put(some)
    assert store.wrong(names, thorough=True) == set()
    assert set(store.copies(changed[0].hash)) == {value_of(some[0])}
    assert store.copies(made.absent) == []


def test_a_missing_block(store: Store, made: Made) -> None:
    with pytest.raises(BlockMissingError, match=made.codec.show(made.absent)):
        store.get(made.absent)


def test_sync_after_put_and_on_its_own(store: Store, made: Made) -> None:
    store.sync()
    store.put([made.block(3)])
    store.sync()


def test_many_threads(store: Store, made: Made) -> None:
    # More of them than there are connections; half of the blocks are the same for all.
    def work(number: int) -> list[bytes]:
        mine = [*made.blocks(8, size=3000), *(made.block(3000, seed=1000 * number + n) for n in range(1, 9))]
        store.put(mine)
        assert store.missing([one.hash for one in mine]) == set()
        return [one.hash for one in mine if store.get(one.hash) != value_of(one)]

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(work, range(1, 49))) == [[]] * 48


def test_the_url_has_no_password(store: Store, url: str) -> None:
    assert "s3cret" not in store.url
    assert store.url.partition("://")[0] == url.partition("://")[0]


def test_close_may_be_repeated(store: Store, made: Made) -> None:
    store.put([made.block(4)])
    store.close()
    store.close()


def test_tls_and_plain_are_told_apart(certificate: Path) -> None:
    port = str(free_port())
    files = ["--tls-cert-file", f"{certificate}/cert.pem", "--tls-key-file", f"{certificate}/key.pem"]
    with running_redis("--tls-port", port, "--tls-auth-clients", "no", *files) as plain:
        for url in (f"redis://localhost:{port}", f"ardb://:secret@localhost:{port}"):
            with pytest.raises(StoreRefusedError, match=f"speaks TLS: write rediss://localhost:{port}"):
                open_store(url).check()
        # A plain server waits for the end of the line that it takes a TLS greeting for.
        store = open_store(f"rediss://localhost:{plain.port}", timeout=1)
        with pytest.raises(StoreRefusedError, match=f"not speak TLS.* write redis://localhost:{plain.port}"):
            store.check()
        store.close()


def test_an_untrusted_certificate_is_refused(certificate: Path) -> None:
    port = str(free_port())
    files = ["--tls-cert-file", f"{certificate}/cert.pem", "--tls-key-file", f"{certificate}/key.pem"]
    with running_redis("--tls-port", port, "--tls-auth-clients", "no", *files):
        store = open_store(f"rediss://localhost:{port}")
        with pytest.raises(StoreRefusedError, match="certificate that this system does not trust"):
            store.check()
        store.close()
