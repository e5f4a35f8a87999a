"""A store on a cluster whose keys move, and on a primary that sentinels replace."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from chalk_online_store import AsyncOnlineStore, OnlineStore, Status, WriteFailed
from chalk_online_store.backend import Call
from chalk_online_store.connect import table_size
from chalk_online_store.errors import (
    ConnectionFailed,
    RegistryUnavailable,
    RequestError,
    RequestRefused,
    RequestTimeout,
)
from chalk_online_store.testing import Valkey, ValkeyCluster, ValkeySentinels
from tests.test_valkey import ROWS, User, store_at


@pytest.fixture(params=[OnlineStore, AsyncOnlineStore])
def kind(request: pytest.FixtureRequest) -> type:
    found: type = request.param
    return found


@pytest.fixture(params=["valkey", "redis"])
def binary(request: pytest.FixtureRequest) -> str | None:
    """Of a server: the default one, or Redis."""
    if request.param == "valkey":
        return None
    found: str = request.getfixturevalue("redis_binary")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"v=(\d+)", said)
    if version is None or int(version[1]) < 7:
        pytest.skip("Groups of servers need the settings of Redis 7.")
    return found


@pytest.fixture
def cluster(binary: str | None) -> Iterator[ValkeyCluster]:
    """One whose nodes are for this test."""
    with ValkeyCluster(binary=binary) as found:
        yield found


def name_of(node: Valkey) -> str:
    """What a node is called in its cluster."""
    return node.ask("CLUSTER", "MYID").split()[1].decode()


def owner_of(cluster: ValkeyCluster, slot: int) -> int:
    """The number of the node that had a slot at first."""
    return next(n for n in range(3) if slot < 16384 * (n + 1) // 3)


def generation(cluster: ValkeyCluster) -> str:
    """What goes before the keys of entities."""
    place = "{!}@"
    owner = cluster.nodes[owner_of(cluster, key_slot(place.encode()))]
    return owner.ask("GET", place).split()[1].decode()


# --- clusters ------------------------------------------------------------------------------


def test_one_round_trip_for_each_node(valkey_cluster: ValkeyCluster, kind: type) -> None:
    """A call of many entities asks every node once, and brings all of them in order."""
    with store_at(kind, valkey_cluster.url("trips:")) as store:
        store.write(User, ROWS)
        seen = [node.ask("INFO", "stats") for node in valkey_cluster.nodes]
        rows = store.read(User, range(50))
        assert rows.column("a") == list(range(50))
        assert rows.report.requests == 1
        after = [node.ask("INFO", "stats") for node in valkey_cluster.nodes]
    assert all(processed(b) - processed(a) >= 5 for a, b in zip(seen, after, strict=True))


def processed(info: bytes) -> int:
    """How many commands a node has performed."""
    return int(info.partition(b"total_commands_processed:")[2].split()[0])


def test_keys_that_move_are_followed(cluster: ValkeyCluster, kind: type) -> None:
    """While a slot goes from one node to another, and afterwards, every key is read and written."""
    with store_at(kind, cluster.url()) as store:
        store.write(User, ROWS)
        for step in migrate(cluster, f"{generation(cluster)}a:7:a"):
            rows = store.read(User, range(50))
            assert rows.column("a") == list(range(50)), step
            assert store.write(User, [{"id": 7, "b": step}]).items_written == 1
            assert store.read(User, [7])[0]["b"] == step
        assert store.read(User, [7]).report.retries == 0


def migrate(cluster: ValkeyCluster, key: str) -> Iterator[str]:
    """Move the slot of a key, and the key in the midst of that; says how far it is."""
    slot = key_slot(key.encode())
    start = cluster.nodes[owner_of(cluster, slot)]
    end = cluster.nodes[(owner_of(cluster, slot) + 1) % 3]
    end.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", name_of(start))
    start.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", name_of(end))
    yield "migrating"
    assert start.ask("MIGRATE", "127.0.0.1", end.port, key, 0, 5000).startswith(b"+OK")
    yield "asked for"
    for node in (end, start):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", name_of(end))
    yield "moved"


def test_a_node_that_is_gone_costs_its_keys_only(cluster: ValkeyCluster, kind: type) -> None:
    """What the others have is read and written; the rest is failed, with its cause."""
    with store_at(kind, cluster.url()) as store:
        store.write(User, ROWS)
        for node in cluster.nodes:
            node.ask("CONFIG", "SET", "cluster-require-full-coverage", "no")
        found = generation(cluster)
        registry = owner_of(cluster, key_slot(b"{!}registry"))
        dead = (registry + 1) % 3
        cluster.nodes[dead].kill()
        slots = [key_slot(f"{found}a:{i}:a".encode()) for i in range(50)]
        lost = {i for i, slot in enumerate(slots) if owner_of(cluster, slot) == dead}
        assert 0 < len(lost) < 50
        rows = store.read(User, range(50), timeout=1)
        assert {i for i, row in enumerate(rows) if row.status("a") is Status.FAILED} == lost
        with pytest.raises(WriteFailed) as raised:
            store.write(User, ROWS, timeout=1)
        assert set(raised.value.failed) == lost
        assert all(isinstance(e, RequestError) for e in raised.value.failed.values())


def test_a_cluster_is_found_by_any_of_its_nodes(valkey_cluster: ValkeyCluster, kind: type) -> None:
    """One node of the URL that answers is enough; with none, rows are failed."""
    last = valkey_cluster.nodes[-1].port
    url = f"valkey+cluster://127.0.0.1:1,127.0.0.1:{last}?prefix=any:"
    with store_at(kind, url) as store:
        store.write(User, ROWS)
        assert store.warm(2) >= 6
        assert store.read(User, [9])[0]["a"] == 9
    with store_at(kind, "valkey+cluster://127.0.0.1:1", timeout=0.3) as store:
        with pytest.raises(RequestError) as raised:
            store.warm(1)
        assert isinstance(raised.value, ConnectionFailed | RequestTimeout)


def test_the_wrong_kind_of_url_is_told_of(
    valkey_cluster: ValkeyCluster, valkey: Valkey, kind: type
) -> None:
    """A node that is opened as a server, and a server that is opened as a cluster, at once."""
    registry = valkey_cluster.nodes[owner_of(valkey_cluster, key_slot(b"{!}registry"))]
    wrong = {
        registry.url(): r"valkey\+cluster://",
        valkey.url().replace("valkey:", "valkey+cluster:").replace("/0", ""): "valkey://",
    }
    for url, hint in wrong.items():
        refused = (RequestRefused, WriteFailed)
        with store_at(kind, url) as store, pytest.raises(refused, match=hint):
            store.write(User, ROWS)


def test_a_scan_goes_through_all_nodes(valkey_cluster: ValkeyCluster, kind: type) -> None:
    """Every entity is found, in pages that are no larger than asked for."""
    with store_at(kind, valkey_cluster.url("scan:")) as store:
        store.write(User, ROWS)
        found: list[str] = []
        start = b""
        while True:
            call = Call(time.monotonic() + 120)
            page = store.run(store.core.backend.scan_keys(0, 1, start, 7, call))
            assert len(page.pks) <= 7
            found += page.pks
            start = page.next
            if not start:
                break
    assert set(found) == {f"a:{i}" for i in range(50)}
    assert table_size(valkey_cluster.url()).items >= 50


def test_a_closed_store_keeps_no_connection(valkey_cluster: ValkeyCluster, kind: type) -> None:
    """After `close` no node has a client but us."""
    with store_at(kind, valkey_cluster.url("closed:")) as store:
        store.write(User, ROWS)
        assert store.warm(3) >= 9
    deadline = time.monotonic() + 120
    for node in valkey_cluster.nodes:
        while clients(node) > 1:
            assert time.monotonic() < deadline


def clients(node: Valkey) -> int:
    return int(node.ask("INFO", "clients").partition(b"connected_clients:")[2].split()[0])


# --- sentinels -----------------------------------------------------------------------------


def test_a_replica_takes_over(binary: str | None, kind: type) -> None:
    """The primary dies; the call that is under way waits for the next one, and goes on there."""
    with ValkeySentinels(binary=binary) as group, store_at(kind, group.url(), timeout=30) as store:
        store.write(User, ROWS)
        assert replicated(group)
        group.primary.kill()
        assert store.write(User, [{"id": 7, "b": "new"}]).items_written == 1
        found = store.read(User, range(50))
        assert found.column("a") == list(range(50))
        assert found[7]["b"] == "new"
        with redis.Redis(port=group.replica.port or 0) as client:
            role: Any = client.role()
            assert role[0] == b"master"


def test_an_id_that_no_replica_has_is_not_given(kind: type) -> None:
    """Where the replica does not confirm what is registered, nothing is written under it."""
    with ValkeySentinels() as group, store_at(kind, group.url()) as store:
        os.kill(group.replica.pid, signal.SIGSTOP)
        with pytest.raises(RegistryUnavailable, match="no replica has confirmed"):
            store.write(User, ROWS, timeout=2)
        assert b"a:1:a" not in group.primary.ask("KEYS", "*")
        os.kill(group.replica.pid, signal.SIGCONT)
        store.write(User, ROWS)


def replicated(group: ValkeySentinels) -> bool:
    """Wait until the replica has all."""
    with redis.Redis(port=group.primary.port or 0) as client:
        client.set("last", 1)
        return bool(client.wait(1, 10_000))
