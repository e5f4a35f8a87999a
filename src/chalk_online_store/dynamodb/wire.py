"""Requests with their retries: every request to DynamoDB goes through here."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from chalk_online_store.backend import Call
from chalk_online_store.dynamodb import answers
from chalk_online_store.dynamodb.messages import Request
from chalk_online_store.dynamodb.retry import Backoff, RetryPolicy, retrying
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
        try:
            return (yield from self._exchange(request, decoder, call))
        except CredentialsExpired:
            return (yield from self._exchange(replace(request, renew=True), decoder, call))

    def _exchange(self, request: Request, decoder: answers.Decoder[T], call: Call) -> Operation[T]:
        what = f"{request.operation} on table {self._table!r}"
        now: Instant = yield NOW
        left = call.deadline - now.monotonic
        if left <= 0:
            raise RequestTimeout(f"{what}: no time was left before the call's deadline.")
        call.report.requests += 1
        response = yield Send(request, min(left, self._attempt_timeout))
        answer = answers.read(response, decoder, what)
        units = answers.capacity_units(answer)
        if request.operation in _WRITES:
            call.report.wcu += units
        else:
            call.report.rcu += units
        return answer

    def ask(
        self, operation: str, body: bytes, decoder: answers.Decoder[T], call: Call
    ) -> Operation[T]:
        """One request, retried until it succeeds, fails for good, or time is up."""
        step = partial(self.attempt, operation, body, decoder, call)
        return (yield from retrying(step, call, self._backoff()))

    def until_done(
        self, step: Callable[[Sequence[K]], Operation[list[K]]], pending: Sequence[K], call: Call
    ) -> Operation[tuple[Sequence[K], RequestError | None]]:
        """Repeat a batch with what it left, until it leaves nothing or time is up.

        `step` sends a batch and answers what the engine left unprocessed. Answers what is
        still left at the end, and why; raises errors that no retry mends.
        """
        backoff = self._backoff()

        def advance() -> Operation[None]:
            nonlocal pending
            left = yield from step(pending)
            if len(left) < len(pending):
                backoff.reset()
            pending = left
            if left:
                call.report.unprocessed += len(left)
                raise Throttled(f"Table {self._table!r} left {len(left)} keys unprocessed.")

        try:
            yield from retrying(advance, call, backoff)
        except RequestError as error:
            if not error.retryable:
                raise
            return pending, error
        return (), None

    def _backoff(self) -> Backoff:
        return Backoff(self._retry, self._rng)
