"""Operations as tasks of one thread: what `All` and `Race` mean, in real and in virtual time.

A `Loop` steps each task until it asks for something that takes time, and goes on with it once
that has come. How time passes and how requests are sent is for its subclasses to say.
"""

from __future__ import annotations

import heapq
import itertools
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypeVar

from chalk_online_store.drivers.steps import WorkQueue
from chalk_online_store.effects import (
    All,
    Await,
    Effect,
    Instant,
    Now,
    Operation,
    Race,
    Send,
    Settling,
    Sleep,
    Spawn,
)

T = TypeVar("T")

Ended: TypeAlias = Callable[[Any, Exception | None], None]
"""Hears of the end of a task: its result, or its exception."""


def _nothing() -> None:
    """There is nothing to give up."""


class Task:
    """An operation under way."""

    __slots__ = ("ended", "give_up", "operation", "over")

    def __init__(self, operation: Operation[Any], ended: Ended) -> None:
        self.operation = operation
        self.ended = ended
        self.give_up: Callable[[], None] = _nothing
        """Gives up what it waits for."""
        self.over = False

    def cancel(self) -> None:
        """Close the operation where it waits; nobody hears of what it raises then."""
        self.over = True
        self.give_up()
        with suppress(Exception):
            self.operation.close()


class Timer:
    """Something that is to be done at a time, unless it is `over` before."""

    __slots__ = ("call", "over")

    def __init__(self, call: Callable[[], None]) -> None:
        self.call = call
        self.over = False

    def cancel(self) -> None:
        """It need not be done."""
        self.over = True


@dataclass(frozen=True, slots=True)
class StartedEffect:
    """An effect that a driver has begun to perform before there was a loop."""

    go_on: Callable[[Any, Task], None]
    """Makes the given loop go on with it, for the given task."""


def resumed(operation: Operation[T], effect: Any) -> Operation[T]:
    """An operation that has asked for an effect already."""
    try:
        while True:
            try:
                value = yield effect
            except GeneratorExit:
                operation.close()
                raise
            except Exception as error:
                effect = operation.throw(error)
            else:
                effect = operation.send(value)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return] # an operation's T


