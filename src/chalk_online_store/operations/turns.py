"""One at a time: what operations of a process must not do beside each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from chalk_online_store.backend import Call
from chalk_online_store.cache.forks import begin_anew_in_forks
from chalk_online_store.effects import NOW, Await, Instant, Operation
from chalk_online_store.errors import RequestTimeout

T = TypeVar("T")


class Turns:
    """Lets operations run one after the other, whatever threads or tasks they run in."""

    def __init__(self) -> None:
        self.begin_anew()
        begin_anew_in_forks(self)

    def begin_anew(self) -> None:
        """Nobody has the turn."""
        self._lock = threading.Lock()
        self._turn: Future[None] | None = None

    def take(
        self,
        operation: Callable[[Call], Operation[T]],
        call: Call,
        unless: Callable[[], T | None] = lambda: None,
    ) -> Operation[T]:
        """Run an operation alone; or not at all where, before its turn, there is a result.

        Raises `RequestTimeout` where the turn does not come before the call's deadline.
        """
        while True:
            found = unless()
            if found is not None:
                return found
            with self._lock:
                other = self._turn
                if other is None:
                    mine = self._turn = Future()
                    break
            yield from _wait(other, call)
        try:
            return (yield from operation(call))
        finally:
            with self._lock:
                if self._turn is mine:  # Not so in a fork.
                    self._turn = None
            mine.set_result(None)


def _wait(turn: Future[None], call: Call) -> Operation[None]:
    now: Instant = yield NOW
    try:
        yield Await(turn, call.deadline - now.monotonic)
    except TimeoutError:
        raise RequestTimeout("Others who did the same took too long.") from None
