"""A writer in virtual time, on a table in memory that can be told to misbehave."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from chalk_online_store import DeadLetter, Writing, features
from chalk_online_store.drivers.simulated import Reply, SimulatedDriver
from chalk_online_store.effects import NOW, Instant, Operation, Send, Sleep, Spawn
from chalk_online_store.embedded import requests
from chalk_online_store.embedded.backend import EmbeddedBackend
from chalk_online_store.embedded.transport import SqliteEngine
from chalk_online_store.errors import RequestError
from chalk_online_store.operations.core import Core
from chalk_online_store.operations.times import ObservedAt
from chalk_online_store.writer.core import WriterCore
from chalk_online_store.writer.intake import SPOOL, OnInvalid
from chalk_online_store.writer.spool import Spool
from chalk_online_store.writer.tickets import Priority, Ticket

T = TypeVar("T")


@features
class User:
    id: int
    a: int
    b: str | None


@features
class Order:
    id: str
    total: float


Script = Operation[T]
Fault = Callable[[Any, float], RequestError | None]
"""What a request, at a time, is refused with; None to let it pass."""

WRITES = (requests.Merge, requests.Replace)


class World:
    """One table, one writer, one clock; `took` is how long each request takes."""

    def __init__(
        self, settings: Writing | None = None, *, spool: Spool | None = None, took: float = 0.005
    ) -> None:
        self.engine = SqliteEngine("")
        self.fault: Fault = lambda request, now: None
        self.took = took
        self.spool = spool
        self.letters: list[DeadLetter] = []
        self.driver = SimulatedDriver(self._answer)
        self.store = Core(EmbeddedBackend(), [User, Order], timeout=10, lru_cache=None)
        self.writer = WriterCore(
            self.store,
            settings or Writing(),
            spool=spool,
            dead_letters=self.letters.extend,
            rng=random.Random(1),
        )

    def _answer(self, send: Send, now: float) -> Reply:
        if send.to == SPOOL:
            assert self.spool is not None
            return _reply(self.spool.send, send, 0.001)
        error = self.fault(send.request, now)
        if error is not None:
            return Reply(error=error, after=self.took)
        return _reply(self.engine.send, send, self.took)

    def run(self, script: Callable[[], Operation[T]]) -> T:
        """Run a script while the writer works; then the writer stops."""

        def whole() -> Operation[T]:
            yield Spawn(self._work())
            try:
                return (yield from script())
            finally:
                self.writer.stop()

        return self.driver.run(whole())

    def _work(self) -> Operation[None]:
        """Run the writer as its thread does: again, if it has failed."""
        while not self.writer.stopped:
            try:
                yield from self.writer.run()
            except Exception:  # noqa: BLE001
                yield Sleep(0.1)

    def submit(
        self,
        rows: Sequence[dict[str, Any]],
        observed_at: ObservedAt = None,
        *,
        schema: type = User,
        priority: Priority = "live",
        on_invalid: OnInvalid = "raise",
    ) -> Operation[Ticket]:
        """Hand rows over."""
        now: Instant = yield NOW
        submission = self.writer.submission(schema, rows, observed_at, priority, now, on_invalid)
        if not self.writer.offer(submission):
            yield from self.writer.wait_for_room(submission)
        return submission.ticket

    def read(self, key: Any, schema: type = User) -> dict[str, Any]:
        """The values of one entity that are in the table."""
        prepared = self.store.prepare(schema, None, None)
        self.fault, before = (lambda request, now: None), self.fault
        row = self.driver.run(self.store.read(prepared, [key], True, None))[0]
        self.fault = before
        return {name: row[name] for name in prepared.names if row.status(name) in ("hit", "null")}

    @property
    def writes(self) -> list[tuple[float, Any]]:
        """When what was written, refused or not."""
        return [(at, s.request) for at, s in self.driver.sent if isinstance(s.request, WRITES)]

    def check_account(self) -> None:
        """What was accepted is written, dead or pending."""
        now = self.driver.now
        stats = self.writer.stats(Instant(now, 0))
        assert stats.accepted == stats.written + stats.dead + stats.pending


def _reply(perform: Callable[[Any, float], Any], send: Send, took: float) -> Reply:
    try:
        return Reply(perform(send.request, 1.0), after=took)
    except Exception as error:  # noqa: BLE001 (whoever asked is told)
        return Reply(error=error, after=took)


@contextmanager
def world(settings: Writing | None = None, **options: Any) -> Iterator[World]:
    """A `World` that is closed afterwards."""
    found = World(settings, **options)
    try:
        yield found
    finally:
        found.engine.close()
