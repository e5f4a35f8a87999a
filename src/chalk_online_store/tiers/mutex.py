"""One at a time: what operations of a process must not do beside each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from chalk_online_store._fork import reset_after_fork
from chalk_online_store.backend import Call
from chalk_online_store.effects import Operation, SharedResult
from chalk_online_store.errors import RequestTimeout
from chalk_online_store.tiers.waiting import await_shared

T = TypeVar("T")


class OperationMutex:
    """Lets operations run one after the other, whatever threads or tasks they run in."""

    def __init__(self) -> None:
        self.reset()
        reset_after_fork(self)

    def reset(self) -> None:
        """Reset the lock in a forked child."""
        self._lock = threading.Lock()
        self._turn: SharedResult[None] | None = None

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
            mine: SharedResult[None] = SharedResult()
            # The turn ends with this `with`, in whatever way, and needs no other cleanup.
            with mine.owner:
                other = self._take_turn(mine)
                if other is None:
                    try:
                        return (yield from operation(call))
                    finally:
                        mine.set_result(None)
            yield from _wait(other, call)

    def _take_turn(self, mine: SharedResult[None]) -> SharedResult[None] | None:
        """Take the turn; or return that of the operation that has it."""
        with self._lock:
            other = self._turn
            if other is not None and not other.is_over:
                return other
            self._turn = mine
            return None


def _wait(turn: SharedResult[None], call: Call) -> Operation[None]:
    try:
        yield from await_shared(turn, call.deadline, lambda: turn.is_over)
    except TimeoutError:
        if not turn.is_over:
            raise RequestTimeout("Others who did the same took too long.") from None
