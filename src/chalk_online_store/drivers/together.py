"""Operations at once in one thread: their requests go out together, and poll(2) tells of answers.

Threads would cost several times the CPU of a small request, and would gain nothing: while one
waits the others can go on, and while one computes the others could not.
"""

from __future__ import annotations

import heapq
import itertools
import select
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from chalk_online_store.drivers.steps import Crew, read_clocks
from chalk_online_store.effects import Effect, Now, Operation, Send, Sleep
from chalk_online_store.errors import RequestError


class Exchange(Protocol):
    """A request under way: see `drivers.http.blocking.Exchange`."""

    connection: Any

    def advance(self) -> Any:
        """Go on without waiting; the answer, once it is whole."""

    def abort(self) -> None:
        """Give up."""


@runtime_checkable
class Pollable(Protocol):
    """A transport that can have several requests under way in one thread."""

    @property
    def idle(self) -> int:
        """How many kept connections nobody uses."""

    def begin(self, request: Any, timeout: float) -> Exchange:
        """A request under way, of which nothing is sent yet; `timeout` is in seconds."""


_LATER = object()


class Together:
    """Runs one crew of operations, some at a time.

    `perform` performs the other effects; none of them is asked for where requests go out in
    numbers, so the others wait until it has.
    """

    def __init__(self, transport: Pollable, perform: Callable[[Effect], Any], crew: Crew) -> None:
        self._transport = transport
        self._perform = perform
        self._crew = crew
        self._poll = select.poll()
        self._under_way: dict[int, tuple[_Task, Exchange]] = {}
        self._asleep: list[tuple[float, int, _Task]] = []
        self._order = itertools.count()

    def run(self, at_once: int) -> None:
        """Run all of them to their end; the crew then has the results."""
        try:
            for _ in range(at_once):
                self._start_next()
            while self._under_way or self._asleep:
                self._wait()
        finally:  # Where we were interrupted, give back what is still under way.
            for _, exchange in self._under_way.values():
                exchange.abort()

    def _start_next(self) -> None:
        taken = self._crew.take()
        if taken is not None:
            self._go_on(_Task(*taken))

    def _go_on(self, task: _Task, value: Any = None, error: Exception | None = None) -> None:
        """Go on with an operation until it waits for something; or to its end, and with others."""
        while self._ends(task, value, error):
            taken = self._crew.take()
            if taken is None:
                return
            task, value, error = _Task(*taken), None, None

    def _ends(self, task: _Task, value: Any, error: Exception | None) -> bool:
        operation = task.operation
        try:
            while True:
                effect = operation.send(value) if error is None else operation.throw(error)
                value = error = None
                try:
                    value = self._performed(task, effect)
                except Exception as failure:
                    error = failure
                if value is _LATER:
                    return False
        except StopIteration as stop:
            self._crew.done(task.position, stop.value)
        except Exception as failure:
            self._crew.failed(task.position, failure)
        return True

    def _performed(self, task: _Task, effect: Effect) -> Any:
        """The effect's result; `_LATER` where the operation has to wait for it."""
        if isinstance(effect, Now):
            return read_clocks()
        if isinstance(effect, Sleep):
            at = time.monotonic() + effect.seconds
            heapq.heappush(self._asleep, (at, next(self._order), task))
            return _LATER
        if not isinstance(effect, Send):
            return self._perform(effect)
        exchange = self._transport.begin(effect.request, effect.timeout)
        answer = exchange.advance()
        return self._watch(task, exchange) if answer is None else answer

    def _watch(self, task: _Task, exchange: Exchange) -> object:
        connection = exchange.connection
        self._under_way[connection.fileno()] = task, exchange
        self._poll.register(connection, connection.waits_for)
        return _LATER

    def _wait(self) -> None:
        """Wait for what is next: an answer, the end of a sleep, or a deadline."""
        deadlines = [exchange.connection.deadline for _, exchange in self._under_way.values()]
        until = min([*deadlines, *(at for at, _, _ in self._asleep[:1])])
        seconds = max(0.0, until - time.monotonic())
        for fd, _ in self._poll.poll(seconds * 1000 + 1):
            self._advance(fd)
        now = time.monotonic()
        if now >= until:  # Also where sockets are ready all the time.
            self._ring(now)

    def _advance(self, fd: int) -> None:
        task, exchange = self._under_way.pop(fd)
        self._poll.unregister(fd)
        try:
            answer = exchange.advance()
        except RequestError as error:
            self._go_on(task, error=error)
            return
        if answer is None:
            self._watch(task, exchange)
        else:
            self._go_on(task, answer)

    def _ring(self, now: float) -> None:
        """Wake those who have slept, and tell those whose time is up."""
        while self._asleep and self._asleep[0][0] <= now:
            self._go_on(heapq.heappop(self._asleep)[2])
        late = [fd for fd, (_, e) in self._under_way.items() if e.connection.deadline <= now]
        for fd in late:
            self._advance(fd)


class _Task:
    __slots__ = ("operation", "position")

    def __init__(self, position: int, operation: Operation[Any]) -> None:
        self.position = position
        self.operation = operation
