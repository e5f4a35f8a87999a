"""Requests with their retries: every request to DynamoDB goes through here."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from chalk_online_store.backend import Call
from chalk_online_store.dynamodb import answers
from chalk_online_store.dynamodb.messages import Request
from chalk_online_store.dynamodb.retry import Backoff, RetryPolicy, pause
from chalk_online_store.effects import NOW, Instant, Operation, Send
from chalk_online_store.errors import (
    CredentialsExpired,
    RequestError,
    RequestRefused,
    RequestTimeout,
    Throttled,
)

T = TypeVar("T")
K = TypeVar("K")

_WRITES = frozenset(("BatchWriteItem", "UpdateItem", "PutItem", "DeleteItem", "TransactWriteItems"))


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items` in order, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def unless_final(error: RequestError) -> RequestError:
    """An error that concerns one item alone; one that no other item could escape is raised."""
    if error.retryable or isinstance(error, RequestRefused):
        return error
    raise error


class Wire:
    """One table's requests: attempts, retries, and the account of them."""

    def __init__(
        self, table: str, retry: RetryPolicy, attempt_timeout: float, rng: random.Random
    ) -> None:
        self._table = table
        self._retry = retry
        self._attempt_timeout = attempt_timeout
        self._rng = rng

    def attempt(
        self, operation: str, body: bytes, decoder: answers.Decoder[T], call: Call
    ) -> Operation[T]:
        """One request, once more with new credentials where these have expired.

        Raises `RequestTimeout` with nothing sent where the deadline has passed.
        """
        request = Request(operation, body)
        while True:
            what = f"{operation} on table {self._table!r}"
            left = yield from self._left(what, call)
            call.report.requests += 1
            response = yield Send(request, min(left, self._attempt_timeout))
            try:
                answer = answers.read(response, decoder, what)
            except CredentialsExpired:
                if request.renew:
                    raise
                request = replace(request, renew=True)
            else:
                self._account(operation, answer, call)
                return answer

    def _left(self, what: str, call: Call) -> Operation[float]:
        """Seconds until the call's deadline."""
        as_of, call.as_of = call.as_of, None
        if as_of is None:
            now: Instant = yield NOW
            as_of = now.monotonic
        left = call.deadline - as_of
        if left <= 0:
            raise RequestTimeout(f"{what}: no time was left before the call's deadline.")
        return left

    def _account(self, operation: str, answer: Any, call: Call) -> None:
        if operation in _WRITES:
            call.report.wcu += answer.units
        else:
            call.report.rcu += answer.units

    def ask(
        self, operation: str, body: bytes, decoder: answers.Decoder[T], call: Call
    ) -> Operation[T]:
        """One request, retried until it succeeds, fails for good, or time is up."""
        backoff = None
        while True:
            try:
                return (yield from self.attempt(operation, body, decoder, call))
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
