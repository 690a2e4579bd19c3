"""What goes over the wire to a server, and what becomes of each of its faults.

It is one file because all of it is about one store, and shares what stands in for its servers and disks.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from flistfs.errors import BlockMissingError, StoreError, StoreRefusedError, StoreUnavailableError
from flistfs.stores import MAX_BLOCK_SIZE
from flistfs.stores.redis import server as store_module
from flistfs.stores.redis.connections import MAX_CONNECTIONS
from flistfs.stores.redis.wire import Wire
from tests.generation1 import open_store
from tests.redis_server import RedisServer, free_port, running_redis
from tests.stores.blocks import block, blocks, value_of
from tests.stores.fake_server import Answer, FakeServer, Hangup, Shelf, bulk, fake_server

if TYPE_CHECKING:
    from flistfs.stores import Store

SECRET = "hunter2hunter2"
TRIES = 1 + len(store_module._PAUSES)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_PAUSES", tuple(0.01 for _ in store_module._PAUSES))


def store_at(
    server: FakeServer, *, rest: str = "", password: str | None = None, timeout: float = 60
) -> Store:
    return open_store(f"ardb://127.0.0.1:{server.port}{rest}", password, timeout=timeout)


Script = Callable[[list[bytes]], Answer]


def first(*answers: Answer) -> Callable[[list[bytes]], Answer]:
    """Give these answers first, then behave."""
    left, shelf = list(answers), Shelf()
    return lambda words: left.pop(0) if left else shelf(words)


def always(answer: Answer) -> Callable[[list[bytes]], Answer]:
    return lambda _words: answer


# What is sent.


def test_exactly_the_allowed_commands_are_sent() -> None:
    one, other = block(seed=1), block(seed=2)
    with fake_server(Shelf()) as server:
        store = store_at(server, rest="/name", password=SECRET)
        store.check()
        store.missing([one.hash, other.hash])
        store.put([one, other])
        store.get(one.hash)
        store.sync()
        store.close()
    assert server.commands == [
        [b"AUTH", SECRET.encode()],
        [b"SELECT", b"name"],
        [b"PING"],
        [b"EXISTS", b"0" * 64],
        [b"INFO"],
        [b"EXISTS", one.hash],
        [b"EXISTS", other.hash],
        [b"SET", one.hash, value_of(one)],
        [b"SET", other.hash, value_of(other)],
        [b"GET", one.hash],
    ]
    assert server.connections == 1


def zero_db(*, admin: bytes | None = None, secret: bytes | None = None, mode: str = "user") -> Script:
    """Answer as a 0-db with these passwords, of its administrator and of its namespace."""
    shelf = Shelf(zdb=True)

    def script(words: list[bytes]) -> Answer:
        match words:
            case [b"AUTH", given]:
                if admin is None:
                    return b"-Authentication disabled\r\n"
                return b"+OK\r\n" if given == admin else b"-Access denied\r\n"
            case [b"SELECT", _, given]:
                return b"+OK\r\n" if given in {secret, admin} else b"-Access denied\r\n"
            case [b"SET", *_] if mode == "seq":
                return b"-Invalid key, only update authorized\r\n"
        return shelf(words)

    return script


@pytest.mark.parametrize(("admin", "secret"), [(b"it", None), (None, b"it"), (b"other", b"it")])
def test_zero_db_gets_the_password_as_the_namespaces_too(admin: bytes | None, secret: bytes | None) -> None:
    with fake_server(zero_db(admin=admin, secret=secret)) as server:
        store = open_store(f"zdb://127.0.0.1:{server.port}/some", "it")
        store.put([block()])
        assert store.missing([block().hash]) == set()
        assert server.commands[:2] == [[b"AUTH", b"it"], [b"SELECT", b"some", b"it"]]
        with pytest.raises(StoreRefusedError, match="password is wrong; correct `password`"):
            open_store(f"zdb://127.0.0.1:{server.port}", "wrong").check()
    assert [b"SELECT", b"default", b"wrong"] in server.commands


def test_a_zero_db_that_chooses_its_keys_is_refused_at_once() -> None:
    with fake_server(zero_db(mode="seq")) as server:
        for scheme in ("zdb", "redis", "ardb"):
            with pytest.raises(StoreRefusedError, match="0-db in sequential mode"):
                open_store(f"{scheme}://127.0.0.1:{server.port}").check()
        open_store(f"zdb://127.0.0.1:{server.port}", reading=True).check()
    with fake_server(zero_db()) as server:
        open_store(f"zdb://127.0.0.1:{server.port}").check()


def test_a_server_that_may_not_be_asked_what_it_is() -> None:
    refusing = first(b"+PONG\r\n", b":0\r\n", b"-NOPERM no permissions to run the 'info' command\r\n")
    with fake_server(refusing) as server:
        store_at(server).check()
        assert server.connections == 1


def test_nothing_is_sent_on_connecting_without_a_password() -> None:
    with fake_server(Shelf()) as server:
        store_at(server).missing([b"ab" * 32])
    assert server.names == [b"EXISTS"]


def test_the_commands_in_flight_are_bounded() -> None:
    # The server holds back all replies until it has seen as many commands as it can ever see.
    held: list[bytes] = []
    shelf = Shelf()

    def script(words: list[bytes]) -> Answer:
        answer = shelf(words)
        assert isinstance(answer, bytes)
        held.append(answer)
        if len(held) < 512:
            return b""
        together = b"".join(held)
        held.clear()
        return together

    with fake_server(script) as server:
        store = store_at(server)
        assert len(store.missing([one.hash for one in blocks(1024)])) == 1024
        store.put(blocks(1024))
    assert server.connections == 1


def test_many_threads_share_few_connections() -> None:
    with fake_server(Shelf()) as server:
        store = store_at(server)
        threads = [threading.Thread(target=store.put, args=(blocks(20),)) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= server.connections <= MAX_CONNECTIONS
        assert len(server.commands) == 800


# The replies of different servers.


def test_zero_db_answers_set_with_the_key_or_nil() -> None:
    shelf = Shelf(zdb=True)
    with fake_server(shelf) as server:
        store = store_at(server)
        store.put([block()])
        store.put([block()])
        assert store.get(block().hash) == value_of(block())
    assert server.names == [b"SET", b"SET", b"GET"]


@pytest.mark.parametrize(
    ("reply", "kind", "hint"),
    [
        (b"-OOM command not allowed when used memory > 'maxmemory'.", StoreRefusedError, "full"),
        (b"-MISCONF Redis is configured to save RDB snapshots", StoreRefusedError, "cannot save"),
        (b"-No space left on this namespace", StoreRefusedError, "full"),
        (b"-READONLY You can't write against a read only replica.", StoreRefusedError, "is read-only"),
        (b"-NOAUTH Authentication required.", StoreRefusedError, "needs a password; give `password`"),
        (b"-##Unknown error code:-1004", StoreRefusedError, "needs a password"),
        (b"-Invalid key, only update authorized", StoreRefusedError, "0-db in sequential mode"),
        (b"-NOPERM this user has no permissions to run the 'set' command", StoreRefusedError, "does not let"),
        (b"-ERR something new", StoreError, "something new"),
    ],
)
def test_an_error_reply_is_explained_and_not_tried_again(
    reply: bytes, kind: type[StoreError], hint: str
) -> None:
    with fake_server(always(reply + b"\r\n")) as server:
        with pytest.raises(StoreError, match=hint) as caught:
            store_at(server).put([block()])
        assert type(caught.value) is kind
        assert f"ardb://127.0.0.1:{server.port}" in str(caught.value)
    assert server.names == [b"SET"]


@pytest.mark.parametrize("reply", [b"-LOADING Redis is loading the dataset in memory", b"-BUSY script"])
def test_a_server_that_is_not_ready_is_asked_again(reply: bytes) -> None:
    with fake_server(first(reply + b"\r\n")) as server:
        store_at(server).put([block()])
        assert server.names == [b"SET", b"SET"]
    with fake_server(always(reply + b"\r\n")) as server:
        with pytest.raises(StoreUnavailableError, match="again"):
            store_at(server).put([block()])
        assert len(server.commands) == TRIES


@pytest.mark.parametrize(
    "reply",
    [
        b"-WRONGPASS invalid username-password pair or user is disabled.\r\n",
        b"-##Unknown error code:-1004\r\n",
        b"-ERR Client sent AUTH, but no password is set\r\n",
        b"-ERR AUTH <password> called without any password configured for the default user.\r\n",
    ],
)
def test_a_refused_password_is_not_tried_again(reply: bytes) -> None:
    with fake_server(always(reply)) as server:
        with pytest.raises(StoreRefusedError, match="password") as caught:
            store_at(server, password=SECRET).check()
        assert SECRET not in str(caught.value)
    assert server.names == [b"AUTH"]


def test_a_server_that_repeats_the_password_is_not_quoted() -> None:
    with fake_server(always(b"-ERR unknown command AUTH " + SECRET.encode() + b"\x1b[31m\r\n")) as server:
        store = store_at(server, password=SECRET)
        with pytest.raises(StoreError, match="AUTH") as caught:
            store.check()
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(store) + store.url
    assert str(caught.value).isprintable()


def test_an_error_in_the_middle_of_a_batch_ends_the_connection() -> None:
    # The replies that follow must never be taken for those of the next batch.
    with fake_server(first(b"+OK\r\n", b"-OOM full\r\n", b"+OK\r\n")) as server:
        store = store_at(server)
        with pytest.raises(StoreRefusedError):
            store.put(blocks(3))
        assert store.missing([block(7).hash]) == {block(7).hash}
        assert server.connections == 2


# Faults.


@pytest.mark.parametrize("cut", [b"", b"+", b"+OK", b"+OK\r", b"$64\r\n", b"$64\r\nabc"])
def test_a_cut_connection_is_made_again_and_the_batch_sent_again(cut: bytes) -> None:
    with fake_server(first(b"+OK\r\n", Hangup(cut))) as server:
        store = store_at(server)
        store.put(blocks(3))
        assert server.commands[-3:] == [[b"SET", one.hash, value_of(one)] for one in blocks(3)]
        assert server.connections == 2
        assert store.get(blocks(3)[0].hash) == value_of(blocks(3)[0])


@pytest.mark.parametrize("cut", [b"$100\r\nabc", b"$3\r\nabc", b"$3\r\nabc\r", b"$3"])
def test_a_value_that_is_cut_is_fetched_again(cut: bytes) -> None:
    with fake_server(first(Hangup(cut), bulk(b"value"))) as server:
        assert store_at(server).get(b"ab" * 32) == b"value"


def test_a_server_that_always_hangs_up() -> None:
    with fake_server(always(Hangup())) as server:
        with pytest.raises(StoreUnavailableError, match="cannot reach ardb://"):
            store_at(server).put([block()])
        assert server.connections == TRIES + 1  # once to see whether it speaks TLS


def test_a_connection_that_died_while_idle_is_not_noticed_by_the_caller() -> None:
    with fake_server(Shelf()) as server:
        store = store_at(server)
        store.check()
        server.sockets[0].shutdown(2)
        store.check()
        assert server.connections == 2


def test_a_stall_is_cured_by_sending_again() -> None:
    # As 0-db does now and then inside a pipeline.
    with fake_server(first(b"+OK\r\n", None)) as server:
        store_at(server, timeout=2).put(blocks(2))
        assert server.connections == 2


def test_a_server_that_hangs_is_given_up() -> None:
    with (
        fake_server(always(None)) as server,
        pytest.raises(StoreUnavailableError, match="does not answer"),
    ):
        store_at(server, timeout=0.1).get(b"ab" * 32)


def test_a_server_that_never_reads_is_given_up() -> None:
    release = threading.Event()

    def script(_words: list[bytes]) -> Answer:
        release.wait(100)
        return None

    with fake_server(script) as server:
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            store_at(server, timeout=0.2).put(blocks(8, size=4 * 1024 * 1024))
        release.set()


def test_a_server_that_trickles_is_given_up() -> None:
    # Each byte comes within the time limit for silence, the whole never.

    def serve(server: FakeServer) -> None:
        while not server.sockets:
            time.sleep(0.01)
        try:
            server.sockets[0].sendall(b"$1000\r\n")
            while True:
                server.sockets[0].sendall(b"x")
                time.sleep(0.05)
        except OSError:
            pass

    with fake_server(always(None)) as server:
        trickle = threading.Thread(target=serve, args=(server,))
        trickle.start()
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            store_at(server, timeout=0.4).get(b"ab" * 32)
        trickle.join(60)
        assert server.names == [b"GET"]  # no time is left for another try


@pytest.mark.parametrize("call", ["get", "missing", "check"])
def test_one_deadline_covers_password_tries_and_all(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    # By the clock of the test each step of every try takes most of what silence may take.
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def script(words: list[bytes]) -> Answer:
        clock[0] += 8.0
        return Hangup() if words[0] != b"AUTH" else b"+OK\r\n"

    with fake_server(script) as server:
        store = store_at(server, password=SECRET, timeout=10)
        calls = {
            "get": lambda: store.get(b"ab" * 32),
            "missing": lambda: store.missing([b"ab" * 32]),
            "check": store.check,
        }
        with pytest.raises(StoreUnavailableError):
            calls[call]()
    first_command = {"get": b"GET", "missing": b"EXISTS", "check": b"PING"}[call]
    assert server.names == [b"AUTH", first_command]


def test_a_deadline_of_the_caller_is_kept() -> None:
    with fake_server(always(None)) as server:
        store = store_at(server)
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            store.get(b"ab" * 32, time.monotonic() + 0.2)
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            store.get(b"ab" * 32, time.monotonic() - 1)
    assert server.names == [b"GET"]


def test_nobody_listens() -> None:
    store = open_store(f"redis://:{SECRET}@127.0.0.1:{free_port()}")
    with pytest.raises(
        StoreUnavailableError, match=r"cannot reach redis://127\.0\.0\.1.*Connection refused"
    ) as caught:
        store.check()
    assert SECRET not in str(caught.value)


def test_a_host_that_does_not_exist() -> None:
    with pytest.raises(StoreUnavailableError, match=r"cannot reach redis://no-such-host\.invalid"):
        open_store("redis://no-such-host.invalid").check()


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x00\x01\x02\r\n",
        b"\r\n",
        b"*1\r\n$2\r\nOK\r\n",
        b"%1\r\n",
        b":\r\n",
        b":1_0\r\n",
        b": 1\r\n",
        b":" + b"9" * 3000 + b"\r\n",
        b"$-2\r\n",
        b"$" + b"9" * 18 + b"\r\n",
        b"$2\r\nOKxx",
        b"+OK\n",
        b"+" + b"x" * 100_000,
        b"+QUEUED\r\n",
        b":1\r\n",
        b"$2\r\nOK\r\n",
        b"+OK\r\n+OK\r\n",
    ],
)
def test_nonsense_is_an_error_and_ends_the_connection(reply: bytes) -> None:
    with fake_server(first(reply)) as server:
        store = store_at(server)
        with pytest.raises(StoreError, match="does not behave like a Redis server") as caught:
            store.put([block()])
        assert type(caught.value) is StoreError
        assert len(str(caught.value)) < 300
        assert str(caught.value).isprintable()
        store.put([block()])
        assert server.connections == 2


@pytest.mark.parametrize("reply", [b"+OK\r\n", b":2\r\n", b"$-1\r\n", b"$1\r\n1\r\n", b":-1\r\n"])
def test_nonsense_as_the_answer_to_exists(reply: bytes) -> None:
    with fake_server(first(reply)) as server, pytest.raises(StoreError, match="does not behave"):
        store_at(server).missing([b"ab" * 32])


@pytest.mark.parametrize("reply", [b"+value\r\n", b":1\r\n"])
def test_nonsense_as_the_answer_to_get(reply: bytes) -> None:
    with fake_server(first(reply)) as server, pytest.raises(StoreError, match="does not behave"):
        store_at(server).get(b"ab" * 32)


def test_a_value_larger_than_any_block_is_not_read() -> None:
    script = first(b"$%d\r\n" % (MAX_BLOCK_SIZE + 1))
    with fake_server(script) as server, pytest.raises(StoreError, match="at most"):
        store_at(server).get(b"ab" * 32)


def test_a_block_that_is_not_there_is_not_asked_for_again() -> None:
    with fake_server(Shelf()) as server:
        with pytest.raises(BlockMissingError):
            store_at(server).get(b"ab" * 32)
        assert server.names == [b"GET"]


def test_read_buffers_do_not_wait_for_the_garbage_collector() -> None:
    with fake_server(Shelf()) as server:
        store = store_at(server)
        store.check()
        gc.collect()
        gc.disable()
        try:
            store.check()
            assert not [one for one in gc.get_objects() if isinstance(one, Wire)]
        finally:
            gc.enable()


# Closing.


def test_close_ends_what_waits_in_other_threads() -> None:
    asked = threading.Event()
    errors: list[BaseException] = []

    def script(_words: list[bytes]) -> Answer:
        asked.set()
        return None

    def work(store: Store) -> None:
        try:
            store.get(b"ab" * 32)
        except StoreError as error:
            errors.append(error)

    with fake_server(script) as server:
        store = store_at(server, timeout=120)
        thread = threading.Thread(target=work, args=(store,))
        thread.start()
        assert asked.wait(60)
        store.close()
        thread.join(60)
        assert not thread.is_alive()
        assert [type(error) for error in errors] == [StoreUnavailableError]
        with pytest.raises(StoreUnavailableError, match="no longer in use"):
            store.check()
        assert server.connections == 1


# A real server.


def put_while(server: RedisServer, store: Store, fault: Callable[[], None]) -> list[StoreError]:
    """Put batches in two threads while the fault happens; returns the errors."""
    errors: list[StoreError] = []

    def work(seed: int) -> None:
        for number in range(30):
            try:
                store.put([block(100_000, seed=seed + number * 10 + n) for n in range(10)])
            except StoreError as error:
                errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (0, 10_000)]
    for thread in threads:
        thread.start()
    fault()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    return errors


def test_a_short_outage_is_not_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    # The outage is as short as this machine can make it; a busy one needs seconds.
    monkeypatch.setattr(store_module, "_PAUSES", (0.2,) * 300)
    with running_redis("--appendonly", "yes", "--appendfsync", "always") as server:
        store = open_store(server.url)

        def fault() -> None:
            time.sleep(0.1)
            server.kill()
            server.start()

        assert put_while(server, store, fault) == []
        wanted = [block(100_000, seed=start + n).hash for start in (0, 10_000) for n in range(300)]
        assert store.missing(wanted) == set()
        store.close()


def test_a_server_that_is_gone_and_comes_back() -> None:
    with running_redis() as server:
        store = open_store(server.url)
        store.put([block()])
        server.stop()
        with pytest.raises(StoreUnavailableError, match="Connection refused"):
            store.put([block()])
        server.start()
        assert store.missing([block().hash]) == {block().hash}
        store.put([block()])
        assert store.get(block().hash) == value_of(block())
        store.close()


def test_a_hung_server() -> None:
    with running_redis() as server:
        store = open_store(server.url, timeout=1)
        store.check()
        server.hang()
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            store.put([block()])
        server.resume()
        store.put([block()])
        store.close()


def test_a_full_server() -> None:
    with running_redis("--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as server:
        store = open_store(server.url)
        with pytest.raises(StoreRefusedError, match="is full"):
            store.put(blocks(20, size=500_000))
        store.close()


def test_a_real_server_and_its_password() -> None:
    with running_redis(password=SECRET) as server:
        bare = server.url.replace(f":{SECRET}@", "")
        for url, hint in ((bare, "needs a password"), (bare.replace("//", "//:wrong@"), "password is wrong")):
            with pytest.raises(StoreRefusedError, match=hint):
                open_store(url).check()
        open_store(bare, SECRET).check()
    with running_redis() as server, pytest.raises(StoreRefusedError, match="remove it"):
        open_store(server.url, "unwanted").check()


def test_a_replica_is_read_only() -> None:
    replica = running_redis("--replicaof", "127.0.0.1", str(free_port()))
    with replica as server, pytest.raises(StoreRefusedError, match="is read-only"):
        open_store(server.url).put([block()])


def test_databases_are_apart() -> None:
    with running_redis() as server:
        open_store(server.url + "/3").put([block()])
        assert open_store(server.url + "/3").missing([block().hash]) == set()
        assert open_store(server.url).missing([block().hash]) == {block().hash}
        with pytest.raises(StoreError, match="out of range"):
            open_store(server.url + "/99").check()
