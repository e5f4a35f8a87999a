"""Replicas that no longer receive writes are detected by heartbeats, and used last."""

from __future__ import annotations

import logging
import math

import pytest

from chalk_online_store import Routing
from chalk_online_store.effects import Instant
from chalk_online_store.routing.logs import log_replication
from chalk_online_store.routing.replication import STOPPED_AFTER_SECONDS, ReplicationMonitor
from chalk_online_store.routing.router import Router
from tests.regions import Regions
from tests.replication import Lag

A, B, C = "us-east-1", "us-west-2", "eu-west-1"
SECOND = 1_000_000


def look(monitor: ReplicationMonitor, now: float, a: float, b: float, seen: float) -> None:
    """A's own heartbeat of second `a`, B's of `b`; B shows A's heartbeat of `seen`."""
    in_b = {B: int(b * SECOND), A: int(seen * SECOND)}
    monitor.saw(A, {A: int(a * SECOND), B: int(b * SECOND)}, now)
    monitor.saw(B, in_b, now)


def test_a_replica_that_stands_still_while_its_source_goes_on_is_found() -> None:
    """A heartbeat that does not arrive for a minute of looks at both regions is enough."""
    monitor = ReplicationMonitor()
    for now in range(0, 61, 5):
        look(monitor, now, a=now, b=now, seen=now - 1)
        assert not monitor.stopped
    for now in range(65, 200, 5):
        look(monitor, now, a=now, b=now, seen=60)
        # The first heartbeat of A that never arrives in B was seen at 65.
        assert bool(monitor.stopped) == (now >= 65 + STOPPED_AFTER_SECONDS)
    assert monitor.stopped == {(B, A)}
    look(monitor, 205, a=205, b=205, seen=204)
    assert not monitor.stopped


def test_a_source_that_is_lost_does_not_make_its_replicas_stale() -> None:
    """Writes that a lost region accepted last do not count as a stop, ever."""
    monitor = ReplicationMonitor()
    look(monitor, 0, a=0, b=0, seen=0)
    monitor.saw(A, {A: 5 * SECOND}, 5)  # And then nobody reaches A.
    for now in range(10, 1000, 5):
        monitor.saw(B, {B: now * SECOND, A: 0}, now)
        assert not monitor.stopped


@pytest.mark.parametrize("lost", [A, B])
def test_a_region_that_returns_has_time_to_catch_up(lost: str) -> None:
    """Heartbeats from before an outage of a region do not count after it."""
    monitor = ReplicationMonitor()
    look(monitor, 0, a=2, b=0, seen=1)
    for now in range(5, 600, 5):
        if lost == A:
            monitor.saw(B, {B: now * SECOND, A: SECOND}, now)
        else:
            monitor.saw(A, {A: (now + 2) * SECOND}, now)
    look(monitor, 600, a=602, b=600, seen=1)
    look(monitor, 605, a=607, b=605, seen=1)
    assert not monitor.stopped
    for now in range(610, 656, 5):
        look(monitor, now, a=now, b=now, seen=1)
    assert not monitor.stopped
    look(monitor, 660, a=660, b=660, seen=1)
    assert monitor.stopped == {(B, A)}


def test_writers_that_pause_and_resume_are_no_stop() -> None:
    """The first heartbeat after hours starts to count when it is seen."""
    monitor = ReplicationMonitor()
    for now in range(0, 7200, 5):
        look(monitor, now, a=1, b=1, seen=1)
    look(monitor, 7200, a=7200, b=7200, seen=1)
    assert not monitor.stopped
    look(monitor, 7205, a=7205, b=7205, seen=7204)
    assert not monitor.stopped


def test_clocks_of_writers_do_not_count() -> None:
    """A writer whose clock is an hour ahead, or behind, stops nothing."""
    for skew in (-3600, 3600):
        monitor = ReplicationMonitor()
        for now in range(0, 300, 5):
            look(monitor, now, a=now + skew, b=now + skew, seen=now + skew - 1)
        assert not monitor.stopped


# --- what the router makes of it -----------------------------------------------------------


def stopped_router(routing: Routing | None = None, *regions: str) -> tuple[Router, Instant]:
    """A router that has seen B, the second region, stand still for two minutes."""
    router = Router(regions or (A, B), A, routing)
    for second in range(0, 120, 5):
        now = Instant(float(second), second * SECOND)
        for name in router.regions:
            beats = dict.fromkeys(router.regions, second * SECOND + 1)
            beats |= {A: 1} if name == B else {B: 1}
            router.saw(name, beats, now)
    return router, now


def test_a_stale_replica_is_read_last_and_never_hedged_to() -> None:
    """Reads prefer every other region that answers, however far it is."""
    router, now = stopped_router(None, A, B, C)
    assert list(router.to_read(now)) == [A, C, B]
    assert [router.may_hedge_to(name) for name in (A, B, C)] == [True, False, True]
    assert [each.not_replicated_from for each in router.status(now)] == [(B,), (A,), (B,)]


def test_nearest_does_not_prefer_a_stale_replica() -> None:
    """A replica next door that stands still is not the nearest one."""
    router, now = stopped_router(Routing(reads="nearest"))
    router.probed(B, 0.001)
    router.probed(A, 0.1)
    assert list(router.to_read(now)) == [A, B]


def fail(router: Router, region: str, now: float) -> None:
    from chalk_online_store.errors import ConnectionFailed

    for _ in range(3):
        generation = router.health[region].generation
        router.raised(region, generation, "k", ConnectionFailed("refused"), 1.0, now)


def test_writes_do_not_fail_over_to_a_stale_replica() -> None:
    """Writes stay in their region and fail, since a move would split the data."""
    router, now = stopped_router()
    fail(router, A, now.monotonic)
    assert router.to_write(now) == A
    assert router.to_read(now)[0] == B  # Old values rather than none.
    current, now = stopped_router(None, A, B, C)
    fail(current, A, now.monotonic)
    assert current.to_write(now) == C


def test_an_operator_can_send_writes_there_all_the_same() -> None:
    """A pin is stronger than what heartbeats say."""
    from chalk_online_store.routing.commands import RegionCommands

    router, now = stopped_router()
    router.order(RegionCommands(at=1, pinned=B))
    assert router.to_write(now) == B


def test_a_stop_and_its_end_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Each pair of regions is logged once at the stop and once at the end."""
    router = Router((A, B), A)
    router.on_replication = log_replication
    caplog.set_level(logging.INFO, "chalk_online_store")
    for second in range(0, 200, 5):
        now = Instant(float(second), second * SECOND)
        router.saw(A, {A: second * SECOND + 1}, now)
        router.saw(B, {A: 1 if second < 150 else second * SECOND + 1}, now)
    told = [(record.levelname, record.__dict__["chalk.state"]) for record in caplog.records]
    assert told == [("WARNING", "stopped"), ("INFO", "running")]
    assert caplog.records[0].__dict__["cloud.region"] == B


def test_a_store_leaves_a_disassociated_replica_and_returns_to_it() -> None:
    """In virtual time: reads nearby go to the current region after a minute, and come back."""
    cut = [Lag(A, B, math.inf, 30, 200), Lag(B, A, math.inf, 30, 200)]
    regions = Regions({A: 0.05, B: 0.002}, Routing(reads="nearest"), lags=cut)
    regions.fill(20)
    calls = regions.load(600, 0.5)
    by_time = [(call.began, call.region) for call in calls]
    assert {region for at, region in by_time if 10 < at < 30} == {B}
    assert {region for at, region in by_time if 120 < at < 195} == {A}
    assert {region for at, region in by_time if at > 230} == {B}
