"""The Grafana dashboard asks for what is really exported through Prometheus."""

from __future__ import annotations

import json
import re
import time
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY, start_http_server
from scripts.dashboard import FILE, dashboard, text

from chalk_online_store import (
    BloomFilter,
    LRUCache,
    OnlineStore,
    OnlineStoreConfig,
    PersistenceWriter,
    Routing,
    features,
)
from chalk_online_store.integrations.opentelemetry import instrument, observe, observe_writer
from chalk_online_store.testing import LocalGlobalTable, Valkey


@features(online_store_config=OnlineStoreConfig(LRUCache(100), BloomFilter(1000)))
class User:
    id: int
    a: int


@pytest.fixture
def exported() -> Iterator[MeterProvider]:
    """A provider whose metrics are served as Prometheus reads them."""
    reader = PrometheusMetricReader()
    provider = MeterProvider([reader])
    yield provider
    provider.shutdown()


def scraped() -> str:
    """What a Prometheus server would read of this process."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=REGISTRY)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
            found: str = answer.read().decode()
            return found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def names_in(exposition: str) -> set[str]:
    """The names of the samples."""
    lines = [line for line in exposition.splitlines() if line and not line.startswith("#")]
    return {re.split(r"[{ ]", line, maxsplit=1)[0] for line in lines}


def queries() -> list[str]:
    return [
        target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", [])
    ]


def metrics_of(query: str) -> set[str]:
    """The metrics that a query in PromQL selects."""
    return set(re.findall(r"\b([a-z_]+)\{", query))


def test_the_file_is_what_the_script_makes() -> None:
    """Nobody has changed one without the other."""
    assert FILE.read_text() == text()


def test_every_panel_asks_for_what_is_exported(valkey: Valkey, exported: MeterProvider) -> None:
    """On regions, with caches and a writer, each metric of each query is there."""
    cache: Any = {"shared_cache": valkey.url(f"{uuid.uuid4().hex}:"), "shared_cache_timeout": 2}
    routing = Routing(probe_every="100ms")
    meter = exported.get_meter("test")
    asked = set[str]().union(*map(metrics_of, queries()))
    with (
        LocalGlobalTable() as table,
        OnlineStore.open(table.url(**cache), [User], routing=routing) as store,
        PersistenceWriter(store) as writer,
    ):
        observe(store, meter)
        observe_writer(writer, meter)
        instrument(store, meter_provider=exported)
        deadline = time.monotonic() + 120
        while missing := asked - names_in(scraped()):  # The lag takes some probes.
            assert time.monotonic() < deadline, missing
            writer.submit(User, [{"id": 30, "a": 1}]).wait(timeout=60)
            store.read(User, range(40))
    assert len(asked) > 20
    assert all(map(metrics_of, queries()))


def test_queries_are_well_formed() -> None:
    """Parentheses close, and each selects the jobs that were chosen."""
    for query in queries():
        assert query.count("(") == query.count(")")
        assert 'job=~"$job"' in query


def test_panels_do_not_overlap() -> None:
    """Each panel has a place and a number of its own."""
    panels = json.loads(text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
