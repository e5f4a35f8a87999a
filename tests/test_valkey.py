"""A store on Valkey when the server, or the way to it, is not as one would like it to be."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from benchmarks.certificate import self_signed

from chalk_online_store import (
    AccessDenied,
    AsyncOnlineStore,
    Feature,
    InvalidCredentials,
    Namespace,
    OnlineStore,
    ReadFailed,
    Status,
    WriteFailed,
    features,
)
from chalk_online_store.backend import Call
from chalk_online_store.connect import table_size
from chalk_online_store.errors import (
    ConnectionFailed,
    MalformedResponse,
    OnlineStoreError,
    RegistryUnavailable,
    RequestError,
    RequestRefused,
    RequestTimeout,
    ServerError,
    Throttled,
)
from chalk_online_store.testing import EngineNotStarted, Valkey
from chalk_online_store.valkey.resp import BrokenReply, ErrorReply
from chalk_online_store.valkey.transport import AsyncValkeyTransport, ValkeyTransport
from chalk_online_store.valkey.transport.shared import Server
from chalk_online_store.valkey.urls import ValkeyTarget
from tests.contract.conftest import AnyStore


@features
class User:
    id: int
    a: int
    b: str


@features(max_staleness="1h")
class Visit:
    id: int
    a: int


ROWS: list[dict[str, Any]] = [{"id": i, "a": i, "b": f"b{i}"} for i in range(50)]
ACL = "user secure on >secret ~* +@all"


@contextmanager
def store_at(
    kind: type, url: str, schema: Sequence[type] = (User, Visit), **options: Any
) -> Iterator[AnyStore]:
    """A store of either kind."""
    with asyncio.Runner() as runner:
        store = AnyStore(kind.open(url, schema, **options), runner)  # type: ignore[attr-defined]
        try:
            yield store
        finally:
            store.close()


@pytest.fixture(params=[OnlineStore, AsyncOnlineStore])
def kind(request: pytest.FixtureRequest) -> type:
    found: type = request.param
    return found


def client_of(server: Valkey, **options: Any) -> Any:
    """redis-py itself."""
    return redis.Redis(port=server.port or 0, **options)


# --- ways to a server ----------------------------------------------------------------------


def test_a_unix_socket(kind: type, tmp_path: Path) -> None:
    """A store on a socket of this machine, in a database of its own."""
    path = tmp_path / "valkey.sock"
    with Valkey(unix_socket=path), store_at(kind, f"valkey+unix://{path}?db=5") as store:
        store.write(User, ROWS)
        assert store.read(User, range(50)).column("a") == list(range(50))


def test_tls(kind: type, tmp_path: Path, redis_binary: str) -> None:
    """Over TLS the server's certificate is checked, and ours is shown."""
    pem = str(self_signed(tmp_path / "certificate.pem"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"tls-port": str(port), "tls-auth-clients": "yes", "tls-cert-file": pem}
    settings |= {"tls-key-file": pem, "tls-ca-cert-file": pem}
    files = f"ssl_ca_certs={pem}&ssl_certfile={pem}&ssl_keyfile={pem}"
    stranger = ValkeyTarget((("127.0.0.1", port),), tls=True)
    server = Valkey(binary=redis_binary, settings=settings)
    try:
        server.start()
    except EngineNotStarted as error:
        if "tls-port" in str(error):
            pytest.skip("This server was built without TLS: tests/test_valkey_tls.py has a proxy.")
        raise
    with ExitStack() as ending:
        ending.callback(server.stop)
        with store_at(kind, f"valkeys://127.0.0.1:{port}?{files}") as store:
            store.write(User, ROWS)
            assert store.read(User, [7])[0]["a"] == 7
        with pytest.raises(ConnectionFailed):
            ValkeyTransport(stranger).warm(1, 10)
        asyncio.run(_refused(stranger))


async def _refused(target: ValkeyTarget) -> None:
    with pytest.raises(ConnectionFailed):
        await AsyncValkeyTransport(target).warm(1, 10)
    await asyncio.sleep(0.05)  # asyncio closes a failed TLS connection in its own time.


def scanned(store: OnlineStore) -> list[str]:
    """All partition keys: a page may be empty, where others' keys lie between."""
    found, start = list[str](), b""
    while True:
        call = Call(time.monotonic() + 120)
        page = store.driver.run(store.core.backend.scan_keys(0, 1, start, 1000, call))
        found += page.pks
        start = page.next
        if not start:
            return found


def test_prefixes_share_nothing(valkey: Valkey) -> None:
    """Environments on one server know nothing of each other, whatever their prefixes hold."""
    urls = [valkey.url(prefix) for prefix in ("dev:", "dev*:", "[a]", "ü?")]
    for number, url in enumerate(urls):
        with OnlineStore.open(url, [User]) as store:
            assert store.read(User, [1])[0].status("a") is Status.MISSING
            store.write(User, [{"id": 1, "a": number, "b": ""}])
            assert scanned(store) == ["a:1"]
    for number, url in enumerate(urls):
        with OnlineStore.open(url, [User]) as store:
            assert store.read(User, [1])[0]["a"] == number


def test_the_size_of_a_database(valkey: Valkey) -> None:
    """Keys and bytes are the server's own count."""
    with store_at(OnlineStore, valkey.url("size:")) as store:
        store.write(User, ROWS)
    size = table_size(valkey.url("size:"))
    assert size.items >= 50
    assert size.bytes > 50 * 20


# --- who asks ------------------------------------------------------------------------------


def test_a_wrong_password_is_told_from_a_missing_one(kind: type) -> None:
    """Neither is retried, and no message has the password in it."""
    with Valkey(settings={"requirepass": "right"}) as server:
        url = server.url()
        with store_at(kind, url.replace("://", "://:right@")) as store:
            store.write(User, ROWS)
        for wrong in (url, url.replace("://", "://:secret@"), url.replace("://", "://x:secret@")):
            with store_at(kind, wrong) as store:
                with pytest.raises(InvalidCredentials) as raised:
                    store.read(User, [1])
                assert "secret" not in str(raised.value)


def test_a_user_who_may_only_read(kind: type) -> None:
    """What the ACL forbids is refused at once; what it allows is served."""
    with Valkey() as server, client_of(server) as client:
        with store_at(kind, server.url()) as store:
            store.write(User, ROWS)
        client.execute_command(
            "ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+@connection"
        )
        with store_at(kind, server.url().replace("://", "://reader:secret@")) as store:
            assert store.read(User, [7])[0]["b"] == "b7"
            for ordering in ("event", "arrival"):
                with pytest.raises(AccessDenied, match="ACL"):
                    store.write(User, ROWS, ordering=ordering)


LEAST = "+@read +@write +@scripting +@connection +scan +info +wait +waitaof ~dev:*"
"""As docs/valkey.md has it."""


def test_the_least_that_a_user_needs(kind: type) -> None:
    """With what the documentation asks for, and no more, everything works under the prefix."""
    with Valkey() as server:
        with client_of(server) as client:
            client.execute_command("ACL", "SETUSER", "least", "on", ">secret", *LEAST.split())
        url = server.url("dev:").replace("://", "://least:secret@")
        with store_at(kind, url) as store:
            store.write(User, ROWS)
            store.write(User, ROWS, ordering="arrival")
            store.delete(User, [3])
            assert store.read(User, [7])[0]["b"] == "b7"
            call = Call(time.monotonic() + 120)
            page = store.run(store.core.backend.scan_keys(0, 1, b"", 1000, call))
            assert len(page.pks) == 50
            assert table_size(url).items > 50
        other = server.url("prod:").replace("://", "://least:secret@")
        with store_at(kind, other) as store, pytest.raises(AccessDenied):
            store.read(User, [1])


# --- servers that refuse -------------------------------------------------------------------


def failed(store: AnyStore, **options: Any) -> set[type[OnlineStoreError]]:
    """What kept the rows of a write."""
    with pytest.raises(WriteFailed) as raised:
        store.write(User, ROWS, **options)
    assert sorted(raised.value.failed) == list(range(50))
    return set(map(type, raised.value.failed.values()))


@pytest.mark.parametrize("ordering", ["event", "arrival"])
def test_a_full_server_is_a_throttle(kind: type, valkey: Valkey, ordering: str) -> None:
    """Without memory the server asks for patience: writes fail as throttled, reads go on."""
    with Valkey() as server, store_at(kind, server.url()) as store:
        store.write(User, ROWS)
        with client_of(server) as client:
            client.config_set("maxmemory", "1mb")
        assert failed(store, timeout=1.5, ordering=ordering) == {Throttled}
        assert store.read(User, [7])[0]["a"] == 7
        with client_of(server) as client:
            client.config_set("maxmemory", "0")
        store.write(User, ROWS, ordering=ordering)


def test_a_replica_is_no_place_to_write(kind: type, valkey: Valkey) -> None:
    """A server that became a replica refuses writes, which go on once it is a primary again."""
    with Valkey() as server, store_at(kind, server.url()) as store, client_of(server) as client:
        store.write(User, ROWS)
        client.replicaof("127.0.0.1", 1)
        assert failed(store, timeout=1.5) == {ServerError}
        client.replicaof("NO", "ONE")
        store.write(User, ROWS)


def test_codes_and_classes_of_errors() -> None:
    """Every error that asks for patience, or says who may not, is told from a refused command."""
    server = Server(ValkeyTarget((("localhost", 1),)))
    replied = {
        "LOADING loading the dataset": ServerError,
        "MISCONF cannot persist": ServerError,
        "NOREPLICAS too few": ServerError,
        "CLUSTERDOWN hash slot not served": ServerError,
        "MASTERDOWN link is down": ServerError,
        "OOM command not allowed": Throttled,
        "WRONGPASS invalid": InvalidCredentials,
        "NOPERM no": AccessDenied,
        "DENIED Redis is running in protected mode": AccessDenied,
        "ERR max number of clients reached": ConnectionFailed,
        "WRONGTYPE key a:secret": RequestRefused,
        "MOVED nowhere": RequestRefused,
    }
    raised = {
        TimeoutError(): RequestTimeout,
        ConnectionResetError("reset"): ConnectionFailed,
        ssl.SSLEOFError(8, "EOF"): ConnectionFailed,
        UnicodeError("label too long"): ConnectionFailed,
        BrokenReply("a line does not end"): MalformedResponse,
    }
    for text, kind in replied.items():
        found = server.error(ErrorReply(text))
        assert type(found) is kind
        assert "secret" not in str(found)
        assert found.engine_message == text or text.startswith("MOVED")
    for error, kind in raised.items():
        assert type(server.failure(error)) is kind


# --- servers that are slow or away ---------------------------------------------------------


def test_a_server_that_hangs_costs_the_deadline_only(kind: type) -> None:
    """Reads are failed in time, and no late answer is taken for that of the next request."""
    with Valkey() as server, store_at(kind, server.url()) as store:
        store.write(User, ROWS)
        os.kill(server.pid, signal.SIGSTOP)
        began = time.monotonic()
        rows = store.read(User, [1, 2], timeout=0.2)
        assert time.monotonic() - began < 5
        assert {row.status("a") for row in rows} == {Status.FAILED}
        with pytest.raises(ReadFailed) as raised:
            rows[0]["a"]
        assert isinstance(raised.value.__cause__, RequestTimeout)
        assert failed(store, timeout=0.2) == {RequestTimeout}
        os.kill(server.pid, signal.SIGCONT)
        for key in (3, 4):
            assert store.read(User, [key], timeout=10)[0]["b"] == f"b{key}"


def test_a_cancelled_task_leaves_no_answer_behind() -> None:
    """What a task asked for when it was cancelled does not answer another one."""

    async def main(server: Valkey) -> None:
        store = AsyncOnlineStore.open(server.url(), [User])
        await store.write(User, ROWS)
        os.kill(server.pid, signal.SIGSTOP)
        reading = asyncio.create_task(store.read(User, [1]))
        await asyncio.sleep(0.05)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        os.kill(server.pid, signal.SIGCONT)
        assert [(await store.read(User, [i]))[0]["b"] for i in (2, 3)] == ["b2", "b3"]
        await store.close()

    with Valkey() as server:
        asyncio.run(main(server))


def test_nobody_listens(kind: type) -> None:
    """Where there is no server, every row is failed with that cause."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"valkey://127.0.0.1:{nobody.getsockname()[1]}"
        with store_at(kind, url, timeout=1.5) as store:
            with pytest.raises(RequestError):
                store.warm(1)
            with pytest.raises(RegistryUnavailable) as raised:
                store.write(User, ROWS)
    assert isinstance(raised.value.__cause__, ConnectionFailed | RequestTimeout)


def test_a_restart_is_hardly_noticed(kind: type, tmp_path: Path) -> None:
    """Kept connections are gone and scripts forgotten, and the next calls do without a failure."""
    with Valkey(tmp_path) as server, store_at(kind, server.url(), timeout=20) as store:
        store.write(User, ROWS)
        assert store.warm(3) >= 3
        server.kill()
        server.start()
        report = store.write(User, [{"id": 7, "a": 70}])
        assert report.items_written == 1
        assert store.read(User, [7, 8]).to_dict() == {"a": [70, 8], "b": ["b7", "b8"]}


def test_a_closed_store_keeps_no_connection(kind: type) -> None:
    """After `close` the server has no client but us."""
    with Valkey() as server, client_of(server) as client:
        with store_at(kind, server.url()) as store:
            store.write(User, ROWS)
            assert store.warm(5) >= 5
        deadline = time.monotonic() + 120
        while len(client.client_list()) > 1:
            assert time.monotonic() < deadline


def test_connections_have_the_name_of_the_library(kind: type) -> None:
    """CLIENT LIST shows which library a connection is of, and its database is the one selected."""
    with Valkey() as server, client_of(server) as client:
        url = server.url().replace("/0", "/3")
        with store_at(kind, url) as store:
            store.write(User, ROWS)
            ours = [each for each in client.client_list() if each["db"] == "3"]
            assert {each["lib-name"] for each in ours} == {"chalk-online-store"}


def test_a_fork_has_connections_of_its_own(valkey: Valkey) -> None:
    """A child asks over a connection of its own, and the parent's goes on."""
    with OnlineStore.open(valkey.url("fork:"), [User]) as store:
        store.write(User, ROWS)
        child = os.fork()
        if not child:
            found = [store.read(User, [i])[0]["a"] for i in range(50)]
            os._exit(int(found != list(range(50))))
        assert [store.read(User, [i])[0]["a"] for i in range(50)] == list(range(50))
        assert os.waitpid(child, 0)[1] == 0


# --- what a server loses -------------------------------------------------------------------


THING = Namespace("thing", int, [Feature("x", int), Feature("y", int)])
TURNED = Namespace("thing", int, [Feature("y", int), Feature("x", int)])


def test_ids_of_a_lost_registry_are_not_mistaken_for_new_ones(kind: type) -> None:
    """A process that goes on after the server lost all has a table of its own, never wrong values.

    Ids are given anew then: what the one calls `a`, the other calls `b`.
    """
    with Valkey() as server, AnyStores(kind, server) as stores:
        first, second = stores.open(THING), stores.open(TURNED)
        first.write(THING, [{"id": 1, "x": 1, "y": 2}])
        with client_of(server) as client:
            client.flushall()
        second.write(TURNED, [{"id": 1, "y": 20, "x": 10}])
        first.write(THING, [{"id": 1, "x": 3}])
        assert second.read(TURNED, [1]).to_dict() == {"y": [20], "x": [10]}
        assert first.read(THING, [1]).to_dict() == {"x": [3], "y": [None]}
        third = stores.open(THING)
        assert third.read(THING, [1]).to_dict() == {"x": [10], "y": [20]}


class AnyStores:
    """Stores of one kind on one server."""

    def __init__(self, kind: type, server: Valkey) -> None:
        self._kind, self._url = kind, server.url()
        self._ending = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def open(self, schema: Namespace) -> AnyStore:
        runner = self._ending.enter_context(asyncio.Runner())
        store = AnyStore(self._kind.open(self._url, [schema]), runner)  # type: ignore[attr-defined]
        self._ending.callback(store.close)
        return store


# --- requests and keys ---------------------------------------------------------------------


def test_requests_are_counted(kind: type, valkey: Valkey) -> None:
    """Many entities are read, and written, by one request a thousand at least."""
    with store_at(kind, valkey.url("requests:")) as store:
        store.write(User, ROWS)
        rows = [{"id": i, "a": i, "b": "b"} for i in range(3000)]
        for ordering in ("event", "arrival"):
            report = store.write(User, rows, ordering=ordering, timeout=60)
            assert report.requests == 3
            assert store.write(User, rows[:900], ordering=ordering, timeout=60).requests == 1
        found = store.read(User, range(3000), timeout=60)
        assert found.report.requests == 1
        assert found.column("a") == list(range(3000))


def test_an_entity_expires_by_itself(valkey: Valkey) -> None:
    """The server forgets an entity some minutes after its last feature can be served no more."""
    url = valkey.url("expiry:")
    with OnlineStore.open(url, [User, Visit]) as store, client_of(valkey) as client:
        store.write(Visit, [{"id": 1, "a": 1}])
        store.write(User, [{"id": 1, "a": 1, "b": ""}])
        keys = list(client.scan_iter("expiry:[^{]*"))
        never, later = sorted(client.ttl(key) for key in keys)
        assert never == -1
        assert 3600 + 200 < later <= 3600 + 301
        store.delete(User, [1])
        assert all(client.ttl(key) > 0 for key in keys)
