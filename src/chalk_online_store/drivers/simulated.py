"""Performs operations in virtual time: no socket, no sleeping, the same run every time.

A handler plays the engine. An hour of backoff takes a millisecond, and a test can say exactly
when what happens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from chalk_online_store.drivers.tasks import Loop, Task
from chalk_online_store.effects import Instant, Operation, Send
from chalk_online_store.errors import RequestTimeout

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply:
    """What the engine does with a request: a response, or an error, after some seconds."""

    response: Any = None
    error: Exception | None = None
    after: float = 0.0


Handler = Callable[[Send, float], Reply]
"""Takes what is sent and the time (seconds since the driver began), and answers a `Reply`."""


@dataclass
class SimulatedDriver:
    """Runs one operation after the other; its clock goes on from one to the next.

    `now` is the virtual time in seconds, `epoch` the wall clock (UTC us) at 0. `sent` lists
    each `Send` with the time at which it was asked for.
    """

    handler: Handler
    now: float = 0.0
    epoch: int = 1_800_000_000_000_000
    sent: list[tuple[float, Send]] = field(default_factory=list)

    def run(self, operation: Operation[T]) -> T:
        """Perform an operation, and what it spawns, to its end, in virtual time."""
        loop = VirtualLoop(self)
        ended: list[tuple[Any, Exception | None]] = []
        root = loop.start(operation, lambda *outcome: ended.append(outcome))
        try:
            loop.run()
        finally:
            if not ended:
                root.cancel()
        ((value, error),) = ended
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return] # an operation's T


class VirtualLoop(Loop):
    """A loop on a simulated driver's clock, which goes from one event to the next."""

    def __init__(self, driver: SimulatedDriver) -> None:
        super().__init__()
        self._driver = driver

    def run(self) -> None:
        """Run until nothing happens any more."""
        self.step_all()
        while (at := self.next_time()) < math.inf:
            self._driver.now = at
            self.ring()
            self.step_all()

    def time(self) -> float:
        """The virtual time."""
        return self._driver.now

    def instant(self) -> Instant:
        """The virtual time, and the wall clock in step with it."""
        now = self._driver.now
        return Instant(now, self._driver.epoch + round(now * 1_000_000))

    def send(self, task: Task, effect: Send) -> None:
        """Have the handler answer, when its reply says so."""
        driver = self._driver
        driver.sent.append((driver.now, effect))
        reply = driver.handler(effect, driver.now)
        if reply.after > effect.timeout:
            reply = Reply(error=RequestTimeout("Simulated timeout."), after=effect.timeout)
        arrive = partial(self.resume, task, reply.response, reply.error)
        task.give_up = self.call_later(reply.after, arrive).cancel

    def spawn(self, operation: Operation[None]) -> None:
        """Run it in this loop too."""
        self.start(operation, _unheard)

    def call_soon(self, call: Callable[[], None]) -> None:
        """There are no other threads."""
        call()


def _unheard(value: Any, error: Exception | None) -> None:
    """Nobody waits for what is spawned."""
