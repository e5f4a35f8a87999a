"""Requests with their retries: every request to DynamoDB goes through here."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from chalk_online_store.backend import Call, RequestInfo, Route
from chalk_online_store.dynamodb import responses as answers
from chalk_online_store.dynamodb.matching import Expected
from chalk_online_store.dynamodb.messages import Request, Response
from chalk_online_store.effects import NOW, Instant, Operation, Send
from chalk_online_store.errors import (
    CredentialsExpired,
    RequestError,
    RequestTimeout,
    ResponseMismatch,
    Throttled,
)
from chalk_online_store.retry import SUCCESS_REFUND, Backoff, RetryPolicy, RetryQuota, pause

T = TypeVar("T")
K = TypeVar("K")

_WRITES = frozenset(("BatchWriteItem", "UpdateItem", "PutItem", "DeleteItem", "TransactWriteItems"))

SEARCH = " search"
"""Ends the name of the transport to a region's endpoint for searches."""

_FULL = RetryQuota()
"""Stands for the quota of a region to which no retry was sent yet. Nothing is taken from it."""


class Wire:
    """One table's requests: attempts, retries, and the account of them."""

    def __init__(
        self,
        table: str,
        retry: RetryPolicy,
        attempt_timeout: float,
        rng: random.Random,
        region: str = "",
        route: Route | None = None,
        endpoint: str = "",
    ) -> None:
        """Send to `region`, or where a `route` says.

        `endpoint` is `SEARCH` for a region's endpoint for searches.
        """
        self._table = table
        self._retry = retry
        self._attempt_timeout = attempt_timeout
        self._rng = rng
        self._region = region
        self._route = route
        self._endpoint = endpoint
        self._quotas: dict[str, RetryQuota] = {}
        """By region. AWS's SDKs have a client per region, with a quota each."""

    def attempt(
        self, operation: str, body: bytes, expected: Expected[T], call: Call
    ) -> Operation[T]:
        """One request; with a route, in as many regions as that decides.

        Raises `RequestTimeout` with nothing sent where the deadline has passed.
        """
        what = f"{operation} on table {self._table!r}"
        now: Instant | None
        now, call.as_of = call.as_of, None
        if now is None:
            now = yield NOW
        request = Request(operation, body)
        if self._route is None:
            answer = yield from self._ask(request, expected, what, call, "", call.deadline, now)
        else:
            asked = RequestInfo(operation, len(body), operation in _WRITES)
            attempt = partial(self._ask, request, expected, what, call)
            answer = yield from self._route.attempt(attempt, asked, now, call)
        self._account(operation, answer, call)
        return answer

    def _ask(
        self,
        request: Request,
        expected: Expected[T],
        what: str,
        call: Call,
        region: str,
        until: float,
        now: Instant | None = None,
    ) -> Operation[T]:
        """Ask one region, and once more if credentials have expired or the response does not match.

        After a mismatch nothing on the open connections can be relied on: a response may be late
        on each of them. So the request goes out at once on a new one, and they are closed.
        """
        to = region or self._region
        quota = self._quotas.get(to, _FULL)
        try:
            while True:
                if now is None:
                    now = yield NOW
                left = until - now.monotonic
                if left <= 0:
                    raise RequestTimeout(f"{what}: no time was left before the call's deadline.")
                call.report.requests += 1
                timeout = min(left, self._attempt_timeout)
                response: Response = yield Send(request, timeout, region + self._endpoint)
                try:
                    answer = answers.read(
                        response, expected, what, expected.check_failure, now.wall, request.body
                    )
                except (CredentialsExpired, ResponseMismatch) as error:
                    request = _repeat(request, error, call)
                else:
                    if quota.spent:
                        quota.give_back(SUCCESS_REFUND)
                    return answer
                now = None
        except RequestError as error:
            error.region = to
            error.quota_used_up = not quota.allows(error)
            raise

    def _account(self, operation: str, answer: Any, call: Call) -> None:
        if operation in _WRITES:
            call.report.wcu += answer.units
            call.report.index_write_bytes += getattr(answer, "index_bytes", 0.0)
        else:
            call.report.rcu += answer.units

    def ask(self, operation: str, body: bytes, expected: Expected[T], call: Call) -> Operation[T]:
        """One request, retried until it succeeds, fails for good, or time is up."""
        backoff = None
        while True:
            try:
                answer = yield from self.attempt(operation, body, expected, call)
            except RequestError as error:
                backoff = backoff or self._backoff()
                yield from pause(error, call, backoff, self._quota(error.region))
            else:
                if backoff is not None:
                    backoff.succeed()
                return answer

    def send_until_processed(
        self, step: Callable[[Sequence[K]], Operation[list[K]]], pending: Sequence[K], call: Call
    ) -> Operation[tuple[Sequence[K], RequestError | None]]:
        """Repeat a batch with what it left, until it leaves nothing or time is up.

        `step` sends a batch and answers what the engine left unprocessed. Answers what is
        still left at the end, and why; raises errors that no retry mends.
        """
        backoff = None
        while True:
            quota = None
            try:
                left = yield from step(pending)
                if backoff is not None:
                    backoff.succeed()
                if not left:
                    return (), None
                # Not charged to the quota, as this response is a success, and what is sent again
                # was not processed.
                failure: RequestError = self._left_over(left, call)
                backoff = backoff or self._backoff()
                if len(left) < len(pending):
                    backoff.reset()
                pending = left
            except RequestError as error:
                failure = error
                backoff = backoff or self._backoff()
                quota = self._quota(error.region)
            try:
                yield from pause(failure, call, backoff, quota)
            except RequestError:
                if not failure.retryable:
                    raise
                return pending, failure

    def _left_over(self, left: Sequence[K], call: Call) -> Throttled:
        call.report.unprocessed += len(left)
        return Throttled(f"Table {self._table!r} left {len(left)} keys unprocessed.")

    def _quota(self, region: str) -> RetryQuota:
        return self._quotas.setdefault(region, RetryQuota())

    def _backoff(self) -> Backoff:
        return Backoff(self._retry, self._rng)


def _repeat(request: Request, error: CredentialsExpired | ResponseMismatch, call: Call) -> Request:
    """Return the request to send once more at once. Raises `error` if that was done already."""
    if isinstance(error, CredentialsExpired):
        if request.renew:
            raise error
        return replace(request, renew=True)
    if request.reconnect:
        raise error
    call.report.retries += 1
    return replace(request, reconnect=True)
