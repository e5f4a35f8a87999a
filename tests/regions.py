"""A store on several regions in virtual time, each of which can be told how to be unwell."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
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
from chalk_online_store.routing.router import Router
from tests.fakes import FakeTable, answer, refusal


@features
class User:
    id: int
    a: int | None


NEVER = 1e9
"""Seconds after which nothing answers any more."""

REFUSED, SILENT, ERRORS, DAMAGED, SLOW, PARTIAL, THROTTLED = FAULTS = (
    "refused",
    "silent",
    "errors",
    "damaged",
    "slow",
    "partial",
    "throttled",
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


@dataclass
class Regions:
    """Regions with their distances in seconds, the preferred one first; they share their items.

    `faults` may overlap; of those of one region the first counts.
    """

    distances: dict[str, float]
    routing: Routing = field(default_factory=Routing)
    faults: Sequence[Fault] = ()
    seed: int = 7
    timeout: float = 1.0
    home: str = ""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.tables = {name: FakeTable() for name in self.distances}
        items: dict[tuple[str, str], dict[str, Any]] = {}
        for table in self.tables.values():
            table.items = items
        names = tuple(self.distances)
        self.changes: list[tuple[str, str]] = []
        self.router = Router(
            names,
            self.home or names[0],
            self.routing,
            self.rng,
            lambda region: self.changes.append((region.name, region.state)),
        )
        route = RoutedAttempts(self.router)
        backend = DynamoDBBackend("simulated", rng=self.rng, route=route)
        self.core = Core(
            backend,
            [User],
            timeout=self.timeout,
            lru_cache=None,
            rng=self.rng,
            route=route,
        )
        self.driver = SimulatedDriver(self._answer)

    def _answer(self, send: Send, now: float) -> Reply:
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
        reply = self.tables[send.to](send, now)
        if kind == DAMAGED:
            whole: Response = reply.response
            reply = Reply(Response(whole.status, {"x-amz-crc32": "1"}, whole.body))
        return Reply(reply.response, reply.error, took * (10 if kind == SLOW else 1))

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
        self.run(self._load(calls, count, every, keys))
        return calls

    def _load(self, calls: list[Done], count: int, every: float, keys: int) -> Operation[None]:
        for number in range(count):
            yield Spawn(self._read(calls, number % keys))
            yield Sleep(every)

    def _read(self, calls: list[Done], key: int) -> Operation[None]:
        began: Instant = yield NOW
        done = Done(began.monotonic)
        calls.append(done)
        prepared = self.core.prepare(User, ["a"], None)
        try:
            rows = yield from self.core.read(prepared, [key], False, None)
            done.failed = rows.report.failed
            report = rows.report
            done.region, done.requests, done.hedges = report.region, report.requests, report.hedges
            done.value = None if done.failed else rows[0]["a"] == key
        except OnlineStoreError as error:
            done.error = error
        ended: Instant = yield NOW
        done.ended = ended.monotonic


__all__ = ["Done", "Fault", "Regions", "User", "answer"]
