"""How the parts of a writer wait for each other."""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Future
from contextlib import suppress

from chalk_online_store.effects import Await, Operation


class Signal:
    """Wakes operations that wait, from any thread.

    Whoever waits reads `count` first, then looks whether there is something to do, and then
    waits: a ring in between is not lost.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiting: deque[Future[None]] = deque()

    def notify(self, most: float = math.inf) -> None:
        """Wake so many of those who wait; by default all."""
        self.count += 1
        while self._waiting and most > 0:
            most -= 1
            try:
                self._waiting.popleft().set_result(None)
            except IndexError:  # Another thread was faster.
                return

    def wait(self, seen: int, timeout: float) -> Operation[None]:
        """Wait until it has rung since `count` was `seen`, or for `timeout` seconds."""
        future: Future[None] = Future()
        try:
            self._waiting.append(future)
            if self.count == seen:
                with suppress(TimeoutError):
                    yield Await(future, timeout)
        finally:  # Also if the wait is given up: `notify` would take it for one that still waits.
            with suppress(ValueError):  # It has rung.
                self._waiting.remove(future)


class StopFlag:
    """Tells the parts of a writer that work together to end."""

    __slots__ = ("is_set",)

    def __init__(self) -> None:
        self.is_set = False
