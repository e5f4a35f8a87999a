"""A primary and its replicas in virtual time: a real server answers for all, and faults between."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.effects import Operation, Send
from chalk_online_store.errors import ConnectionFailed, ServerError
from chalk_online_store.operations.core import Core
from chalk_online_store.routing.attempts import RoutedAttempts
from chalk_online_store.testing import Valkey
from chalk_online_store.valkey.backend import ValkeyBackend
from chalk_online_store.valkey.commands import Request
from chalk_online_store.valkey.transport import ValkeyTransport
from chalk_online_store.valkey.urls import ValkeyTarget
from tests.regions import (
    ERRORS,
    NEVER,
    PARTIAL,
    REFUSED,
    SILENT,
    SLOW,
    Done,
    Order,
    Regions,
    Sent,
    User,
    WatchedRouter,
)

EMPTY, DEMOTED = "empty", "demoted"
"""A replica that has nothing of the primary yet; a primary that was made a replica."""

FAULTS = (REFUSED, SILENT, ERRORS, SLOW, PARTIAL, EMPTY, DEMOTED)
PRIMARY = "primary"
_WRITES = ("EVALSHA", "EVAL", "SET", "DEL")
_OF_A_REPLICA = frozenset(("GET", "MGET", "ZRANGEBYLEX"))


@dataclass
class Nodes(Regions):
    """As `Regions`, of nodes one of which is called "primary"."""

    server: Valkey | None = None

    def __post_init__(self) -> None:
        assert self.server is not None
        self.rng = random.Random(self.seed)
        self.changes: list[tuple[str, str]] = []
        self.changed_at: list[float] = []
        self.sent: list[Sent] = []
        self.misled: list[Request] = []
        """What was sent to a replica, and is for the primary."""
        self.acknowledged: set[int] = set()
        names = tuple(self.distances)
        self.router = WatchedRouter(
            names, PRIMARY, self.routing, self.rng, self._changed, single_writer=True
        )
        route = RoutedAttempts(self.router)
        self.prefix = f"{uuid.uuid4().hex}:"
        backend = ValkeyBackend("simulated", self.prefix, rng=self.rng, route=route)
        schema = [User, Order]
        self.core = Core(
            backend, schema, timeout=self.timeout, lru_cache=None, rng=self.rng, route=route
        )
        self.driver = SimulatedDriver(self._answer)
        self.transport = ValkeyTransport(ValkeyTarget((("127.0.0.1", self.server.port or 0),)))

    def _answer(self, send: Send, now: float) -> Reply:
        states = {name: health.state for name, health in self.router.health.items()}
        name = str(send.request.commands[-1][0])
        self.sent.append(Sent(now, name, send.to, states, self.router.written, self.router.orders))
        if send.to != PRIMARY and not self._is_for_a_replica(send.request):
            self.misled.append(send.request)
        kind = self.kind(send.to, now)
        took = self.distances[send.to] * self.rng.lognormvariate(0, 0.3)
        if kind == PARTIAL:
            kind = self.rng.choice(("", "", "", REFUSED, SILENT))
        if kind == REFUSED:
            return Reply(error=ConnectionFailed("refused"), after=0.001)
        if kind == SILENT:
            return Reply(after=NEVER)
        replies = [self._reply(command, kind) for command in send.request.commands]
        if None not in replies or kind == EMPTY:
            return Reply(replies, after=took)
        # Together, so that what waits for a command before it does so.
        found = self.transport.send(send.request, 5)
        return Reply(found, after=took * (200 if kind == SLOW else 1))

    def _reply(self, command: Any, kind: str) -> Any:
        """What a node that is not well answers; None where it asks the server."""
        if kind == ERRORS:
            return ServerError("LOADING")
        if kind == DEMOTED and str(command[0]) in _WRITES:
            return ServerError("READONLY")
        if kind == EMPTY:
            return {"MGET": [None] * (len(command) - 1), "ZRANGEBYLEX": []}.get(str(command[0]))
        return None

    def _is_for_a_replica(self, request: Request) -> bool:
        names = {str(command[0]) for command in request.commands}
        listed = [str(c[1]) for c in request.commands if c[0] == "ZRANGEBYLEX"]
        return names <= _OF_A_REPLICA and all(key.endswith("regions") for key in listed)

    def write(self, rows: Iterable[dict[str, Any]], timeout: float | None = None) -> Any:
        """The operation of a write in event time."""
        return self.core.write(User, rows, observed_at=None, ordering="event", timeout=timeout)

    def _writing(self, done: Done, key: int) -> Operation[None]:
        report = yield from self.write([{"id": key, "a": key}])
        done.region = report.region
        done.value = True
        self.acknowledged.add(key)

    def lacks(self, region: str, until: float) -> float | None:
        """Nothing: one server answers for all."""
        return None

    def lost(self) -> set[int]:
        """The keys that were acknowledged, and are not there."""
        self.faults = ()
        keys = sorted(self.acknowledged)
        prepared = self.core.prepare(User, ["a"], None)
        rows = self.run(self.core.read(prepared, keys, True, 60))
        return {key for key, row in zip(keys, rows, strict=True) if row.get("a") != key}
