"""Performs operations in virtual time: no socket, no sleeping, the same run every time.

A handler plays the engine. An hour of backoff takes a millisecond, and a test can say exactly
when what happens.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from chalk_online_store.drivers.steps import Crew
from chalk_online_store.effects import (
    All,
    Await,
    Effect,
    Instant,
    Now,
    Operation,
    Send,
    Sleep,
    Spawn,
)
from chalk_online_store.errors import RequestTimeout

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the engine does with a request: a response, or an error, after some seconds."""

    response: Any = None
    error: Exception | None = None
    after: float = 0.0


Handler = Callable[[Any, float], Reply]
"""Takes a request and the time (seconds since the driver began), and answers a `Reply`."""


class Running(Generic[T]):
    """An operation under way.

    `resume` and `fail` answer the effect that it asks for next, or None once it has ended with
    `result`. An exception that the operation does not handle is raised by them.
    """

    result: T

    def __init__(self, operation: Operation[T]) -> None:
        self._operation = operation

    def resume(self, value: Any = None) -> Effect | None:
        """Go on with an effect's result; with None to begin."""
        try:
            return self._operation.send(value)
        except StopIteration as stop:
            self.result = stop.value
            return None

    def fail(self, error: BaseException) -> Effect | None:
        """Go on with an effect's failure."""
        try:
            return self._operation.throw(error)
        except StopIteration as stop:
            self.result = stop.value
            return None


@dataclass(slots=True)
class _Task:
    running: Running[Any]
    done: Callable[[Any], None]
    failed: Callable[[Exception], None]


class _Wait:
    """A task's wait for a future; called when its time is up."""

    def __init__(self, go_on: Callable[[Exception | None], None]) -> None:
        self._go_on = go_on
        self.over = False

    def __call__(self) -> None:
        self._end(TimeoutError())

    def settled(self) -> None:
        """The future is."""
        self._end(None)

    def _end(self, error: Exception | None) -> None:
        if not self.over:
            self.over = True
            self._go_on(error)


@dataclass
class SimulatedDriver:
    """Runs one operation after the other; its clock goes on from one to the next.

    `now` is the virtual time in seconds, `epoch` the wall clock (UTC us) at 0. `sent` lists
    each request with the time at which it was sent.
    """

    handler: Handler
    now: float = 0.0
    epoch: int = 1_800_000_000_000_000
    sent: list[tuple[float, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self, operation: Operation[T]) -> T:
        """Perform an operation to its end, in virtual time."""
        outcome = Crew([operation])
        self._start_next(outcome, lambda: None)
        while self._events:
            time, _, event = heapq.heappop(self._events)
            if isinstance(event, _Wait) and event.over:
                continue  # A timeout that did not come to pass takes no time.
            self.now = time
            event()
        result: T = outcome.results()[0]
        return result

    def _start_next(self, crew: Crew, all_done: Callable[[], None]) -> None:
        """Take the crew's next operation; `all_done` is called when there is none."""
        taken = crew.take()
        if taken is None:
            all_done()
            return
        position, operation = taken

        def done(result: Any) -> None:
            crew.done(position, result)
            self._later(0.0, go_on)

        def failed(error: Exception) -> None:
            crew.failed(position, error)
            self._later(0.0, go_on)

        def go_on() -> None:  # Not from within `done`: calls would pile up.
            self._start_next(crew, all_done)

        self._advance(_Task(Running(operation), done, failed))

    def _advance(self, task: _Task, value: Any = None, error: Exception | None = None) -> None:
        """Go on with a task until it waits for something."""
        try:
            effect = task.running.fail(error) if error else task.running.resume(value)
            while isinstance(effect, Now):
                effect = task.running.resume(self._instant())
        except Exception as raised:
            task.failed(raised)
            return
        if effect is None:
            task.done(task.running.result)
        else:
            self._begin(task, effect)

    def _begin(self, task: _Task, effect: Effect) -> None:
        match effect:
            case Send(request, timeout):
                self._send(task, request, timeout)
            case Sleep(seconds):
                self._later(seconds, lambda: self._advance(task))
            case Spawn(operation):
                self._start_next(Crew([operation]), lambda: None)
                self._advance(task)
            case Await(future, timeout):
                wait = _Wait(lambda error: self._settle(task, future, error))
                self._later(timeout, wait)
                future.add_done_callback(lambda _: self._later(0.0, wait.settled))
            case All(operations, limit):
                self._start_all(task, Crew(operations), min(limit, len(operations)))

    def _send(self, task: _Task, request: Any, timeout: float) -> None:
        self.sent.append((self.now, request))
        reply = self.handler(request, self.now)
        if reply.after > timeout:
            reply = Reply(error=RequestTimeout("Simulated timeout."), after=timeout)
        self._later(reply.after, lambda: self._advance(task, reply.response, reply.error))

    def _settle(self, task: _Task, future: Future[Any], error: Exception | None) -> None:
        error = error or future.exception()  # type: ignore[assignment]
        self._advance(task, None if error else future.result(), error)

    def _start_all(self, task: _Task, crew: Crew, workers: int) -> None:
        at_work = workers
        if not workers:
            self._finish_all(task, crew)

        def ended() -> None:
            nonlocal at_work
            at_work -= 1
            if at_work == 0:
                self._finish_all(task, crew)

        for _ in range(workers):
            self._start_next(crew, ended)

    def _finish_all(self, task: _Task, crew: Crew) -> None:
        try:
            results = crew.results()
        except Exception as error:
            self._advance(task, error=error)
        else:
            self._advance(task, results)

    def _later(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), event))

    def _instant(self) -> Instant:
        return Instant(self.now, self.epoch + round(self.now * 1_000_000))
