"""Requests with their retries: every request to DynamoDB goes through here."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from chalk_online_store.backend import Asked, Call, Route
from chalk_online_store.dynamodb import answers
from chalk_online_store.dynamodb.matching import Expected
from chalk_online_store.dynamodb.messages import Request
from chalk_online_store.effects import NOW, Instant, Operation, Send
from chalk_online_store.errors import (
    CredentialsExpired,
    RequestError,
    RequestTimeout,
    ResponseMismatch,
    Throttled,
)
from chalk_online_store.retry import Backoff, RetryPolicy, pause

T = TypeVar("T")
K = TypeVar("K")

_WRITES = frozenset(("BatchWriteItem", "UpdateItem", "PutItem", "DeleteItem", "TransactWriteItems"))


class Wire:
    """One table's requests: attempts, retries, and the account of them."""

    def __init__(
        self,
        table: str,
        retry: RetryPolicy,
        attempt_timeout: float,
        rng: random.Random,
        route: Route | None = None,
    ) -> None:
        self._table = table
        self._retry = retry
        self._attempt_timeout = attempt_timeout
        self._rng = rng
        self._route = route

    def attempt(
        self, operation: str, body: bytes, expected: Expected[T], call: Call
    ) -> Operation[T]:
        """One request; with a route, in as many regions as that decides.

        Raises `RequestTimeout` with nothing sent where the deadline has passed.
        """
        what = f"{operation} on table {self._table!r}"
        now, call.as_of = call.as_of, None
        if now is None:
            now = yield NOW
        request = Request(operation, body)
        if self._route is None:
            answer = yield from self._ask(request, expected, what, call, "", call.deadline, now)
        else:
            asked = Asked(operation, len(body), operation in _WRITES)
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
        while True:
            if now is None:
                now = yield NOW
            left = until - now.monotonic
            if left <= 0:
                raise RequestTimeout(f"{what}: no time was left before the call's deadline.")
            call.report.requests += 1
            response = yield Send(request, min(left, self._attempt_timeout), region)
            try:
                return answers.read(response, expected, what, expected.check_failure, now.wall)
            except CredentialsExpired:
                if request.renew:
                    raise
                request = replace(request, renew=True)
            except ResponseMismatch:
                if request.reconnect:
                    raise
                request = replace(request, reconnect=True)
                call.report.retries += 1
            now = None

    def _account(self, operation: str, answer: Any, call: Call) -> None:
        if operation in _WRITES:
            call.report.wcu += answer.units
        else:
            call.report.rcu += answer.units

    def ask(self, operation: str, body: bytes, expected: Expected[T], call: Call) -> Operation[T]:
        """One request, retried until it succeeds, fails for good, or time is up."""
        backoff = None
        while True:
            try:
                return (yield from self.attempt(operation, body, expected, call))
            except RequestError as error:
                backoff = backoff or self._backoff()
                yield from pause(error, call, backoff)

    def until_done(
        self, step: Callable[[Sequence[K]], Operation[list[K]]], pending: Sequence[K], call: Call
    ) -> Operation[tuple[Sequence[K], RequestError | None]]:
        """Repeat a batch with what it left, until it leaves nothing or time is up.

        `step` sends a batch and answers what the engine left unprocessed. Answers what is
        still left at the end, and why; raises errors that no retry mends.
        """
        backoff = self._backoff()
        while True:
            try:
                left = yield from step(pending)
                if not left:
                    return (), None
                failure: RequestError = self._left_over(left, call)
                if len(left) < len(pending):
                    backoff.reset()
                pending = left
            except RequestError as error:
                if not error.retryable:
                    raise
                failure = error
            try:
                yield from pause(failure, call, backoff)
            except RequestError:
                return pending, failure

    def _left_over(self, left: Sequence[K], call: Call) -> Throttled:
        call.report.unprocessed += len(left)
        return Throttled(f"Table {self._table!r} left {len(left)} keys unprocessed.")

    def _backoff(self) -> Backoff:
        return Backoff(self._retry, self._rng)
