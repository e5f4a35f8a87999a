"""Metrics and traces by OpenTelemetry: nothing is done unless one of these is called.

    from chalk_online_store.integrations.opentelemetry import instrument, observe

    observe(store)      # figures of caches, filters and regions, whenever metrics are collected
    instrument(store)   # a span for each call and each request, and how long they take

Needs `pip install 'chalk-online-store[otel]'`; where spans and metrics go is for your
OpenTelemetry SDK to say. See docs/observability.md.
"""

from chalk_online_store.integrations.opentelemetry.instrumenting import instrument
from chalk_online_store.integrations.opentelemetry.metrics import (
    observe,
    observe_dual_store,
    observe_writer,
)

__all__ = ["instrument", "observe", "observe_dual_store", "observe_writer"]
