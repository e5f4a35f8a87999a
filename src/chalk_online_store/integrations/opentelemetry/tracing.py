"""Spans of a store's calls and of the requests that they make, and how long each takes.

A call's operation is run by another one, which passes on what it asks of the world and begins a
span at each request. So there is one tracing for threads, asyncio and virtual time, and spans have
their parents wherever a request is sent from.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from chalk_online_store.effects import All, Effect, Operation, Race, Send, Spawn
from chalk_online_store.errors import WriteFailed
from chalk_online_store.integrations.opentelemetry.requests import (
    COLLECTION,
    DYNAMODB,
    ERROR_TYPE,
    OPERATION,
    STATUS_CODE,
    SYSTEM,
    Attributes,
    describe,
    tell,
)
from chalk_online_store.operations.prepared import Prepared
from chalk_online_store.operations.rows import Rows
from chalk_online_store.report import Report
from chalk_online_store.schema import Namespace, namespace_of

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Counter, Histogram
    from opentelemetry.trace import Span, Tracer

T = TypeVar("T")

NAMESPACE = "chalk.namespace"
CANCELLED = "chalk.cancelled"
REGION, NODE = "cloud.region", "chalk.node"
SERVER, PORT = "server.address", "server.port"
ROWS = "chalk.rows"

COUNTS = (
    "requests",
    "retries",
    "retries_refused",
    "throttles",
    "unprocessed",
    "rcu",
    "wcu",
    "cache_hits",
    "shared_hits",
    "bloom_skips",
    "coalesced",
    "superseded",
    "failed",
    "hedges",
    "failovers",
)
"""Of a report: attributes of a call's span where they are not 0, and counters."""

THROTTLING_REASONS, THROTTLING_REASON = "throttling_reasons", "chalk.throttling_reason"
"""A counter of throttles by AWS's reason, and the attribute that has the reason."""

Addresses = Mapping[str, tuple[str, int]]
"""Host and port by what a request's `to` names."""


class Tracing:
    """Watches the calls of one store: see `operations.watching`."""

    def __init__(
        self,
        api: Any,
        tracer: Tracer,
        calls: Histogram,
        requests: Histogram,
        counters: Mapping[str, Counter],
        addresses: Addresses,
        region: str,
    ) -> None:
        self._api = api
        self._tracer = tracer
        self._calls = calls
        self._requests = requests
        self._counters = counters
        self._addresses = addresses
        self._region = region

    def watch(self, name: str, subject: object, operation: Operation[T]) -> Operation[T]:
        """The operation, within a span of its own."""
        return self._call(name, _namespace(subject), operation, self._api.context.get_current())

    def _call(
        self, name: str, namespace: str, operation: Operation[T], context: Context
    ) -> Operation[T]:
        said: Attributes = {OPERATION: name, **({NAMESPACE: namespace} if namespace else {})}
        span = self._tracer.start_span(f"{name} {namespace}".rstrip(), context, attributes=said)
        inside = self._api.trace.set_span_in_context(span, context)
        with self._ending(span, said, self._calls):
            try:
                result = yield from self._run(operation, inside)
            except WriteFailed as error:  # What failed has cost something too, counted as failed.
                self._fail(span, said, type(error).__name__)
                self._tell(span, said, error.report)
                raise
            self._tell(span, said, result)
            return result

    def _run(self, operation: Operation[T], context: Context) -> Operation[T]:
        """Do what an operation does; within the context of its span, step by step."""
        api, value, failure = self._api.context, None, None
        while True:
            token = api.attach(context)
            try:
                effect = operation.send(value) if failure is None else operation.throw(failure)
            except StopIteration as stop:
                result: T = stop.value
                return result
            finally:
                api.detach(token)
                value, failure = None, None  # Else an exception would hold this frame, and it that.
            try:
                value = yield from self._perform(effect, context)
            except GeneratorExit:
                operation.close()
                raise
            except BaseException as error:  # noqa: BLE001 - it is the operation's.
                failure = error

    def _perform(self, effect: Effect, context: Context) -> Operation[Any]:
        match effect:
            case Send():
                return (yield from self._send(effect, context))
            case All(operations, limit):
                return (yield All(self._within(operations, context), limit))
            case Race(operations, stagger):
                return (yield Race(self._within(operations, context), stagger))
            case Spawn(operation):
                return (yield Spawn(self._run(operation, context)))
        return (yield effect)

    def _within(
        self, operations: Sequence[Operation[Any]], context: Context
    ) -> list[Operation[Any]]:
        return [self._run(operation, context) for operation in operations]

    def _send(self, send: Send, context: Context) -> Operation[Any]:
        described = describe(send.request)
        if described is None:
            return (yield send)
        said = {
            SYSTEM: described.system,
            OPERATION: described.operation,
            **({COLLECTION: described.collection} if described.collection else {}),
            **self._place(described.system, send.to),
        }
        span = self._tracer.start_span(
            f"{described.operation} {described.collection}".rstrip(),
            context,
            kind=self._api.trace.SpanKind.CLIENT,
            attributes=said | described.more,
        )
        with self._ending(span, said, self._requests):
            answer = yield send
            more, error = tell(send.request, answer)
            span.set_attributes(more)
            if error:
                self._fail(span, said, error)
            if STATUS_CODE in more:
                said[STATUS_CODE] = more[STATUS_CODE]
            return answer

    @contextmanager
    def _ending(self, span: Span, said: Attributes, durations: Histogram) -> Iterator[None]:
        """End a span with what is within, say how that ended, and measure how long it took."""
        began = time.perf_counter()
        try:
            yield
        except GeneratorExit:
            span.set_attribute(CANCELLED, True)
            raise
        except BaseException as error:
            self._fail(span, said, type(error).__name__)
            raise
        finally:
            span.end()
            durations.record(time.perf_counter() - began, said)

    def _place(self, system: str, to: str) -> Attributes:
        name, place = (REGION, to or self._region) if system == DYNAMODB else (NODE, to)
        found: Attributes = {name: place} if place else {}
        if to in self._addresses:
            found[SERVER], found[PORT] = self._addresses[to]
        return found

    def _fail(self, span: Span, said: Attributes, kind: str) -> None:
        said[ERROR_TYPE] = kind
        span.set_attribute(ERROR_TYPE, kind)
        span.set_status(self._api.trace.StatusCode.ERROR)

    def _tell(self, span: Span, said: Attributes, result: object) -> None:
        """What a call was like, by its report."""
        report = result.report if isinstance(result, Rows) else result
        if isinstance(result, Rows):
            span.set_attribute(ROWS, len(result))
        if not isinstance(report, Report):
            return
        if region := report.region or self._region:
            said[REGION] = region
            span.set_attribute(REGION, region)
        for name in COUNTS:
            amount = getattr(report, name)
            if amount:
                span.set_attribute(f"chalk.{name}", amount)
                self._counters[name].add(amount, said)
        if report.throttling_reasons:
            span.set_attribute(f"chalk.{THROTTLING_REASONS}", [*report.throttling_reasons])
        for reason, amount in report.throttling_reasons.items():
            self._counters[THROTTLING_REASONS].add(amount, said | {THROTTLING_REASON: reason})


def _namespace(subject: object) -> str:
    if isinstance(subject, Prepared):
        return subject.namespace.name
    if isinstance(subject, Namespace | type):
        return namespace_of(subject).name
    return ""
