"""The HTTP endpoints of the persistence service: liveness, readiness and Prometheus metrics.

| path | status 200 if |
|---|---|
| `/healthz` | the loop has made a step within `stuck_after` |
| `/readyz` | the store can serve, by `integrations.health` |
| `/metrics` | always; the metrics in Prometheus's text format |

`/healthz` does not depend on the table: a restart would not help while the table is unreachable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec

from chalk_online_store.errors import MissingDependency
from chalk_online_store.integrations import health
from chalk_online_store.store import OnlineStore
from chalk_online_store.writer.service import LoopStats
from chalk_online_store.writer.settings import WriterStats

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.exposition import make_wsgi_app
except ImportError:
    raise MissingDependency(
        "The metrics need prometheus-client: pip install 'chalk-online-store[kafka]'."
    ) from None

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_PREFIX = "chalk_persist"

_LOOP_COUNTERS = {
    "messages": "Messages that were consumed.",
    "rows": "Rows that messages were decoded to.",
    "dead": "Messages that are stored as dead letters.",
    "undelivered": "Failed attempts to store dead letters.",
    "commits": "Commits of offsets.",
    "refused_commits": "Commits that the bus refused; they are repeated.",
    "revocations": "Times that partitions moved to another consumer.",
    "losses": "Times that partitions were lost without a revocation.",
    "pauses": "Times that consumption was paused, as the writer had no room.",
}
_LOOP_GAUGES = {
    "pending": "Messages in memory that are not acknowledged.",
    "oldest_seconds": "Age of the oldest message in memory that is not acknowledged.",
    "rows_per_second": "Rows per second over the last 10 seconds.",
    "paused": "1 while consumption is paused.",
    "step_seconds": "Seconds since the last step of the loop.",
}
_WRITER_COUNTERS = {
    "written": "Rows that are written.",
    "dead": "Rows that can never be written.",
    "superseded": "Changes that came later than newer values.",
    "requests": "Write requests.",
    "retries": "Changes that had to be sent again.",
    "throttles": "Throttled responses.",
    "wcu": "Write capacity units consumed.",
}
_WRITER_GAUGES = {
    "pending": "Rows that are neither written nor dead.",
    "pending_bytes": "Approximate bytes in memory of pending rows.",
    "spool_bytes": "Bytes of the spool.",
}


class ServiceCollector:
    """A Prometheus collector of a service's counts. Never exports keys or values."""

    def __init__(self, loop: Callable[[], LoopStats], writer: Callable[[], WriterStats]) -> None:
        self._loop = loop
        self._writer = writer

    def collect(self) -> Iterable[Any]:
        """Yield all metrics."""
        loop, writer = self._loop(), self._writer()
        yield from _families(_PREFIX, loop, _LOOP_COUNTERS, _LOOP_GAUGES)
        yield from _families(f"{_PREFIX}_writer", writer, _WRITER_COUNTERS, _WRITER_GAUGES)
        lag = GaugeMetricFamily(
            f"{_PREFIX}_lag",
            "Messages that are not acknowledged, by partition.",
            labels=("topic", "partition"),
        )
        for partition, messages in loop.lag.items():
            lag.add_metric((partition.topic, str(partition.id)), messages)
        yield lag


def _families(
    prefix: str, stats: Any, counters: dict[str, str], gauges: dict[str, str]
) -> Iterator[Any]:
    for name, text in counters.items():
        yield CounterMetricFamily(f"{prefix}_{name}", text, value=getattr(stats, name))
    for name, text in gauges.items():
        yield GaugeMetricFamily(f"{prefix}_{name}", text, value=float(getattr(stats, name)))


def make_app(
    store: OnlineStore,
    loop: Callable[[], LoopStats],
    writer: Callable[[], WriterStats],
    stuck_after: float,
) -> WSGIApplication:
    """Return the WSGI app of all endpoints."""
    registry = CollectorRegistry()
    registry.register(ServiceCollector(loop, writer))
    routes = {
        "/readyz": health.wsgi(store),
        "/metrics": make_wsgi_app(registry),
        "/healthz": _liveness(loop, stuck_after),
    }

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        route = routes.get(environ.get("PATH_INFO", ""))
        if route is None:
            start_response("404 Not Found", [("Content-Length", "0")])
            return []
        return route(environ, start_response)

    return app


def _liveness(loop: Callable[[], LoopStats], stuck_after: float) -> WSGIApplication:
    def app(_environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        stats = loop()
        is_alive = stats.step_seconds < stuck_after
        found = {
            "status": "ok" if is_alive else "stuck",
            "step_seconds": round(stats.step_seconds, 3),
            "paused": stats.paused,
            "pending": stats.pending,
            "oldest_seconds": round(stats.oldest_seconds, 3),
        }
        body = msgspec.json.encode(found)
        start_response(
            "200 OK" if is_alive else "503 Service Unavailable",
            [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
        )
        return [body]

    return app


class _Server(ThreadingMixIn, WSGIServer):
    """Serves each request in a thread, so that a slow health check does not delay a scrape."""

    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Write no access log."""


@contextmanager
def serving(app: WSGIApplication, host: str, port: int) -> Iterator[int]:
    """Serve an app in a thread; yields the port. Raises `OSError` if the port is in use."""
    server = make_server(host, port, app, server_class=_Server, handler_class=_QuietHandler)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True,
        name="chalk-online-store-http",
    )  # fmt: skip
    thread.start()
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
