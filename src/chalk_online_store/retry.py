"""Retries: jittered backoff, up to the deadline, within a retry quota.

The rules follow the standard retry mode of AWS's SDKs, as botocore has it by default since 1.44,
with the differences that docs/decisions/0033-retries.md explains. A call has no fixed number of
attempts: its deadline bounds it, and the quota bounds what all calls together add to the load of a
region that fails.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass

from chalk_online_store.backend import Call
from chalk_online_store.effects import NOW, Instant, Operation, Sleep
from chalk_online_store.errors import RequestError, RequestRefused
from chalk_online_store.logs import event

logger = logging.getLogger("chalk_online_store.requests")

QUOTA_TOKENS = 500
"""Tokens of a full quota. Capacity and costs follow AWS's SDKs (botocore 1.44)."""
TRANSIENT_COST = 14
THROTTLE_COST = 5
SUCCESS_REFUND = 1

MAX_ADDED_DELAY_SECONDS = 5.0
"""How much `x-amz-retry-after` may add to a delay, as in AWS's SDKs."""

_QUOTA_NOTE = (
    "It was not retried: the retry quota for its region is used up, since too many requests have "
    "failed lately."
)


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


class RetryQuota:
    """The retries that one store may still send to one region.

    Each retry takes tokens, and successful requests return them. A region that answers so refills
    its quota, and a region that fails soon gets no more than the first attempt of each call.

    There is no lock, since a fork could leave one locked. Two threads that write at once can lose
    one of the two updates. The count is then wrong by the cost of one retry, and heals.
    """

    __slots__ = ("spent",)

    def __init__(self) -> None:
        self.spent = 0
        """Tokens that are taken, out of `QUOTA_TOKENS`. A successful request reads only this."""

    def allows(self, error: RequestError) -> bool:
        """Return True if there are tokens left for a retry after `error`."""
        return self.spent + _cost(error) <= QUOTA_TOKENS

    def take(self, error: RequestError) -> int:
        """Take tokens for a retry after `error`. Returns their number, 0 if too few are left."""
        if not self.allows(error):
            return 0
        cost = _cost(error)
        self.spent += cost
        return cost

    def give_back(self, tokens: int) -> None:
        """Return tokens after a success."""
        self.spent = max(0, self.spent - tokens)


def raise_delay(delay: float, retry_after: float | None) -> float:
    """Return a delay, in seconds, raised to what AWS asks for, by at most 5 s."""
    if retry_after is None:
        return delay
    return max(delay, min(retry_after, delay + MAX_ADDED_DELAY_SECONDS))


def _cost(error: RequestError) -> int:
    return THROTTLE_COST if error.throttle else TRANSIENT_COST


class Backoff:
    """The attempts at one request, and the waits between them."""

    def __init__(self, policy: RetryPolicy, rng: random.Random) -> None:
        self._policy = policy
        self._rng = rng
        self._failures = 0
        self._gets_on = False
        self._charged: tuple[RetryQuota, int] | None = None
        self.attempt = 1
        """The number of the present attempt, from 1. A failover does not begin another one."""

    def reset(self) -> None:
        """Start over: the engine did some of the work, so it takes no long rest to do more."""
        self._failures = 0
        self._gets_on = True

    def delay(self, error: RequestError) -> float:
        """Return the seconds to wait after `error`."""
        policy = self._policy
        base = policy.throttle_base if error.throttle and not self._gets_on else policy.base
        self._gets_on = False
        ceiling = min(policy.cap, base * 2.0**self._failures)
        self._failures += 1
        return raise_delay(self._rng.uniform(0, ceiling), error.retry_after)

    def charge(self, quota: RetryQuota, error: RequestError) -> bool:
        """Take the cost of a retry from a quota. Returns False if too little is left."""
        cost = quota.take(error)
        if cost:
            self._charged = quota, cost
        return cost > 0

    def succeed(self) -> None:
        """Return what the last retry took, since it has succeeded.

        The request itself has returned `SUCCESS_REFUND` of that already.
        """
        if self._charged is not None:
            (quota, cost), self._charged = self._charged, None
            quota.give_back(cost - SUCCESS_REFUND)


def pause(
    error: RequestError, call: Call, backoff: Backoff, quota: RetryQuota | None = None
) -> Operation[None]:
    """Wait before the next attempt. Raises `error` if there is to be none.

    Without a `quota`, the deadline alone bounds the retries.
    """
    error.attempt = backoff.attempt
    if error.throttle:
        call.report.count_throttle(error.throttling_reasons)
    if not (error.retryable and call.retries):
        raise error
    delay = backoff.delay(error)
    now: Instant = yield NOW
    if now.monotonic + delay >= call.deadline:
        raise error
    if quota is not None and not backoff.charge(quota, error):
        call.report.retries_refused += 1
        error.add_note(_QUOTA_NOTE)
        raise error
    call.report.retries += 1
    backoff.attempt += 1
    if logger.isEnabledFor(logging.DEBUG):
        said = event("request.retry", error=error, delay_seconds=delay)
        logger.debug("Retrying in %.3f s: %s", delay, error, extra=said)
    yield Sleep(delay)


def item_error_or_raise(error: RequestError) -> RequestError:
    """An error that concerns one item alone; one that no other item could escape is raised."""
    if error.retryable or isinstance(error, RequestRefused):
        return error
    raise error
