"""What is kept for each event loop, and one timer for all that a loop waits for."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")

EARLY = 0.0005
"""Seconds that an alarm may ring too early: uvloop rounds its timers to milliseconds."""


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


class Due(Protocol):
    """Something that is to happen at a time."""

    @property
    def due(self) -> float:
        """When, on the monotonic clock; `math.inf` where it is not to happen as things stand."""

    def ring(self) -> None:
        """It is time."""


class Alarm:
    """One timer for all that an event loop waits for.

    A timer for each request costs asyncio a quarter of the request, as cancelled ones pile up.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: set[Any] = set()
        """Each of them a `Due`."""
        self._at = math.inf
        self._timer: asyncio.TimerHandle | None = None

    def set(self, due: float) -> None:
        """Ring at `due`, or earlier."""
        if due < self._at:
            self.cancel()
            self._at = due
            self._timer = self.loop.call_later(due - time.monotonic(), self._ring)

    def cancel(self) -> None:
        """Do not ring."""
        self._at = math.inf
        if self._timer is not None:
            self._timer.cancel()

    def _ring(self) -> None:
        self._at = math.inf
        by_now = time.monotonic() + EARLY
        for one in [one for one in self.waiting if one.due <= by_now]:
            one.ring()
        self.set(min((one.due for one in self.waiting), default=math.inf))
