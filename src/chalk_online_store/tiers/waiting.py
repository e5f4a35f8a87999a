"""Waiting for what another operation of this process makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from chalk_online_store.effects import NOW, Await, Instant, Operation, SharedResult

T = TypeVar("T")

FIRST_CHECK_SECONDS = 0.05
MAX_CHECK_SECONDS = 1.0


def await_shared(
    result: SharedResult[T], deadline: float, is_lost: Callable[[], bool]
) -> Operation[T]:
    """Await a result until `deadline`, a reading of the monotonic clock.

    Raises `TimeoutError` then, or once it `is_lost`: an interruption can end the operation that
    makes it before it tells so. Raises what `set_exception` was given.
    """
    wait = FIRST_CHECK_SECONDS
    while True:
        now: Instant = yield NOW
        left = deadline - now.monotonic
        try:
            value: Any = yield Await(result, min(left, wait))
        except TimeoutError:
            if not result.done() and (is_lost() or left <= wait):
                raise
            wait = min(2 * wait, MAX_CHECK_SECONDS)
        else:
            return value  # type: ignore[no-any-return] # what the future was settled with
