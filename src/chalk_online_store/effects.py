"""What the core may ask of the world.

An operation is a generator: it yields an effect and is resumed with the effect's result, or an
exception is thrown into it. Drivers perform effects: with threads (`drivers.sync`), on asyncio
(`drivers.aio`), or in virtual time (`drivers.simulated`). So every operation is written once,
and knows no socket, no clock and no thread.

An operation performs one effect in two ways only: `result: Type = yield effect`, or
`result = yield from other_operation(...)`. A type checker takes the result of `yield` for `Any`,
and a forgotten `yield from` for no error: `tests/test_effects.py` finds both. One that is
cancelled is closed: `GeneratorExit` is thrown in where it waits, and it must not ask for anything
more.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

T = TypeVar("T")


class Settling(Protocol):
    """What `Await` takes: a `SharedResult`, or a `concurrent.futures.Future`."""

    def done(self) -> bool:
        """Return True if there is a result or an exception."""
        ...

    def result(self, timeout: float) -> Any:
        """Wait `timeout` seconds for the result; raises `TimeoutError`."""
        ...

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        """Have a function called, with this, once there is a result."""
        ...


class SharedResult(Generic[T]):
    """A result that one operation makes and others await. Thread-safe.

    Whoever makes it holds `owner`, by `with`, for as long as the result may still come. A `with`
    on a lock is entered and left in C, so an operation that ends in any way, by an exception of a
    signal handler too, is seen to have ended: then the result `is_over`, settled or not.

    A `concurrent.futures.Future` does not stand such exceptions: `threading.Condition` is entered
    in Python, and can stay locked. Here each step is one call into C.
    """

    __slots__ = ("_callbacks", "_outcome", "owner")

    def __init__(self, owner: threading.Lock | None = None) -> None:
        self.owner = owner or threading.Lock()
        self._outcome: tuple[Any, BaseException | None] | None = None
        self._callbacks: deque[Callable[[Any], object]] = deque()

    @property
    def is_over(self) -> bool:
        """True if there is a result, or none will come."""
        return self._outcome is not None or not self.owner.locked()

    def done(self) -> bool:
        """Return True if there is a result or an exception."""
        return self._outcome is not None

    def set_result(self, value: T) -> None:
        """Settle it; has no effect if it is settled."""
        self._settle((value, None))

    def set_exception(self, error: BaseException) -> None:
        """Settle it; has no effect if it is settled."""
        self._settle((None, error))

    def add_done_callback(self, fn: Callable[[Any], object], /) -> None:
        """Have a function called, with this, once it is settled; in the thread that settles it."""
        self._callbacks.append(fn)
        if self._outcome is not None:
            self._notify()

    def result(self, timeout: float = threading.TIMEOUT_MAX) -> T:
        """Wait `timeout` seconds for the result; raises `TimeoutError`."""
        if self._outcome is None and timeout > 0:
            settled = threading.Lock()
            settled.acquire()
            self.add_done_callback(lambda _: settled.release())
            settled.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))
        if self._outcome is None:
            raise TimeoutError
        value, error = self._outcome
        if error is not None:
            raise error
        return value  # type: ignore[no-any-return] # what `set_result` was given

    def _settle(self, outcome: tuple[Any, BaseException | None]) -> None:
        if self._outcome is None:
            self._outcome = outcome
        self._notify()

    def _notify(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.popleft()
            except IndexError:  # Another thread calls it.
                return
            callback(self)


@dataclass(frozen=True, slots=True)
class Send:
    """Send one request to the engine; resumed with the engine's response.

    `request` is what the backend's transport takes (a `dynamodb.Request`, an
    `embedded.Request`). `timeout`, in seconds, bounds this one attempt. `to` names the region
    whose transport carries it; "" where there is one. A transport raises
    `errors.ConnectionFailed` or `errors.RequestTimeout`, nothing else.
    """

    request: Any
    timeout: float
    to: str = ""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for `seconds`; resumed with None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Now:
    """Read the clocks; resumed with an `Instant`."""


@dataclass(frozen=True, slots=True)
class All:
    """Run operations at once, at most `limit` at a time; resumed with their results in order.

    When some raise, the others still run to their end; then the first exception, by position,
    is thrown into the operation that asked.
    """

    operations: Sequence[Operation[Any]]
    limit: int


@dataclass(frozen=True, slots=True)
class Race:
    """Run operations until one of them has a result, which the asker is resumed with.

    The first, of at least one, begins at once. Each next one begins `stagger` seconds (may be
    `math.inf`) after the one before it began, or at once when all that have begun have raised.
    What still runs when there is a result is cancelled: its generator is closed, its request
    given up; the engine may have performed it all the same. When all have raised, the exception
    of the first, by position, is thrown into the asker. What is no `Exception` ends the race.
    """

    operations: Sequence[Operation[Any]]
    stagger: float


@dataclass(frozen=True, slots=True)
class Spawn:
    """Begin an operation beside this one; resumed with None at once.

    Nobody hears of its result, nor of an exception that it raises: it tells others by futures.
    """

    operation: Operation[None]


@dataclass(frozen=True, slots=True)
class Await:
    """Wait until others have settled a future; resumed with its result, or fails as it does.

    Fails with `TimeoutError` after `timeout` seconds. The future is not cancelled by that:
    others may wait for it too.
    """

    future: Settling
    timeout: float


class Instant(NamedTuple):
    """One reading of both clocks."""

    monotonic: float
    """Seconds, for deadlines and expiry in this process."""
    wall: int
    """UTC microseconds since 1970, for observed-at and staleness."""


Effect: TypeAlias = Send | Sleep | Now | All | Race | Spawn | Await
Operation: TypeAlias = Generator[Effect, Any, T]

NOW = Now()
"""`Now` has no fields, so one instance serves every operation."""
