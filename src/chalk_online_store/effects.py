"""What the core may ask of the world.

An operation is a generator: it yields an effect and is resumed with the effect's result, or an
exception is thrown into it. Drivers perform effects: with threads (`drivers.sync`), on asyncio
(`drivers.aio`), or in virtual time (`drivers.simulated`). So every operation is written once,
and knows no socket, no clock and no thread.

An operation performs one effect in two ways only: `result = yield effect`, or
`result = yield from other_operation(...)`. One that is cancelled is closed: `GeneratorExit` is
thrown in where it waits, and it must not ask for anything more.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, TypeVar

T = TypeVar("T")


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

    future: Future[Any]
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
