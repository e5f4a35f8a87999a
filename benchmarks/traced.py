"""`python -m benchmarks.traced`: what it costs a read to be traced, or that it could be.

The same reads, in interleaved rounds, from a store that nothing can trace (its operation is called
past the watcher), from one that nobody traces, and from ones that are instrumented: with
OpenTelemetry's API alone, with the SDK and a sample of the spans, and with all of them. The
exporter throws spans away, so what is yours to choose is not in it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import NoOpTracerProvider

from benchmarks.canned import answers
from benchmarks.inprocess import Contender, Sampled, a_core_for_servers, measure
from benchmarks.routed import READS, Threads
from benchmarks.server import CannedServer
from benchmarks.table import as_table
from chalk_online_store import OnlineStore
from chalk_online_store.integrations.opentelemetry import instrument
from chalk_online_store.operations.core import Core

BASE = "not traceable"


class Nowhere(SpanExporter):
    """Takes spans, and keeps none."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def pass_by(store: OnlineStore) -> None:
    """Have reads called past the watcher."""
    core: Any = store.core
    core.read = partial(Core.read.__wrapped__, core)  # type: ignore[attr-defined]


def leave(_: OnlineStore) -> None:
    """Trace nothing."""


def by_the_api(store: OnlineStore) -> None:
    """Have a store instrumented where no SDK is."""
    instrument(store, tracer_provider=NoOpTracerProvider(), meter_provider=NoOpMeterProvider())


def by_the_sdk(store: OnlineStore, share: float) -> None:
    """Have a share of the spans recorded, and everything measured."""
    tracers = TracerProvider(sampler=ParentBasedTraceIdRatio(share))
    tracers.add_span_processor(BatchSpanProcessor(Nowhere()))
    meters = MeterProvider([InMemoryMetricReader()])
    instrument(store, tracer_provider=tracers, meter_provider=meters)


WAYS: dict[str, Callable[[OnlineStore], None]] = {
    BASE: pass_by,
    "not traced": leave,
    "the API alone": by_the_api,
    "1 % of the spans": partial(by_the_sdk, share=0.01),
    "all spans": partial(by_the_sdk, share=1.0),
}


class Traced(Threads):
    """One thread, traced in one of the ways."""

    def __init__(self, way: str, endpoint: str) -> None:
        super().__init__("one region", endpoint)
        self.name = way
        WAYS[way](self._store)


def compared(sampled: Sequence[Sampled]) -> Iterator[list[str]]:
    """Medians, and those of what each takes more than the base does in the same round."""
    base = {line.call: line.microseconds for line in sampled if line.client == BASE}
    for call, client, microseconds in sampled:
        pairs = list(zip(microseconds, base[call], strict=True))
        more = statistics.median(one - other for one, other in pairs)
        ratio = statistics.median(one / other for one, other in pairs)
        median = statistics.median(microseconds)
        yield [call, client, f"{median:,.0f}", f"{more:+.1f}", f"{ratio:.2f}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.traced", description=__doc__)
    parser.add_argument("--rounds", type=int, default=31, help="samples of each (default: 31)")
    rounds = parser.parse_args().rounds
    with ExitStack() as stack:
        core = stack.enter_context(a_core_for_servers())
        server = stack.enter_context(CannedServer(answers(), core))
        ways = [stack.enter_context(closing(Traced(way, server.url))) for way in WAYS]
        contenders = [Contender(call, way) for call in READS for way in ways]
        lines = list(compared(measure(contenders, rounds, seed=0)))
        print(as_table(["read", "store", "CPU us", "more", "x"], lines, texts=2))


if __name__ == "__main__":
    main()