class Loop(ABC):
    """Runs tasks of one thread."""

    def __init__(self) -> None:
        self._ready: deque[tuple[Task, Any, Exception | None]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    # --- what takes time, as a subclass has it ---

    @abstractmethod
    def time(self) -> float:
        """The monotonic clock, in seconds."""

    @abstractmethod
    def instant(self) -> Instant:
        """Both clocks."""

    @abstractmethod
    def send(self, task: Task, effect: Send) -> None:
        """Send a request for a task; may raise what the task is to be told."""

    @abstractmethod
    def spawn(self, operation: Operation[None]) -> None:
        """Run an operation beside the others."""

    @abstractmethod
    def call_soon(self, call: Callable[[], None]) -> None:
        """Call in this loop's thread; may be asked for in any."""

    # --- what tasks, and what they wait for, ask of the loop ---

    def start(self, operation: Operation[Any], ended: Ended) -> Task:
        """Begin an operation."""
        task = Task(operation, ended)
        self.resume(task)
        return task

    def resume(self, task: Task, value: Any = None, error: Exception | None = None) -> None:
        """Go on with a task; not from within the call, which would pile up."""
        task.give_up = _nothing
        self._ready.append((task, value, error))

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call after that time."""
        timer = Timer(call)
        heapq.heappush(self._timers, (self.time() + seconds, next(self._order), timer))
        return timer

    # --- turns ---

    def step_all(self) -> None:
        """Go on with every task that can, until all wait."""
        ready = self._ready
        while ready:
            self._step(*ready.popleft())

    def next_time(self) -> float:
        """When the next timer is due; `math.inf` where there is none."""
        timers = self._timers
        while timers and timers[0][2].over:
            heapq.heappop(timers)
        return timers[0][0] if timers else math.inf

    def ring(self) -> None:
        """Do what is due by now."""
        now = self.time()
        while self.next_time() <= now:
            _, _, timer = heapq.heappop(self._timers)
            timer.over = True
            timer.call()

    def _step(self, task: Task, value: Any, error: Exception | None) -> None:
        """Go on with a task until it waits for something."""
        if task.over:
            return
        operation = task.operation
        try:
            effect = operation.send(value) if error is None else operation.throw(error)
            while isinstance(effect, Now):
                effect = operation.send(self.instant())
        except StopIteration as stop:
            self._end(task, stop.value, None)
        except Exception as failure:
            self._end(task, None, failure)
        else:
            self._begin(task, effect)
        finally:
            del error  # A failure's traceback refers to this frame: see `Together.run`.

    def _end(self, task: Task, value: Any, error: Exception | None) -> None:
        task.over = True
        task.ended(value, error)

    def _begin(self, task: Task, effect: Effect) -> None:
        try:
            self._perform(task, effect)
        except Exception as failure:
            self.resume(task, error=failure)

    def _perform(self, task: Task, effect: Effect | StartedEffect) -> None:
        match effect:
            case Send():
                self.send(task, effect)
            case Race():
                RaceRun(self, task, effect)
            case All():
                AllRun(self, task, effect)
            case Sleep(seconds):
                task.give_up = self.call_later(seconds, partial(self.resume, task)).cancel
            case Await(future, timeout):
                self.wait_for(task, future, timeout)
            case Spawn(operation):
                self.spawn(operation)
                self.resume(task)
            case StartedEffect(go_on):
                go_on(self, task)

    def wait_for(
        self,
        task: Task,
        future: Settling,
        timeout: float,
        too_late: Callable[[], Exception] = TimeoutError,
    ) -> None:
        """Go on with a task once the future is settled, or after `timeout` seconds."""

        def settled() -> None:
            if not timer.over:
                timer.cancel()
                self._settle(task, future)

        timer = self.call_later(timeout, lambda: self.resume(task, error=too_late()))
        task.give_up = timer.cancel
        if future.done():
            settled()
        else:
            future.add_done_callback(lambda _: self.call_soon(settled))

    def _settle(self, task: Task, future: Settling) -> None:
        try:
            value = future.result(0)
        except Exception as error:
            self.resume(task, error=error)
        else:
            self.resume(task, value)


class AllRun:
    """Operations at once, some at a time, for the task that asked for the results of all."""

    __slots__ = ("_asker", "_crew", "_loop", "_under_way")

    def __init__(self, loop: Loop, parent: Task, effect: All) -> None:
        self._loop = loop
        self._asker = parent
        self._crew = WorkQueue(effect.operations)
        self._under_way: dict[int, Task] = {}
        parent.give_up = self._cancel
        for _ in range(min(effect.limit, len(effect.operations))):
            self._start_next()
        if not self._under_way:
            self._finish()

    def _start_next(self) -> None:
        taken = self._crew.take()
        if taken is not None:
            position, operation = taken
            ended = partial(self._ended, position)
            self._under_way[position] = self._loop.start(operation, ended)

    def _ended(self, position: int, value: Any, error: Exception | None) -> None:
        del self._under_way[position]
        if error is None:
            self._crew.done(position, value)
        else:
            self._crew.failed(position, error)
        self._start_next()
        if not self._under_way:
            self._finish()

    def _finish(self) -> None:
        try:
            results = self._crew.results()
        except Exception as error:
            self._loop.resume(self._asker, error=error)
        else:
            self._loop.resume(self._asker, results)

    def _cancel(self) -> None:
        for task in self._under_way.values():
            task.cancel()


class RaceRun:
    """Operations of which one result is wanted, for the task that asked for it."""

    __slots__ = ("_asker", "_crew", "_loop", "_stagger", "_timer", "_under_way")

    def __init__(self, loop: Loop, parent: Task, effect: Race, early: float = 0.0) -> None:
        """The first leg began `early` seconds ago."""
        self._loop = loop
        self._asker = parent
        self._stagger = effect.stagger
        self._crew = WorkQueue(effect.operations)
        self._under_way: dict[int, Task] = {}
        self._timer: Timer | None = None
        parent.give_up = self._cancel
        self._start_next(early)

    def _start_next(self, early: float = 0.0) -> None:
        taken = self._crew.take()
        assert taken is not None
        position, operation = taken
        ended = partial(self._ended, position)
        self._under_way[position] = self._loop.start(operation, ended)
        if self._crew.waits and self._stagger < math.inf:
            self._timer = self._loop.call_later(self._stagger - early, self._start_next)

    def _ended(self, position: int, value: Any, error: Exception | None) -> None:
        del self._under_way[position]
        if error is None:
            self._cancel()
            self._loop.resume(self._asker, value)
            return
        self._crew.failed(position, error)
        if not self._under_way:
            self._go_on()

    def _go_on(self) -> None:
        """All that have begun have raised."""
        self._stop_timer()
        if self._crew.waits:
            self._start_next()
        else:
            self._loop.resume(self._asker, error=self._crew.first_error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _cancel(self) -> None:
        self._stop_timer()
        for task in self._under_way.values():
            task.cancel()
