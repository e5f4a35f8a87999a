"""A writer on a Global Table in virtual time: what was acknowledged outlives its region."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chalk_online_store import Routing, Writing
from chalk_online_store.drivers.simulated import Reply
from chalk_online_store.dynamodb.backend import DynamoDBBackend
from chalk_online_store.effects import NOW, Instant, Operation, Sleep, Spawn
from chalk_online_store.operations.core import Core
from chalk_online_store.routing.attempts import RoutedAttempts
from chalk_online_store.routing.router import Router
from chalk_online_store.schema import namespace_of
from chalk_online_store.writer.core import WriterCore
from chalk_online_store.writer.tickets import Ticket
from tests.expressions import Expressions
from tests.fakes import refusal
from tests.helpers import stress
from tests.regions import REFUSED, SILENT, Fault, Lag, Order, Regions, User
from tests.replication import _Replica

EAST, WEST = "us-east-1", "us-west-2"
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SCHEDULES = stress(10)
ROUTING = Routing(return_after="1s", return_over="1s", probe_every="1s")


def moment(version: int) -> datetime:
    return EPOCH + timedelta(microseconds=version)


class Conditional(_Replica):
    """A region that heeds conditions."""

    def __init__(self) -> None:
        super().__init__()
        self.fault = self._refused

    def _found(self, body: dict[str, Any]) -> dict[str, Any] | None:
        key = body["Key"]
        return self.items.get((key["pk"]["S"], key["sk"]["S"]))

    def _refused(self, operation: str, body: dict[str, Any], now: float) -> Reply | None:
        if operation != "UpdateItem" or Expressions(body, self._found(body)).hold():
            return None
        item = self._found(body)
        more: dict[str, Any] = {} if item is None else {"Item": item}
        return refusal("ConditionalCheckFailedException", **more)

    def _UpdateItem(self, body: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        self._put(Expressions(body, self._found(body)).updated(body["Key"]))
        return {"ConsumedCapacity": {"CapacityUnits": 1.0}}


@dataclass
class World:
    """Regions, a writer, and whoever else writes; the first region is preferred."""

    faults: list[Fault] = field(default_factory=list)
    lags: list[Lag] = field(default_factory=list)
    names: tuple[str, ...] = (EAST, WEST)
    settings: Writing = field(default_factory=Writing)

    def __post_init__(self) -> None:
        self.regions = Regions(
            dict.fromkeys(self.names, 0.01), ROUTING, self.faults, lags=self.lags
        )
        self.regions.replication.tables = {name: Conditional() for name in self.names}
        self.writer = WriterCore(self.regions.core, self.settings, rng=random.Random(1))
        self.newest: dict[tuple[int, str], int] = {}
        self.tickets: list[tuple[Ticket, int, dict[str, Any]]] = []

    def run(self, script: Callable[[], Operation[None]]) -> None:
        """Run a script while the writer works."""

        def whole() -> Operation[None]:
            yield Spawn(self.writer.run())
            try:
                yield from script()
            finally:
                self.writer.stop()

        self.regions.run(whole())

    @property
    def now(self) -> float:
        return self.regions.driver.now

    def submit(self, key: int, version: int, **values: Any) -> Operation[Ticket]:
        """Hand a row over that was true at its version."""
        row = {"id": key, **(values or {"a": version})}
        now: Instant = yield NOW
        submission = self.writer.submission(User, [row], moment(version), "live", now)
        assert self.writer.offer(submission)
        self.tickets.append((submission.ticket, version, row))
        return submission.ticket

    def acknowledged(self) -> dict[int, int]:
        """The newest version of each key that was acknowledged."""
        found: dict[int, int] = {}
        for ticket, version, row in self.tickets:
            if ticket.done and "a" in row:
                found[row["id"]] = max(found.get(row["id"], 0), version)
        return found

    def held(self, region: str) -> dict[int, int]:
        """The version of each key in one region."""
        self.regions.replication._deliver(self.now)
        registry = self.regions.core.registry.known(namespace_of(User))
        assert registry is not None
        (column,) = registry.groups["default"].columns
        table = self.regions.replication.tables[region]
        return {
            int(pk.partition(":")[2]): int(item[column.id]["N"])
            for (pk, _), item in table.items.items()
            if registry.prefix and pk.startswith(registry.prefix) and column.id in item
        }

    def lacking(self, region: str) -> dict[int, int]:
        """What was acknowledged but is not, or only as an older version, in a region."""
        held = self.held(region)
        return {k: v for k, v in self.acknowledged().items() if held.get(k, 0) < v}


def load(world: World, seconds: float, start: int = 1, keys: int = 10) -> Operation[int]:
    """Ten rows a second, each a newer version; the next version."""
    version, until = start, world.now + seconds
    while world.now < until:
        yield from world.submit(version % keys, version)
        version += 1
        yield Sleep(0.1)
    return version


def cut(begins: float, ends: float, source: str = EAST, target: str = WEST) -> Lag:
    """Nothing that is written in `source` meanwhile gets to `target` before the end."""
    return Lag(source, target, math.inf, begins, ends)


def test_what_was_not_replicated_is_written_to_the_next_region() -> None:
    """Within seconds of the failover the survivor has all; the lost region, once it is back."""
    world = World([Fault(EAST, REFUSED, 10, 40)], [cut(5, 60)])

    def script() -> Operation[None]:
        version = yield from load(world, 20)
        yield from world.writer.flush(30)
        yield Sleep(3)
        assert world.lacking(WEST) == {}
        yield from load(world, 15, version)
        yield Sleep(30)
        yield from world.writer.flush(30)
        assert world.lacking(EAST) == world.lacking(WEST) == {}
        assert world.writer.stats(Instant(world.now, 0)).replay_owed == 0

    world.run(script)
    assert world.writer.ledger.counts.replayed > 0


def test_without_the_window_it_would_be_lost() -> None:
    """The test above proves something: a window that is too short leaves the survivor behind."""
    settings = Writing(replay_window="100ms")
    world = World([Fault(EAST, REFUSED, 10, 40)], [cut(5, 60)], settings=settings)

    def script() -> Operation[None]:
        yield from load(world, 9.5, keys=95)  # None of them is written again.
        yield Sleep(10)
        assert len(world.lacking(WEST)) > 10

    world.run(script)


def test_an_idle_writer_notices() -> None:
    """Nobody writes any more when the region is lost; what it had is written all the same."""
    world = World([Fault(EAST, SILENT, 10, 60)], [cut(5, 100)])

    def script() -> Operation[None]:
        yield from load(world, 8)
        yield Sleep(12)
        assert world.lacking(WEST) == {}

    world.run(script)


def test_a_second_failover_carries_on_what_the_first_brought() -> None:
    """What was written to the second region, and not replicated, is written to the third."""
    third = "eu-west-1"
    lags = [cut(5, 200, EAST, t) for t in (WEST, third)] + [cut(5, 200, WEST, third)]
    faults = [Fault(EAST, REFUSED, 10, 100), Fault(WEST, REFUSED, 20, 100)]
    world = World(faults, lags, (EAST, WEST, third))

    def script() -> Operation[None]:
        yield from load(world, 9)
        yield Sleep(20)
        assert world.lacking(third) == {}

    world.run(script)


@pytest.mark.slow
def test_nothing_is_kept_beyond_the_window() -> None:
    """A writer that writes for an hour keeps what was acknowledged in the last 90 seconds."""
    world = World()

    def script() -> Operation[None]:
        for version in range(1, 600):
            yield from world.submit(version % 10, version)
            yield Sleep(6)
        bytes_of_a_row = 150
        kept = world.writer.stats(Instant(world.now, 0)).replay_bytes
        assert 5 * bytes_of_a_row < kept < 40 * bytes_of_a_row

    world.run(script)


def test_an_evacuated_region_is_taken_for_lost() -> None:
    """An operator who evacuates a region knows that it is not well."""
    world = World(lags=[cut(5, 100)])

    def script() -> Operation[None]:
        yield from load(world, 8)
        yield from world.regions.core.order("", (), (EAST,), 2.0)
        yield Sleep(5)
        assert world.lacking(WEST) == {}

    world.run(script)


def test_a_return_to_a_better_region_replays_nothing() -> None:
    """Writes that go back home leave a region that is well: its replication will do."""
    world = World([Fault(EAST, REFUSED, 10, 20)])

    def script() -> Operation[None]:
        version = yield from load(world, 15)
        yield Sleep(10)
        before = world.writer.ledger.counts.replayed
        yield from load(world, 30, version)
        assert world.regions.router.written == EAST
        assert world.writer.ledger.counts.replayed - before < 150

    world.run(script)


def other_process(world: World) -> Core:
    """Another process, on the same regions, that has its own idea of them."""
    router = Router(list(world.names), world.names[0], ROUTING, random.Random(5))
    route = RoutedAttempts(router)
    backend = DynamoDBBackend("simulated", rng=random.Random(5), route=route)
    return Core(backend, [User, Order], timeout=20, lru_cache=None, route=route)


def test_a_replay_undoes_nothing_that_another_process_wrote() -> None:
    """Newer versions by others stay, in the survivor and, after its return, in both."""
    world = World([Fault(EAST, REFUSED, 10, 30)], [cut(5, 40)])
    other = other_process(world)

    def script() -> Operation[None]:
        yield from load(world, 9)
        yield Sleep(1)
        rows = [{"id": key, "a": 10_000 + key} for key in range(0, 10, 2)]
        yield from other.write(User, rows, observed_at=moment(10_000), ordering="event", timeout=20)
        yield Sleep(60)
        for region in (EAST, WEST):
            held = world.held(region)
            assert {key: held[key] for key in range(0, 10, 2)} == {r["id"]: r["a"] for r in rows}
        assert world.lacking(WEST) == world.lacking(EAST) == {}

    world.run(script)


faults = st.builds(
    Fault,
    st.sampled_from([EAST, WEST]),
    st.sampled_from([REFUSED, SILENT]),
    st.integers(3, 30).map(float),
    st.integers(31, 60).map(float),
)
lags = st.builds(
    cut,
    st.integers(2, 20).map(float),
    st.integers(40, 70).map(float),
    st.just(EAST),
    st.just(WEST),
)


@pytest.mark.slow
@given(st.lists(faults, max_size=2), st.lists(lags, max_size=1), st.integers(5, 40))
@settings(max_examples=SCHEDULES)
def test_whatever_happens_all_regions_have_it_in_the_end(
    faults: list[Fault], lags: list[Lag], seconds: int
) -> None:
    """Faults and cuts of any kind, then peace: every acknowledged version is everywhere."""
    world = World(faults, lags)

    def script() -> Operation[None]:
        yield from load(world, seconds)
        yield Sleep(max(0.0, 75 - world.now))
        yield from world.writer.flush(120)
        yield Sleep(30)
        assert all(ticket.done for ticket, _, _ in world.tickets)
        assert world.lacking(EAST) == world.lacking(WEST) == {}

    world.run(script)


@pytest.mark.parametrize("routing", ["home", "any-region"])
def test_other_ways_of_writing_lose_nothing_either(routing: Any) -> None:
    """Where writes wait for their home, or go to the region that is read."""
    world = World([Fault(EAST, REFUSED, 10, 30)], [cut(5, 40)])
    world.regions.router.routing = Routing(writes=routing, return_after="1s", return_over="1s")

    def script() -> Operation[None]:
        yield from load(world, 20)
        yield Sleep(60)
        yield from world.writer.flush(60)
        assert world.lacking(EAST) == world.lacking(WEST) == {}

    world.run(script)


def test_one_region_has_no_window() -> None:
    """Where nothing can be replayed, nothing is kept."""
    core = Core(DynamoDBBackend("one"), [User], timeout=1, lru_cache=None)
    assert WriterCore(core, Writing())._window is None
