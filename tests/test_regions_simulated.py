"""Regions in virtual time: replication that is measured, what is counted, and what is logged."""

from __future__ import annotations

import json
import logging
import math
import random
import subprocess
import sys

import pytest

from chalk_online_store import Feature, Namespace, OnlineStore, RegionState
from chalk_online_store.codec.layout import TableLayout
from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.dynamodb.backend import DynamoDBBackend
from chalk_online_store.effects import Instant, Operation, Send, Sleep
from chalk_online_store.errors import (
    AccessDenied,
    ConnectionFailed,
    InvalidCredentials,
    InvalidValue,
    OnlineStoreError,
    TableNotFound,
    Throttled,
)
from chalk_online_store.operations.core import Core
from chalk_online_store.operations.regions import MeasuredLag, RegionKeeper
from chalk_online_store.operations.rows import Rows
from chalk_online_store.routing import items
from chalk_online_store.routing.attempts import RoutedAttempts
from chalk_online_store.routing.commands import RegionCommands
from chalk_online_store.routing.health import RegionHealth
from chalk_online_store.routing.logs import log_change
from chalk_online_store.routing.router import Router
from chalk_online_store.routing.settings import Hedging, Routing
from tests.fakes import FakeTable, answer

A, B, C = "us-east-1", "us-west-2", "eu-west-1"
USER = Namespace("user", str, [Feature("risk", float)])
DEAD = f"dynamodb:///features?region={A},{B}&endpoint_url=http://127.0.0.1:1,http://127.0.0.1:2"


class World:
    """A fake table in each region, and what is put in one reaches the others after `lag`."""

    def __init__(self, *regions: str, routing: Routing | None = None) -> None:
        rng = random.Random(7)
        self.tables = {name: FakeTable() for name in regions}
        self.lag: dict[tuple[str, str], float] = {}
        self.refusing: set[str] = set()
        self.silent: set[str] = set()
        self.denying: dict[str, str] = {}
        """By region, the code of the error that each of its requests is answered with."""
        self.takes = dict.fromkeys(regions, 0.005)
        self._coming: list[tuple[float, FakeTable, dict[str, object]]] = []
        self.router = Router(regions, regions[0], routing, rng)
        route = RoutedAttempts(self.router)
        self.backend = DynamoDBBackend("simulated", region=regions[0], route=route, rng=rng)
        self.keeper = RegionKeeper(self.backend, self.router)
        self.core = Core(self.backend, [USER], timeout=10, lru_cache=None, route=route, rng=rng)
        self.driver = SimulatedDriver(self)

    def __call__(self, send: Send, now: float) -> Reply:
        """Play all regions."""
        for found in [found for found in self._coming if found[0] <= now]:
            self._coming.remove(found)
            found[1]._put(found[2])
        if send.to in self.refusing:
            return Reply(error=ConnectionFailed("secret-error"), after=0.001)
        if send.to in self.silent:
            return Reply(after=math.inf)
        if send.to in self.denying:
            return answer(400, {"__type": self.denying[send.to], "message": "no"})
        if send.request.operation != "PutItem":
            reply = self.tables[send.to](send, now)
            return Reply(reply.response, reply.error, self.takes[send.to])
        self._put(send.to, json.loads(send.request.body)["Item"], now)
        return answer(200, {})

    def _put(self, region: str, item: dict[str, object], now: float) -> None:
        self.tables[region]._put(item)
        for name, table in self.tables.items():
            if name != region:
                self._coming.append((now + self.lag.get((region, name), 0.0), table, item))

    def measured(self, *regions: str) -> dict[tuple[str, str], MeasuredLag]:
        """The replication by source and target, as it is measured within 10 seconds."""
        found = self.driver.run(self.keeper.measure_lag(regions, 10))
        return {(lag.source, lag.target): lag for lag in found}

    def fill(self) -> None:
        """Write an entity, and have all regions have it."""
        rows = [{"id": "secret-key", "risk": 0.5}]
        self.driver.run(
            self.core.write(USER, rows, observed_at=None, ordering="arrival", timeout=None)
        )
        for table in self.tables.values():
            table.items.update(self.tables[self.router.home].items)

    def read(self) -> Rows:
        """Read one entity, whose key is a secret."""
        prepared = self.core.prepare(USER, None, None)
        return self.driver.run(self.core.read(prepared, ["secret-key"], False, None))

    def wait(self, seconds: float) -> None:
        """Let time pass."""

        def nap() -> Operation[None]:
            yield Sleep(seconds)

        self.driver.run(nap())

    @property
    def now(self) -> Instant:
        return Instant(self.driver.now, self.driver.epoch + round(self.driver.now * 1e6))


# --- replication ---------------------------------------------------------------------------


