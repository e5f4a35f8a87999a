"""What every driver needs: an operation under way, and several of them at once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from chalk_online_store.effects import Effect, Instant, Operation

T = TypeVar("T")


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


class Crew:
    """Operations that several workers share: each takes one after the other until none is left."""

    def __init__(self, operations: Sequence[Operation[Any]]) -> None:
        self._todo = deque(enumerate(operations))  # popleft is atomic.
        self._results: list[Any] = [None] * len(operations)
        self._errors: dict[int, Exception] = {}

    def take(self) -> tuple[int, Operation[Any]] | None:
        """The next operation with its position; None where all are taken."""
        try:
            return self._todo.popleft()
        except IndexError:
            return None

    def done(self, position: int, result: Any) -> None:
        """An operation ended with a result."""
        self._results[position] = result

    def failed(self, position: int, error: Exception) -> None:
        """An operation ended with an exception."""
        self._errors[position] = error

    def results(self) -> list[Any]:
        """All results in order; raises the first exception by position, if there is one."""
        if self._errors:
            raise self._errors[min(self._errors)]
        return self._results


def read_clocks() -> Instant:
    """Both clocks of this machine."""
    return Instant(time.monotonic(), time.time_ns() // 1000)
