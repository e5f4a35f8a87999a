"""What is kept for each event loop, and one timer for all that a loop waits for."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

SWEEP_SECONDS = 0.25
"""How long after a deadline everything is looked at again, in case that its timer was lost."""

EARLY = 0.0005
"""Seconds that an alarm may ring too early: uvloop rounds its timers to milliseconds."""


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Fail a future that is not done. asyncio does not report it if nobody waits for it any more.

    The response of a doubted connection is such a future: the call may end before it.
    """
    future.set_exception(error)
    future.exception()  # From now on it counts as retrieved.


class PerLoop(Generic[T]):
    """Something that each event loop has one of, made when the loop first asks for it."""

    def __init__(self, make: Callable[[asyncio.AbstractEventLoop], T]) -> None:
        self._make = make
        self.made: dict[asyncio.AbstractEventLoop, T] = {}

    def here(self) -> T:
        """The running loop's."""
        loop = asyncio.get_running_loop()
        found = self.made.get(loop)
        if found is None:
            for other in [other for other in list(self.made) if other.is_closed()]:
                self.made.pop(other, None)
            found = self.made[loop] = self._make(loop)
        return found


class HasDeadline(Protocol):
    """Something that is to happen at a time."""

    @property
    def due(self) -> float:
        """When, on the monotonic clock; `math.inf` where it is not to happen as things stand."""

    def ring(self) -> None:
        """It is time."""


class DeadlineTimer:
    """One timer for all that an event loop waits for, and a second one that follows it.

    A timer for each request costs asyncio a quarter of the request, as cancelled ones pile up. So
    that no deadline depends on the one timer alone, everything is looked at again
    `SWEEP_SECONDS` after the next deadline.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: set[Any] = set()
        """Each of them a `HasDeadline`."""
        self._at = self._sweep_at = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def set(self, due: float) -> None:
        """Ring at `due`, or earlier."""
        if due >= self._at:
            return
        now = time.monotonic()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(due - now, self._ring)
        self._at = due
        if due + 2 * SWEEP_SECONDS < self._sweep_at:
            if self._sweeper is not None:
                self._sweeper.cancel()
            self._sweep_at = due + SWEEP_SECONDS
            self._sweeper = self.loop.call_later(self._sweep_at - now, self._sweep)

    def cancel(self) -> None:
        """Do not ring."""
        self._at = self._sweep_at = math.inf
        for timer in (self._timer, self._sweeper):
            if timer is not None:
                timer.cancel()

    def _ring(self) -> None:
        self._at = math.inf
        self._ring_due()

    def _sweep(self) -> None:
        self._at = self._sweep_at = math.inf
        self._ring_due()

    def _ring_due(self) -> None:
        """Ring for all that is due, each of them whatever the others do, and set the next time."""
        by_now = time.monotonic() + EARLY
        try:
            for one in [one for one in self.waiting if one.due <= by_now]:
                try:
                    one.ring()
                except Exception as error:
                    self.loop.call_exception_handler(
                        {"message": "a deadline could not be enforced", "exception": error}
                    )
        finally:
            self.set(min((one.due for one in self.waiting), default=math.inf))


class Wait:
    """One task's wait, which ends by `end`, or with `TimeoutError` at its deadline."""

    __slots__ = ("_alarm", "_here", "due")

    def __init__(self, alarm: DeadlineTimer, due: float) -> None:
        self.due = due
        self._alarm = alarm
        self._here: asyncio.Future[None] = alarm.loop.create_future()

    def end(self, *_: object) -> bool:
        """End the wait, unless it has ended; call it in the loop's thread."""
        if self._here.done():
            return False
        self._here.set_result(None)
        return True

    def ring(self) -> None:
        """End the wait, since it has lasted too long."""
        self.due = math.inf
        if not self._here.done():
            self._here.set_exception(TimeoutError())

    @property
    def was_ended(self) -> bool:
        """True if `end` has ended the wait."""
        here = self._here
        return here.done() and not here.cancelled() and here.exception() is None

    async def ended(self) -> None:
        """Wait for the end."""
        try:
            self._alarm.waiting.add(self)
            self._alarm.set(self.due)
            await self._here
        finally:
            self._alarm.waiting.discard(self)
