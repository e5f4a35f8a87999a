"""When to try again: with jittered backoff, up to the deadline."""

from __future__ import annotations

import random
from dataclasses import dataclass

from chalk_online_store.backend import Call
from chalk_online_store.effects import NOW, Instant, Operation, Sleep
from chalk_online_store.errors import RequestError, RequestRefused


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait before the next attempt, in seconds.

    The n-th wait is drawn evenly from 0 to `base * 2**n`, at most `cap`: "full jitter", after
    AWS's Architecture Blog, "Exponential Backoff And Jitter". Throttles start from
    `throttle_base`, since a throttled table needs time, not insistence.
    """

    base: float = 0.025
    throttle_base: float = 0.1
    cap: float = 2.0


class Backoff:
    """The waits of one request."""

    def __init__(self, policy: RetryPolicy, rng: random.Random) -> None:
        self._policy = policy
        self._rng = rng
        self._failures = 0
        self._gets_on = False

    def reset(self) -> None:
        """Start over: the engine did some of the work, so it takes no long rest to do more."""
        self._failures = 0
        self._gets_on = True

    def delay(self, error: RequestError) -> float:
        """Seconds to wait after `error`."""
        policy = self._policy
        base = policy.throttle_base if error.throttle and not self._gets_on else policy.base
        self._gets_on = False
        ceiling = min(policy.cap, base * 2.0**self._failures)
        self._failures += 1
        return self._rng.uniform(0, ceiling)


def pause(error: RequestError, call: Call, backoff: Backoff) -> Operation[None]:
    """Wait before the next attempt; raises `error` where there is to be none."""
    call.report.throttles += error.throttle
    if not (error.retryable and call.retries):
        raise error
    delay = backoff.delay(error)
    now: Instant = yield NOW
    if now.monotonic + delay >= call.deadline:
        raise error
    call.report.retries += 1
    yield Sleep(delay)


def unless_final(error: RequestError) -> RequestError:
    """An error that concerns one item alone; one that no other item could escape is raised."""
    if error.retryable or isinstance(error, RequestRefused):
        return error
    raise error
