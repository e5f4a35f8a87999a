"""What drivers share: operations that run at once, and the clocks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from chalk_online_store.effects import Instant, Operation
from chalk_online_store.errors import RequestError

T = TypeVar("T")


class WorkQueue:
    """Operations that several workers share: each takes one after the other until none is left."""

    def __init__(self, operations: Sequence[Operation[Any]]) -> None:
        self._todo = deque(enumerate(operations))  # popleft is atomic.
        self._results: list[Any] = [None] * len(operations)
        self._errors: dict[int, Exception] = {}

    @property
    def waits(self) -> bool:
        """Whether there is an operation that nobody took."""
        return bool(self._todo)

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
            try:
                raise self.first_error
            finally:
                self._errors = {}  # A traceback refers to this frame: no cycle may keep it.
        return self._results

    @property
    def first_error(self) -> Exception:
        """The first exception by position, of at least one."""
        return self._errors[min(self._errors)]


_instant = Instant._make


def read_clocks() -> Instant:
    """Both clocks of this machine."""
    return _instant((time.monotonic(), time.time_ns() // 1000))


def warmed(transports: Mapping[str, T]) -> list[T]:
    """Return the transports that `warm` opens connections of: all but those made on demand."""
    return [each for each in transports.values() if getattr(each, "opens_on_warm", True)]


def idle_in_all(found: Sequence[int | RequestError]) -> int:
    """How many connections idle in all regions; where none could be reached, raises why."""
    reached = [idle for idle in found if isinstance(idle, int)]
    if not reached:
        raise next(failure for failure in found if not isinstance(failure, int))
    return sum(reached)