def test_lag_is_measured_in_each_direction() -> None:
    """Each pair of regions has its own figure, right to about a tenth, in a few dozen reads."""
    world = World(A, B, C)
    world.lag = {(A, B): 0.5, (B, A): 4.0, (C, A): 0.0}
    found = world.measured(A, B, C)
    assert len(found) == 6
    assert 0.49 <= (found[A, B].seconds or 0) <= 0.6
    assert 3.99 <= (found[B, A].seconds or 0) <= 4.5
    assert 0 <= (found[C, A].seconds or 0) <= 0.01
    assert len(world.driver.sent) < 6 * 50


def test_a_heartbeat_that_does_not_arrive_has_no_figure() -> None:
    """Where nothing arrives in time there is None, soon after that time is over."""
    world = World(A, B)
    world.lag = {(A, B): math.inf}
    found = world.measured(A, B)
    assert found[A, B] == MeasuredLag(A, B, None)
    assert found[B, A].seconds is not None
    assert 8.5 < world.driver.now < 10.5


def test_a_silent_region_does_not_delay_the_measure_of_others() -> None:
    """A region without an answer is told by its error, and the others by their own lag."""
    world = World(A, B, C)
    world.lag = {(A, B): 0.2, (B, A): 0.2}
    world.silent.add(C)
    found = world.measured(A, B, C)
    assert (found[A, B].seconds or 9) < 0.3
    assert (found[B, A].seconds or 9) < 0.3
    for pair in ((A, C), (C, A), (B, C), (C, B)):
        assert (found[pair].seconds, found[pair].reason) == (None, "RequestTimeout")


def test_a_heartbeat_of_a_clock_that_is_ahead_is_not_taken_for_ours() -> None:
    """What is there already, from a later time even, does not count as an arrival."""
    world = World(A, B)
    ahead = items.beat(A, world.now.wall + 3_600_000_000, TableLayout())
    beat = {name: json.loads(value) for name, value in ahead.items()}
    for table in world.tables.values():
        table._put(beat)
    world.lag = {(A, B): 2.0}
    assert 1.99 <= (world.measured(A, B)[A, B].seconds or 0) <= 2.3


def test_fewer_than_two_regions_have_no_replication() -> None:
    """There is nothing to measure, and nothing is waited for."""
    world = World(A, B)
    assert world.measured() == {}
    assert world.measured(B) == {}
    assert world.driver.now < 1


# --- counters ------------------------------------------------------------------------------


def test_failovers_are_counted_where_they_were_answered() -> None:
    """A read that another region answers is a failover of that one."""
    world = World(A, B, routing=Routing(hedging=None, probe_every="1h"))
    world.fill()
    world.refusing.add(A)
    report = world.read().report
    status = {region.name: region for region in world.core.status(world.now)}
    assert report.failovers > 0
    assert (status[A].failovers, status[B].failovers) == (0, report.failovers)


def test_hedges_are_counted_where_they_were_sent() -> None:
    """A read that takes long is asked in the next region, which counts it as a hedge."""
    world = World(A, B, routing=Routing(hedging=Hedging(budget=0.5), probe_every="1h"))
    world.fill()
    for milliseconds in (4, 5, 6, 20) * 8:
        world.takes[A] = milliseconds / 1000
        world.read()
    before = {region.name: region.hedges for region in world.core.status(world.now)}
    world.takes[A] = 1.0
    report = world.read().report
    after = {region.name: region.hedges for region in world.core.status(world.now)}
    assert (report.region, report.hedges) == (B, 1)
    assert after == {A: 0, B: before[B] + 1}


# --- refusals of one region ----------------------------------------------------------------

REFUSALS = {
    "AccessDeniedException": AccessDenied,
    "ResourceNotFoundException": TableNotFound,
    "UnrecognizedClientException": InvalidCredentials,
}


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("hedging", [None, Hedging()])
def test_what_one_region_refuses_another_one_answers(code: str, hedging: Hedging | None) -> None:
    """A region that refuses what another accepts loses its reads, and gets them back later."""
    world = World(A, B, routing=Routing(hedging=hedging, probe_every="1s"))
    world.fill()
    world.read()
    world.denying[A] = code
    reports = [world.read().report for _ in range(4)]
    assert [report.region for report in reports] == [B] * 4
    status = world.core.status(world.now)[0]
    assert (status.state, status.reason) == (RegionState.DOWN, REFUSALS[code].__name__)
    world.driver.sent.clear()
    for _ in range(20):  # Probes that are refused too do not bring it back.
        world.wait(1)
        assert world.read().statuses("risk") == ["hit"]
    assert world.core.status(world.now)[0].state is RegionState.DOWN
    world.denying.clear()
    for _ in range(120):
        world.wait(1)
        world.read()
    assert world.read().report.region == A
    assert world.core.status(world.now)[0].state is RegionState.HEALTHY


@pytest.mark.parametrize("code", REFUSALS)
def test_what_every_region_refuses_is_raised(code: str) -> None:
    """A refusal in all regions is raised, names the first region's reason, and harms no region."""
    world = World(A, B, routing=Routing(hedging=None, probe_every="1h"))
    world.fill()
    world.read()
    world.denying = {A: code, B: code}
    for _ in range(5):
        with pytest.raises(REFUSALS[code]):
            world.read()
    assert all(health.state is RegionState.HEALTHY for health in world.router.health.values())


