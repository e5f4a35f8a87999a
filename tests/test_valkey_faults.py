"""What servers, and the way to them, do when they are not well: each gets its class of errors.

A store goes on after each of them, and has what it had acknowledged.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from chalk_online_store import AsyncOnlineStore, OnlineStore, ReadFailed, Status
from chalk_online_store.errors import (
    ConnectionFailed,
    OnlineStoreError,
    RegistryUnavailable,
    RequestError,
    RequestTimeout,
    ServerError,
    Throttled,
)
from chalk_online_store.testing import (
    Blackhole,
    Fault,
    LostAnswer,
    LostRequest,
    Reset,
    SlowDrip,
    Truncated,
    Valkey,
    ValkeyCluster,
    ValkeyFaultProxy,
)
from tests.contract.conftest import AnyStore
from tests.test_valkey import ROWS, User, Visit, client_of, failed, store_at
from tests.test_valkey_groups import generation, name_of, owner_of

AGAIN: list[dict[str, Any]] = [{**row, "a": row["id"] + 100} for row in ROWS]


@pytest.fixture(params=[OnlineStore, AsyncOnlineStore])
def kind(request: pytest.FixtureRequest) -> type:
    found: type = request.param
    return found


def cause_of_reads(store: AnyStore, timeout: float) -> type[BaseException | None]:
    """What keeps reads from their rows, all of them."""
    rows = store.read(User, range(50), timeout=timeout)
    assert {row.status("a") for row in rows} == {Status.FAILED}
    with pytest.raises(ReadFailed) as raised:
        rows[0]["a"]
    return type(raised.value.__cause__)


def fails_by(cause: type[Exception], store: AnyStore, **options: Any) -> bool:
    """Whether a write does. A machine that stalls may take all the time of the first one."""
    return any(failed(store, timeout=timeout, **options) == {cause} for timeout in (0.7, 3.0))


def reads_fail_by(cause: type[Exception], store: AnyStore) -> bool:
    """The same of a read."""
    return any(cause_of_reads(store, timeout) is cause for timeout in (0.7, 3.0))


def whole(store: AnyStore, rows: list[dict[str, Any]]) -> bool:
    """Whether these rows are there, and nothing else."""
    found = store.read(User, range(50))
    return found.to_dict() == {name: [row[name] for row in rows] for name in ("a", "b")}


# --- what servers say ----------------------------------------------------------------------


def busy(client: Any) -> None:
    """Have the server run a script that does not end."""
    client.config_set("busy-reply-threshold", 1)

    def run() -> None:
        with pytest.raises(redis.ResponseError, match="killed"):
            client.eval("while true do end", 0)

    threading.Thread(target=run, daemon=True).start()
    with redis.Redis(port=client.connection_pool.connection_kwargs["port"]) as other:
        while True:
            try:
                other.ping()
            except redis.ResponseError:  # BUSY
                return


def unsaved(client: Any) -> None:
    """Have the server fail to save to its disk, so that it refuses writes."""
    client.config_set("rdbcompression", "no")
    client.config_set("save", "3600 1")
    folder = Path(client.config_get("dir")["dir"]) / client.config_get("dbfilename")["dbfilename"]
    folder.mkdir()
    client.set("other", 1)
    client.bgsave()
    while client.info("persistence")["rdb_last_bgsave_status"] == "ok":
        time.sleep(0.01)
    folder.rmdir()


Setup = Callable[[Any], Any]

WRITES: dict[str, tuple[Setup, Setup, type[RequestError]]] = {
    "READONLY": (
        lambda client: client.replicaof("127.0.0.1", 1),
        lambda client: client.replicaof("NO", "ONE"),
        ServerError,
    ),
    "NOREPLICAS": (
        lambda client: client.config_set("min-replicas-to-write", 1),
        lambda client: client.config_set("min-replicas-to-write", 0),
        ServerError,
    ),
    "MISCONF": (
        unsaved,
        lambda client: client.config_set("stop-writes-on-bgsave-error", "no"),
        ServerError,
    ),
    "OOM": (
        lambda client: client.config_set("maxmemory", 1),
        lambda client: client.config_set("maxmemory", 0),
        Throttled,
    ),
}
"""What keeps a server from writes, and not from reads; how it ends; and what we call it."""


@pytest.mark.parametrize("ordering", ["event", "arrival"])
@pytest.mark.parametrize("word", WRITES)
def test_a_server_that_only_reads(kind: type, word: str, ordering: str, tmp_path: Path) -> None:
    """Writes fail by their class and are tried again, reads go on, and nothing is lost."""
    begin, end, cause = WRITES[word]
    folder = {"dir": str(tmp_path)} if word == "MISCONF" else {}
    with (
        Valkey(settings=folder) as server,
        client_of(server) as client,
        store_at(kind, server.url()) as store,
    ):
        store.write(User, ROWS)
        begin(client)
        assert fails_by(cause, store, ordering=ordering)
        assert whole(store, ROWS)
        ending = threading.Timer(0.3, end, (client,))
        ending.start()
        report = store.write(User, AGAIN, ordering=ordering)
        ending.join()
        assert report.retries > 0
        assert whole(store, AGAIN)


ALL: dict[str, tuple[Setup, Setup, type[RequestError]]] = {
    "MASTERDOWN": (
        lambda client: (
            client.config_set("replica-serve-stale-data", "no"),
            client.replicaof("127.0.0.1", 1),
        ),
        lambda client: client.replicaof("NO", "ONE"),
        ServerError,
    ),
    "BUSY": (busy, lambda client: client.script_kill(), ServerError),
    "paused": (
        lambda client: client.client_pause(2000),
        lambda client: None,
        RequestTimeout,
    ),
    "max number of clients": (
        lambda client: (
            client.client_kill_filter(_type="normal", skipme=True),
            client.config_set("maxclients", 1),
        ),
        lambda client: client.config_set("maxclients", 1000),
        ConnectionFailed,
    ),
}
"""What keeps a server from everything."""


@pytest.mark.parametrize("word", ALL)
def test_a_server_that_does_nothing(kind: type, word: str) -> None:
    """Reads and writes fail by their class, in time, and go on as soon as the server does."""
    begin, end, cause = ALL[word]
    with Valkey() as server, client_of(server) as client, store_at(kind, server.url()) as store:
        store.write(User, ROWS)
        begin(client)
        assert reads_fail_by(cause, store)
        assert fails_by(cause, store)
        with client_of(server) if word == "BUSY" else client as ending:
            timer = threading.Timer(0.3, end, (ending,))
            timer.start()
            store.write(User, AGAIN, timeout=20)
            timer.join()
            assert whole(store, AGAIN)


def test_a_server_that_loads_its_file(kind: type, tmp_path: Path) -> None:
    """While it loads it is waited for; a call that cannot wait fails, and nothing is lost."""
    settings = {"dir": str(tmp_path), "dbfilename": "dump.rdb", "key-load-delay": "3000"}
    settings |= {"loading-process-events-interval-bytes": "1024", "rdbcompression": "no"}
    with (
        Valkey(settings=settings) as server,
        store_at(kind, server.url(), timeout=30) as store,
    ):
        store.write(User, ROWS)
        with client_of(server) as client:
            for number in range(700):
                client.set(f"other{number}", b"x" * 1000)
            client.save()
        server.kill()
        starting = threading.Thread(target=server.start)
        starting.start()
        while b"LOADING" not in told_by(server):
            assert starting.is_alive()
        while cause_of_reads(store, 0.3) is not ServerError:
            assert starting.is_alive()
        assert whole(store, ROWS)
        starting.join()


def told_by(server: Valkey) -> bytes:
    """What a server that may not be there yet answers."""
    try:
        return server.ask("GET", "other")
    except OSError:
        return b""


# --- the way to a server -------------------------------------------------------------------

BROKEN: list[tuple[Fault, type[RequestError]]] = [
    (Reset(), ConnectionFailed),
    (Reset(after=40), ConnectionFailed),
    (Truncated(), ConnectionFailed),
    (LostAnswer(), ConnectionFailed),
    (LostRequest(), ConnectionFailed),
    (LostRequest(after=1000), ConnectionFailed),
    (Blackhole(), RequestTimeout),
    (SlowDrip(100), RequestTimeout),
]


@pytest.mark.parametrize(("fault", "cause"), BROKEN, ids=str)
def test_a_connection_that_breaks(
    kind: type,
    valkey_fault_proxy: ValkeyFaultProxy,
    fault: Fault,
    cause: type[RequestError],
) -> None:
    """Wherever it breaks, the rows are failed with that cause, or tried again and whole."""
    url = valkey_fault_proxy.url(f"broken{time.monotonic_ns()}:", read_timeout="0.3")
    requests = {"MGET", "EVALSHA"}
    with store_at(kind, url, timeout=30) as store:
        store.write(User, ROWS)
        with valkey_fault_proxy.fault(fault, operations=requests):
            assert reads_fail_by(cause, store)
            assert fails_by(cause, store)
        assert whole(store, ROWS)
        with valkey_fault_proxy.fault(fault, share=0.5, operations=requests):
            for rows in (AGAIN, ROWS, AGAIN):
                store.write(User, rows)
                assert whole(store, rows)
    assert valkey_fault_proxy.stats().faulted[type(fault).__name__] > 3


def test_a_registration_that_is_cut_off(
    kind: type, valkey: Valkey, valkey_fault_proxy: ValkeyFaultProxy
) -> None:
    """Wherever a registration breaks off, no id is given twice, and the next one goes on."""
    prefix = f"registering{time.monotonic_ns()}:"
    for after in (0, 50, 300, 700):
        with store_at(kind, valkey_fault_proxy.url(prefix), timeout=0.5) as store:
            for fault in (LostRequest(after), Reset(after), LostAnswer()):
                scripts = {"EVALSHA", "EVAL"}
                with (
                    valkey_fault_proxy.fault(fault, operations=scripts),
                    pytest.raises(OnlineStoreError),
                ):
                    store.write(User if after < 300 else Visit, ROWS[:1])
    with store_at(kind, valkey.url(prefix)) as store:
        store.write(User, ROWS)
        store.write(Visit, [{"id": 1, "a": 5}])
        assert whole(store, ROWS)
        assert store.read(Visit, [1])[0]["a"] == 5


# --- clusters ------------------------------------------------------------------------------


class Storm:
    """Moves slots from node to node and back, each with what is in it, until the block ends."""

    def __init__(self, cluster: ValkeyCluster, slots: list[int]) -> None:
        self.moved = 0
        self._nodes: dict[Valkey, Any] = {node: client_of(node) for node in cluster.nodes}
        self._slots = {slot: cluster.nodes[owner_of(cluster, slot)] for slot in slots}
        self._cluster = cluster
        self._stopping = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stopping:
            for slot, start in list(self._slots.items()):
                number = self._cluster.nodes.index(start)
                end = self._cluster.nodes[(number + 1) % 3]
                self._move(slot, start, end)
                self._slots[slot] = end
                self.moved += 1

    def _move(self, slot: int, start: Valkey, end: Valkey) -> None:
        self._order(end, "SETSLOT", slot, "IMPORTING", name_of(start))
        self._order(start, "SETSLOT", slot, "MIGRATING", name_of(end))
        while keys := self._order(start, "GETKEYSINSLOT", slot, 2):
            time.sleep(0.002)  # So that requests meet a slot that is in two places.
            where = ("127.0.0.1", end.port, "", 0, 5000)
            self._nodes[start].execute_command("MIGRATE", *where, "KEYS", *keys)
        for node in (end, start):
            self._order(node, "SETSLOT", slot, "NODE", name_of(end))

    def _order(self, node: Valkey, *words: object) -> Any:
        return self._nodes[node].execute_command(f"CLUSTER {words[0]}", *words[1:])

    def __enter__(self) -> Storm:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()
        for client in self._nodes.values():
            client.close()


@contextmanager
def stormy(cluster: ValkeyCluster, store: AnyStore) -> Iterator[Storm]:
    """Every slot that the rows and the registry are in moves, again and again."""
    keys = [f"{generation(cluster)}a:{key}:a" for key in range(50)] + ["{!}registry"]
    with Storm(cluster, sorted({key_slot(key.encode()) for key in keys})) as storm:
        yield storm


@pytest.mark.slow
def test_a_storm_of_moving_slots(kind: type) -> None:
    """While all slots move all the time, every row is read and written, and none is lost."""
    with ValkeyCluster() as cluster, store_at(kind, cluster.url(), timeout=30) as store:
        store.write(User, ROWS)
        with stormy(cluster, store) as storm:
            version = 0
            while storm.moved < 250:
                version += 1
                rows = [{**row, "a": version} for row in ROWS]
                report = store.write(User, rows, ordering=("event", "arrival")[version % 2])
                assert report.items_written == 50
                assert whole(store, rows)
            store.write(Visit, [{"id": 1, "a": 5}])  # The registry moves as well.
        assert whole(store, rows)
        assert store.read(Visit, [1])[0]["a"] == 5
    assert version > 3


def test_a_registry_that_cannot_be_reached(
    kind: type, valkey_fault_proxy: ValkeyFaultProxy
) -> None:
    """What is not registered is refused by its class in time, what is known goes on."""
    prefix = f"unreached{time.monotonic_ns()}:"
    with store_at(kind, valkey_fault_proxy.url(prefix)) as store:
        store.write(User, ROWS)
        with valkey_fault_proxy.fault(Blackhole(), operations={"EVAL", "ZRANGEBYLEX", "GET"}):
            with pytest.raises(RegistryUnavailable):
                store.write(Visit, [{"id": 1, "a": 5}], timeout=0.5)
            assert whole(store, ROWS)
