"""A store on several regions in virtual time, each of which can be told how to be unwell."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from chalk_online_store import Routing, features
from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.dynamodb.backend import DynamoDBBackend
from chalk_online_store.dynamodb.messages import Response
from chalk_online_store.effects import NOW, Instant, Operation, Send, Sleep, Spawn
from chalk_online_store.errors import ConnectionFailed, OnlineStoreError
from chalk_online_store.operations.core import Core
from chalk_online_store.routing.attempts import RoutedAttempts
from chalk_online_store.routing.commands import RegionCommands
from chalk_online_store.routing.health import RegionHealth
from chalk_online_store.routing.router import Router
from tests.fakes import answer, refusal
from tests.replication import Lag, Replication, what


@features
class User:
    id: int
    a: int | None


@features
class Order:
    """What nobody has registered yet."""

    id: int
    b: int


NEVER = 1e9
"""Seconds after which nothing answers any more."""

REFUSED, SILENT, ERRORS, DAMAGED, SLOW, PARTIAL, THROTTLED, LATE = FAULTS = (
    "refused",
    "silent",
    "errors",
    "damaged",
    "slow",
    "partial",
    "throttled",
    "late",
)


class Fault(NamedTuple):
    """What is wrong with a region from one time to another; seconds."""

    region: str
    kind: str
    begins: float
    ends: float


@dataclass
class Done:
    """One call: when it began and ended, and what came of it."""

    began: float
    ended: float = NEVER
    value: Any = None
    error: OnlineStoreError | None = None
    region: str = ""
    requests: int = 0
    hedges: int = 0
    failed: int = 0
    behind: float | None = None
    lacks: float | None = None
    """Over how many seconds that was written elsewhere, before `looked`, which the answering
    region lacks; None where it lacks nothing."""
    looked: float = -NEVER
    """When, before the call, the answering region's heartbeats had last been looked at."""


class Sent(NamedTuple):
    """A request: when, what and where to; what the router knew then, and where it would write."""

    at: float
    what: str
    to: str
    states: Mapping[str, str]
    written: str
    orders: RegionCommands


class Command(NamedTuple):
    """Orders that an operator gives at a time; see `OnlineStore.order_regions`."""

    at: float
    pinned: str = ""
    drained: tuple[str, ...] = ()
    evacuated: tuple[str, ...] = ()


class WatchedRouter(Router):
    """One that remembers when it has looked at each region."""

    looked: Mapping[str, float] = {}

    def saw(self, region: str, beats: Mapping[str, int], now: Instant) -> None:
        super().saw(region, beats, now)
        self.looked = {**self.looked, region: now.monotonic}