def test_a_write_that_one_region_refuses_is_not_sent_to_another() -> None:
    """Writes follow the routing policy: a refusal alone does not move them."""
    world = World(A, B, routing=Routing(hedging=None, probe_every="1h"))
    world.fill()
    world.denying[A] = "AccessDeniedException"
    world.driver.sent.clear()
    with pytest.raises(OnlineStoreError):
        world.fill()
    assert {send.to for _, send in world.driver.sent} == {A}


# --- logs ----------------------------------------------------------------------------------


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "chalk_online_store.routing")
    return caplog


def test_every_change_of_a_region_is_a_line(logged: pytest.LogCaptureFixture) -> None:
    """Down is a warning that says where reads go; returning and healthy are told as well."""
    world = World(A, B, routing=Routing(hedging=None, probe_every="1s"))
    held: list[bool] = []

    def tell(region: RegionHealth) -> None:
        held.append(world.router._lock.locked())
        log_change(world.router, region, world.now)

    world.router.on_change = tell
    world.fill()
    world.refusing.add(A)
    for _ in range(3):
        world.read()
    world.refusing.clear()
    for _ in range(120):
        world.wait(1)
        world.read()
    assert [(record.levelname, record.getMessage()) for record in logged.records] == [
        ("WARNING", f"region {A} is down: ConnectionFailed; reads go to {B}"),
        ("INFO", f"region {A} is returning: well again"),
        ("INFO", f"region {A} is healthy"),
    ]
    assert held == [False] * 3
    assert "secret" not in logged.text


def test_a_store_logs_and_tells_no_secret(
    logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is opened by URL logs its regions by name: no key, credential or address."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSECRET")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "top-secret")
    with OnlineStore.open(DEAD, [USER]) as store:
        store.health(timeout=2)
        lines = {record.getMessage() for record in logged.records}
        assert any(f"region {A} is down" in line for line in lines)
        assert any(f"region {B} is down" in line for line in lines)
    text = logged.text.lower()
    for secret in ("secret", "127.0.0.1", "features"):
        assert secret not in text


def test_nothing_is_printed_where_logging_is_not_configured() -> None:
    """Warnings do not reach the terminal of a program that has not asked for them."""
    program = (
        "from chalk_online_store import OnlineStore\n"
        f"with OnlineStore.open({DEAD!r}, []) as store:\n"
        "    store.health(timeout=2)\n"
        "    print(store.regions()[0].state)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("down\n", "")


# --- orders --------------------------------------------------------------------------------


def test_orders_are_added_and_taken_back() -> None:
    """Draining and evacuating add to what holds, once each; a release takes from all."""
    orders = RegionCommands(5).drain([A]).drain([A, B])
    assert orders == RegionCommands(5, drained=(A, B))
    orders = orders.evacuate([B])
    assert orders == RegionCommands(5, drained=(A,), evacuated=(B,))
    assert orders.pin(C).release([C, A]) == RegionCommands(5, evacuated=(B,))
    with pytest.raises(InvalidValue, match="release it first"):
        orders.drain([B])


def test_orders_that_are_taken_back_leave_nothing_to_weigh() -> None:
    """After a release reads are routed as if nothing had ever been ordered."""
    router = Router([A, B], A, rng=random.Random(1))
    router.order(RegionCommands(1, evacuated=(A,)))
    assert router.to_read(Instant(1.0, 1)) == [B]
    router.order(RegionCommands(2))
    assert router.to_read(Instant(2.0, 2)) is router.to_read(Instant(3.0, 3))


def test_further_orders_do_not_begin_a_drain_anew() -> None:
    """A region that is drained stays without reads when another one is evacuated later."""
    router = Router([A, B, C], A, rng=random.Random(1))
    router.order(RegionCommands(1, drained=(A,)))
    drained = Instant(100.0, 100_000_000)
    assert router.to_read(drained)[0] == B
    router.order(RegionCommands(drained.wall, drained=(A,), evacuated=(C,)))
    assert [router.to_read(drained) for _ in range(20)] == [[B, A]] * 20


# --- the retry quota -----------------------------------------------------------------------


def test_a_read_leaves_a_region_whose_retry_quota_is_used_up() -> None:
    """A throttled read without tokens for a retry goes to another region at once."""
    world = World(A, B)
    world.fill()
    world.read()
    while world.backend._wire._quota(A).take(Throttled()):
        pass
    world.denying[A] = "ThrottlingException"
    rows = world.read()
    assert (rows[0]["risk"], rows.report.region, rows.report.retries) == (0.5, B, 0)


def test_an_error_names_the_region_that_refused() -> None:
    """If all regions refuse a read, the error has the region of the refusal that it states."""
    world = World(A, B)
    world.fill()
    world.read()
    world.denying = dict.fromkeys((A, B), "AccessDeniedException")
    with pytest.raises(AccessDenied) as raised:
        world.read()
    assert (raised.value.region, raised.value.attempt) == (A, 1)
