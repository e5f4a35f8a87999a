"""Reads from replicas of a Valkey server: where they go, and what they do without a primary."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from typer.testing import CliRunner

from chalk_online_store import (
    AsyncOnlineStore,
    Hedging,
    InvalidValue,
    OnlineStore,
    RegionState,
    Routing,
    Status,
)
from chalk_online_store.cli import WrongUsage
from chalk_online_store.cli.app import app
from chalk_online_store.errors import ConnectionFailed, ReadFailed, RequestTimeout
from chalk_online_store.integrations import health
from chalk_online_store.testing import (
    Latency,
    Valkey,
    ValkeyFaultProxy,
    ValkeyReplicas,
    ValkeySentinels,
)
from tests.contract.conftest import AnyStore
from tests.test_health_endpoint import get
from tests.test_valkey import ROWS, User, Visit, client_of, failed, store_at
from tests.test_valkey_groups import replicated

REQUIRE: tuple[Literal["any", "preferred"], ...] = ("any", "preferred")
AWAY = {ConnectionFailed, RequestTimeout}
QUICK = Routing(probe_every="200ms", return_after="500ms", return_over="500ms", hedging=None)


@pytest.fixture(params=[OnlineStore, AsyncOnlineStore])
def kind(request: pytest.FixtureRequest) -> type:
    found: type = request.param
    return found


@pytest.fixture
def group() -> Iterator[ValkeyReplicas]:
    """A primary and a replica that are for this test."""
    with ValkeyReplicas() as found:
        yield found


def names_of(group: ValkeyReplicas) -> list[str]:
    """What the primary and its replicas are called."""
    return [f"127.0.0.1:{each.port}" for each in (group.primary, *group.replicas)]


def eventually(true: Callable[[], bool], seconds: float = 15) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def region_of(store: AnyStore, **options: Any) -> str:
    """Who answers a read of all rows, which has to succeed."""
    rows = store.read(User, range(50), timeout=2, **options)
    assert rows.column("b") == [row["b"] for row in ROWS]
    return rows.report.region


def refusals(server: Valkey) -> bytes:
    """How often a server has refused to be written to."""
    return server.ask("INFO", "errorstats").partition(b"READONLY")[2]


# --- where reads go ------------------------------------------------------------------------


@pytest.mark.parametrize("read_from", ["primary", "primary-preferred", "replica-preferred"])
def test_reads_go_where_the_url_says(group: ValkeyReplicas, kind: type, read_from: str) -> None:
    """Plain reads do; writes, the registry and consistent reads go to the primary."""
    primary, replica = names_of(group)
    routing = Routing(hedging=None)
    with store_at(kind, group.url(read_from=read_from), routing=routing) as store:
        assert store.write(User, ROWS).region in (primary, f"{primary}/0")
        group.wait_until_replicated()
        expected = replica if read_from == "replica-preferred" else primary
        assert region_of(store).removesuffix("/0") == expected
        assert region_of(store, consistent=True).removesuffix("/0") == primary
        store.write(Visit, [{"id": 1, "a": 1}])
        store.write(User, ROWS, ordering="arrival")
        store.delete(User, [1])
    assert not refusals(group.replicas[0])


def test_nearest_is_who_answers_soonest(group: ValkeyReplicas, kind: type) -> None:
    """The node that probes are answered by sooner is read from."""
    _, replica = names_of(group)
    with ValkeyFaultProxy(group.primary) as proxy:
        proxy.inject(Latency(0.02))
        url = f"valkey://127.0.0.1:{proxy.port},{replica}/0?read_from=nearest"
        with store_at(kind, url, routing=QUICK) as store:
            store.write(User, ROWS)
            group.wait_until_replicated()
            eventually(lambda: region_of(store) == replica)


def test_sentinels_name_the_replicas(kind: type) -> None:
    """Reads go to a replica that the sentinels name; of fewer than asked for, one serves twice."""
    with ValkeySentinels() as group:
        url = group.url(read_from="replica-preferred", replicas=2)
        with store_at(kind, url, routing=Routing(hedging=None)) as store:
            store.write(User, ROWS)
            assert replicated(group)
            before = group.primary.ask("INFO", "commandstats").count(b"mget")
            assert region_of(store) == "replica-1", store.regions()
            assert b"cmdstat_mget:calls=1" in group.replica.ask("INFO", "commandstats")
            assert group.primary.ask("INFO", "commandstats").count(b"mget") == before
            assert store.health().ok


# --- without a primary ---------------------------------------------------------------------


@pytest.mark.parametrize("read_from", ["primary-preferred", "replica-preferred", "nearest"])
def test_reads_go_on_while_writes_wait_for_the_next_primary(kind: type, read_from: str) -> None:
    """The primary is killed: every read is answered in its second, and the write gets through."""
    with (
        ValkeySentinels() as group,
        store_at(kind, group.url(read_from=read_from), timeout=30) as store,
        store_at(kind, group.url(), timeout=30) as other,
    ):
        store.write(User, ROWS)
        assert replicated(group)
        assert region_of(store) in ("primary", "replica-1")
        group.primary.kill()
        writing = threading.Thread(target=other.write, args=(User, [{"id": 7, "a": 70}]))
        writing.start()
        reads = 0
        while writing.is_alive():
            rows = store.read(User, range(50), timeout=1)
            assert rows.column("b") == [row["b"] for row in ROWS]
            reads += 1
        writing.join()
        assert reads > 10
        assert store.write(User, [{"id": 8, "a": 80}]).items_written == 1
        assert region_of(store) in ("primary", "replica-1")
        found = store.read(User, [7, 8], consistent=True)
        assert found.column("a") == [70, 80]


def test_a_primary_that_hangs(group: ValkeyReplicas, kind: type) -> None:
    """Reads that were under way end at the replica, within their deadline; later ones begin there.

    Writes and consistent reads fail, and are sent to no replica.
    """
    primary, replica = names_of(group)
    with store_at(kind, group.url(), routing=Routing(hedging=None)) as store:
        store.write(User, ROWS)
        group.wait_until_replicated()
        assert region_of(store) == primary
        os.kill(group.primary.pid, signal.SIGSTOP)
        assert region_of(store) == replica
        assert failed(store, timeout=0.5) <= AWAY
        rows = store.read(User, [1], consistent=True, timeout=0.5)
        assert rows[0].status("a") is Status.FAILED
        eventually(lambda: store.read(User, [1], timeout=2).report.failovers == 0)
        states = {region.name: region.state for region in store.regions()}
        assert states == {primary: RegionState.DOWN, replica: RegionState.HEALTHY}
        os.kill(group.primary.pid, signal.SIGCONT)
        store.write(User, ROWS)
        assert not refusals(group.replicas[0])


def test_a_primary_that_became_a_replica(group: ValkeyReplicas, kind: type) -> None:
    """Its refusal to be written to is no reason to write elsewhere; reads go on."""
    with store_at(kind, group.url()) as store:
        store.write(User, ROWS)
        group.wait_until_replicated()
        with client_of(group.primary) as client:
            client.replicaof("127.0.0.1", 1)
            assert {cause.__name__ for cause in failed(store, timeout=2)} == {"ServerError"}
            assert region_of(store) in names_of(group)
            client.replicaof("NO", "ONE")
        store.write(User, ROWS)
        assert not refusals(group.replicas[0])


# --- replicas that are not well ------------------------------------------------------------


def test_a_replica_that_is_gone(group: ValkeyReplicas, kind: type) -> None:
    """The primary serves in its place, and the replica is read from again once it is back."""
    primary, replica = names_of(group)
    url = group.url(read_from="replica-preferred")
    with store_at(kind, url, routing=QUICK) as store:
        store.write(User, ROWS)
        group.wait_until_replicated()
        assert region_of(store) == replica
        group.replicas[0].kill()
        for _ in range(5):
            assert region_of(store) == primary
        assert store.regions()[0].state is RegionState.DOWN
        group.replicas[0].start()
        eventually(lambda: region_of(store) == replica)


def test_a_replica_without_its_primary_may_refuse(group: ValkeyReplicas, kind: type) -> None:
    """One that serves no stale data, and has lost its link, is passed over: MASTERDOWN."""
    primary, replica = names_of(group)
    url = group.url(read_from="replica-preferred")
    with store_at(kind, url, routing=QUICK) as store, client_of(group.replicas[0]) as client:
        store.write(User, ROWS)
        group.wait_until_replicated()
        client.config_set("replica-serve-stale-data", "no")
        client.replicaof("127.0.0.1", 1)
        for _ in range(5):
            assert region_of(store) == primary
        assert (store.regions()[0].state, store.regions()[0].reason) == ("down", "ServerError")
        assert [check.ok for check in store.health().regions] == [False, True]
        client.replicaof("127.0.0.1", group.primary.port)
        eventually(lambda: region_of(store) == replica)


def test_a_replica_that_has_not_begun_is_no_place_to_miss_rows(
    group: ValkeyReplicas, kind: type
) -> None:
    """One that is empty, or a copy of another server, never makes known rows missing."""
    primary, _ = names_of(group)
    with Valkey() as stranger, Valkey() as other:
        with store_at(kind, other.url()) as store:
            store.write(User, [{"id": 1, "a": 1, "b": "other"}])
        with client_of(stranger) as client:
            url = f"valkey://{primary},127.0.0.1:{stranger.port}/0?read_from=replica-preferred"
            with store_at(kind, url, routing=QUICK) as store:
                store.write(User, ROWS)
                for master in (1, other.port):  # Nobody, and somebody else.
                    client.replicaof("127.0.0.1", master)
                    time.sleep(0.3)
                    for _ in range(5):
                        assert region_of(store) == primary
                assert store.regions()[0].reason == "ReplicaOutOfStep"
                assert store.health().preferred_ok is False
                client.replicaof("127.0.0.1", group.primary.port)
                eventually(lambda: region_of(store) == f"127.0.0.1:{stranger.port}")


def test_a_replica_that_loads_is_waited_for_elsewhere(kind: type) -> None:
    """While it takes in what the primary has, reads go to the primary: LOADING."""
    settings = {"key-load-delay": "3000", "loading-process-events-interval-bytes": "1024"}
    with Valkey(settings={"repl-diskless-sync-delay": "0"}) as server:
        with client_of(server) as client, store_at(kind, server.url()) as store:
            store.write(User, ROWS)
            for number in range(500):
                client.set(f"other{number}", os.urandom(500))
        with Valkey(settings=settings) as loading:
            url = f"valkey://127.0.0.1:{server.port},127.0.0.1:{loading.port}/0"
            with store_at(kind, f"{url}?read_from=replica-preferred", routing=QUICK) as store:
                store.write(User, ROWS)
                with client_of(loading) as client:
                    client.replicaof("127.0.0.1", server.port)
                seen = set[str]()
                deadline = time.monotonic() + 120
                while (where := region_of(store)) != f"127.0.0.1:{loading.port}":
                    seen.add(store.regions()[0].reason)
                    assert where == f"127.0.0.1:{server.port}"
                    assert time.monotonic() < deadline
        assert "ReplicaOutOfStep" in seen or "ServerError" in seen


def test_how_far_behind_a_replica_is(group: ValkeyReplicas, kind: type) -> None:
    """Reads tell it, by heartbeats; with `max_lag` one that is cut off is not asked any more."""
    primary, replica = names_of(group)
    routing = Routing(max_lag="2s", hedging=None)
    url = group.url(read_from="replica-preferred")
    with store_at(kind, url, routing=routing) as store, client_of(group.replicas[0]) as client:
        store.write(User, ROWS)
        group.wait_until_replicated()

        def is_known() -> bool:
            region_of(store)
            return store.regions()[0].behind[primary] is not None

        eventually(is_known)
        report = store.read(User, [1]).report
        assert report.region == replica
        assert report.behind is not None
        assert report.behind < 2
        assert store.read(User, [1], consistent=True).report.behind == 0
        assert store.regions()[1].behind == {}
        client.replicaof("127.0.0.1", 1)
        eventually(lambda: region_of(store) == primary)
        behind = store.regions()[0].behind[primary]
        assert behind is not None
        assert behind > 2
    assert not refusals(group.replicas[0])  # No heartbeat was written to it.


def test_a_slow_primary_is_hedged(group: ValkeyReplicas, kind: type) -> None:
    """A read that takes longer than usual is asked of the replica too, which answers first."""
    _, replica = names_of(group)
    with ValkeyFaultProxy(group.primary) as proxy:
        url = f"valkey://127.0.0.1:{proxy.port},{replica}/0"
        soon: Any = {"probe_every": "100ms", "return_after": "100ms", "return_over": "100ms"}
        routing = Routing(hedging=Hedging(burst=1000), **soon)
        with store_at(kind, url, routing=routing, timeout=10) as store:
            store.write(User, ROWS)
            group.wait_until_replicated()
            for _ in range(20):
                store.read(User, [1])
            # A busy machine may have made it seem slow before.
            eventually(lambda: region_of(store) == f"127.0.0.1:{proxy.port}")
            hedges = store.regions()[1].hedges
            with proxy.fault(Latency(8), operations={"MGET"}):
                rows = store.read(User, [1])
            assert rows[0]["a"] == 1
            assert (rows.report.region, rows.report.hedges) == (replica, 1)
            assert rows.report.failovers == 0
            assert store.regions()[1].hedges == hedges + 1


# --- orders, and what tells of nodes -------------------------------------------------------


def test_orders(group: ValkeyReplicas) -> None:
    """Drained, the primary is left by reads alone; pinned, a replica has them all, until release.

    Another process hears of it. What would leave writes nowhere to go is refused.
    """
    primary, replica = names_of(group)
    url = group.url()
    with (
        store_at(OnlineStore, url, routing=QUICK) as store,
        OnlineStore.open(url, [User], routing=QUICK) as operator,
    ):
        store.write(User, ROWS)
        group.wait_until_replicated()

        def obeyed(what: str) -> None:
            """Wait until the store has heard what is ordered of the replica."""

            def is_heard() -> bool:
                store.read(User, [1], timeout=0.2)  # It looks at nodes with its requests.
                return store.regions()[1].orders == what

            eventually(is_heard)

        assert operator.order_regions(drained=[primary]) == {primary: ""}
        eventually(lambda: region_of(store) == replica)
        assert store.write(User, ROWS).region == primary
        with pytest.raises(InvalidValue, match="alone takes writes"):
            operator.order_regions(evacuated=[primary])
        operator.order_regions(pinned=replica)
        obeyed("pinned")
        assert store.write(User, ROWS).region == primary
        group.replicas[0].kill()
        rows = store.read(User, [1], timeout=0.5)
        with pytest.raises(ReadFailed):
            rows[0]["a"]
        operator.order_regions(evacuated=[replica])
        obeyed("evacuated")
        operator.order_regions()
        obeyed("")
        assert region_of(store) == primary


def said(*arguments: str, code: int = 0) -> Any:
    """What a command says as JSON."""
    result = CliRunner().invoke(app, ["regions", *arguments, "--json"])
    assert result.exit_code == code, (result.output, result.exception)
    return json.loads(result.stdout) if code == 0 else result.exception


def test_the_command_line(group: ValkeyReplicas) -> None:
    """`regions` shows nodes, measures their lag, and orders them; the primary it does not move."""
    primary, replica = names_of(group)
    url = group.url("cli:")
    with OnlineStore.open(url, [User]) as store:
        store.write(User, ROWS)
    group.wait_until_replicated()
    found = said("status", "--url", url)
    assert [(each["name"], each["reads"], each["writes"]) for each in found["regions"]] == [
        (primary, True, True),
        (replica, False, False),
    ]
    ((lag),) = found["lag"]
    assert (lag["source"], lag["target"]) == (primary, replica)
    assert 0 <= lag["measured"] < 5
    assert said("drain", primary, "--url", url)["now"]["drained"] == [primary]
    assert said("release", "--url", url)["now"]["drained"] == []
    homes = said("home", "--url", url)
    assert [(each["home"], each["error"]) for each in homes] == [("", ""), ("", "")]
    assert homes[0]["entries"] == homes[1]["entries"] > 0
    assert isinstance(said("home", replica, "--url", url, "--yes", code=1), WrongUsage)


def test_the_health_endpoint(group: ValkeyReplicas) -> None:
    """Without the primary the store is degraded, for whoever reads from it first unhealthy."""
    with OnlineStore.open(group.url(), [User]) as store:
        store.write(User, ROWS)
        group.wait_until_replicated()
        apps = {
            require: health.wsgi(store, require=require, cache="1ms", timeout=0.5)
            for require in REQUIRE
        }
        assert {get(app).said["status"] for app in apps.values()} == {"ok"}
        group.primary.kill()
        got = {require: get(app) for require, app in apps.items()}
        assert {each.said["status"] for each in got.values()} == {"degraded"}
        assert {require: each.code for require, each in got.items()} == {
            "any": 200,
            "preferred": 503,
        }