@dataclass
class Regions:
    """Regions with their distances in seconds, the preferred one first.

    `faults` may overlap; of those of one region the first counts.
    """

    distances: dict[str, float]
    routing: Routing = field(default_factory=Routing)
    faults: Sequence[Fault] = ()
    seed: int = 7
    timeout: float = 1.0
    home: str = ""
    lags: Sequence[Lag] = ()

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.replication = Replication(self.distances, self.lags)
        names = tuple(self.distances)
        self.changes: list[tuple[str, str]] = []
        self.changed_at: list[float] = []
        self.sent: list[Sent] = []
        self.before: dict[str, Reply] = {}
        """The last response of each region."""
        self.router = WatchedRouter(
            names, self.home or names[0], self.routing, self.rng, self._changed
        )
        route = RoutedAttempts(self.router)
        backend = DynamoDBBackend("simulated", rng=self.rng, route=route)
        self.core = Core(
            backend,
            [User, Order],
            timeout=self.timeout,
            lru_cache=None,
            rng=self.rng,
            route=route,
        )
        self.driver = SimulatedDriver(self._answer)

    def _changed(self, region: RegionHealth) -> None:
        self.changes.append((region.name, region.state))
        self.changed_at.append(self.driver.now)

    def _answer(self, send: Send, now: float) -> Reply:
        router = self.router
        states = {name: health.state for name, health in router.health.items()}
        self.sent.append(Sent(now, what(send), send.to, states, router.written, router.orders))
        kind = self.kind(send.to, now)
        took = self.distances[send.to] * self.rng.lognormvariate(0, 0.3)
        if kind == PARTIAL:
            kind = self.rng.choice(("", "", "", REFUSED, SILENT))
        if kind == REFUSED:
            return Reply(error=ConnectionFailed("refused"), after=0.001)
        if kind == SILENT:
            return Reply(after=NEVER)
        if kind == ERRORS:
            return refusal("InternalServerError", 500)
        if kind == THROTTLED:
            return refusal("ProvisionedThroughputExceededException")
        reply = self.replication.answer(send, now)
        before, self.before[send.to] = self.before.get(send.to, reply), reply
        if kind == LATE:  # Out of step by one: each request gets the response to another one.
            reply = before
        if kind == DAMAGED:
            whole: Response = reply.response
            reply = Reply(Response(whole.status, {"x-amz-crc32": "1"}, whole.body))
        return Reply(reply.response, reply.error, took * (10 if kind == SLOW else 1))

    def times_of(self, region: str, state: str) -> list[float]:
        """When a region came into a state."""
        changes = zip(self.changed_at, self.changes, strict=True)
        return [at for at, change in changes if change == (region, state)]

    def kind(self, region: str, now: float) -> str:
        """What is wrong with a region at a time."""
        found = (f.kind for f in self.faults if f.region == region and f.begins <= now < f.ends)
        return next(found, "")

    def run(self, operation: Operation[Any]) -> Any:
        """Perform an operation in virtual time."""
        return self.driver.run(operation)

    def fill(self, count: int) -> None:
        """Write some entities: the value of each is its key."""
        self.run(self.write([{"id": n, "a": n} for n in range(count)], timeout=60))

    def write(self, rows: Iterable[dict[str, Any]], timeout: float | None = None) -> Any:
        """The operation of a write in arrival order."""
        return self.core.write(User, rows, observed_at=None, ordering="arrival", timeout=timeout)

    def load(self, count: int, every: float, keys: int = 20) -> list[Done]:
        """Read one entity `every` so many seconds, whatever became of the reads before."""
        calls: list[Done] = []
        self.run(self._repeat(count, every, lambda number: self._read(calls, number % keys)))
        return calls

    def mixed_load(
        self,
        count: int,
        every: float,
        commands: Sequence[Command] = (),
        unknown: list[Done] | None = None,
    ) -> tuple[list[Done], list[Done]]:
        """Read and write one entity each time, the writes new ones; answers both kinds of calls.

        Into `unknown` go those that write what nobody has registered, if they are asked for.
        """
        reads: list[Done] = []
        writes: list[Done] = []

        def both(number: int) -> Operation[None]:
            yield Spawn(self._read(reads, number % 20))
            yield Spawn(self._write(writes, _WRITTEN + len(writes)))
            if unknown is not None:
                yield Spawn(_done(unknown, self._registering))

        def run() -> Operation[None]:
            for command in commands:
                yield Spawn(self._order(command))
            yield from self._repeat(count, every, both)

        self.run(run())
        return reads, writes

    def _repeat(
        self, count: int, every: float, once: Callable[[int], Operation[None]]
    ) -> Operation[None]:
        for number in range(count):
            yield Spawn(once(number))
            yield Sleep(every)

    def _read(self, calls: list[Done], key: int) -> Operation[None]:
        yield from _done(calls, lambda done: self._reading(done, key))

    def _reading(self, done: Done, key: int) -> Operation[None]:
        prepared = self.core.prepare(User, ["a"], None)
        looked = self.router.looked
        rows = yield from self.core.read(prepared, [key], False, None)
        report = rows.report
        done.failed, done.behind = report.failed, report.behind
        done.region, done.requests, done.hedges = report.region, report.requests, report.hedges
        if not done.failed:
            done.value = rows[0]["a"] == key
            done.looked = looked.get(done.region, -NEVER)
            done.lacks = self.lacks(done.region, done.looked)

    def _write(self, calls: list[Done], key: int) -> Operation[None]:
        yield from _done(calls, lambda done: self._writing(done, key))

    def _registering(self, done: Done) -> Operation[None]:
        rows = [{"id": 1, "b": 1}]
        yield from self.core.write(Order, rows, observed_at=None, ordering="arrival", timeout=None)
        done.value = True

    def _writing(self, done: Done, key: int) -> Operation[None]:
        report = yield from self.write([{"id": key, "a": key}])
        done.region = report.region
        done.value = self.replication.acknowledge(done.region, key, self.driver.now)

    def lacks(self, region: str, until: float) -> float | None:
        """See `Replication.lacks`, of all other regions."""
        others = (name for name in self.distances if name != region)
        found = [self.replication.lacks(region, name, self.driver.now, until) for name in others]
        return max((lacks for lacks in found if lacks is not None), default=None)

    def _order(self, command: Command) -> Operation[None]:
        yield Sleep(command.at)
        with suppress(OnlineStoreError):  # Where no region hears of it.
            yield from self.core.order(*command[1:], timeout=2)


_WRITTEN = 1000
"""The first key of those that are written beside reads."""


def _done(calls: list[Done], call: Callable[[Done], Operation[None]]) -> Operation[None]:
    began: Instant = yield NOW
    done = Done(began.monotonic)
    calls.append(done)
    try:
        yield from call(done)
    except OnlineStoreError as error:
        done.error = error
    ended: Instant = yield NOW
    done.ended = ended.monotonic


__all__ = ["Command", "Done", "Fault", "Lag", "Order", "Regions", "User", "answer"]
