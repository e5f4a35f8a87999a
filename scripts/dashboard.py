"""The Grafana dashboard of what the library exports through Prometheus.

`python -m scripts.dashboard` writes `docs/dashboards/chalk-online-store.json`. It asks for a data
source when it is imported, and shows the jobs that are chosen.
"""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).parents[1] / "docs" / "dashboards" / "chalk-online-store.json"
WIDTH, HEIGHT, ACROSS = 8, 8, 3
SOURCE = {"type": "prometheus", "uid": "${source}"}
JOB = 'job=~"$job"'
OURS = "chalk_online_store"


class Panel(NamedTuple):
    """A graph: its title, its unit in Grafana's words, and queries with their legends."""

    title: str
    unit: str
    queries: dict[str, str]


def rate(metric: str, by: str = "") -> str:
    """A counter's growth a second."""
    summed = f"sum by ({by})" if by else "sum"
    return f"{summed} (rate({metric}{{{JOB}}}[$__rate_interval]))"


def quantile(share: float, metric: str, by: str) -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', f'le, {by}')})"


def latest(metric: str, by: str, how: str = "max") -> str:
    """A gauge of all processes."""
    return f"{how} by ({by}) ({metric}{{{JOB}}})"


CALL = f"{OURS}_call"
REQUEST = "db_client_operation_duration_seconds"
WHAT = "db_operation_name, chalk_namespace"
CALLED = "{{db_operation_name}} {{chalk_namespace}}"
SENT = "{{db_operation_name}} {{cloud_region}}"

ROWS: dict[str, list[Panel]] = {
    "Calls": [
        Panel("Calls", "ops", {CALLED: rate(f"{CALL}_duration_seconds_count", WHAT)}),
        Panel(
            "Latency of calls",
            "s",
            {
                f"p50 {CALLED}": quantile(0.5, f"{CALL}_duration_seconds", WHAT),
                f"p99 {CALLED}": quantile(0.99, f"{CALL}_duration_seconds", WHAT),
            },
        ),
        Panel(
            "Retries, throttles, keys that failed",
            "ops",
            {
                "retries": rate(f"{CALL}_retries_total"),
                "throttles": rate(f"{CALL}_throttles_total"),
                "failed": rate(f"{CALL}_failed_total"),
            },
        ),
    ],
    "Requests": [
        Panel(
            "Requests",
            "reqps",
            {SENT: rate(f"{REQUEST}_count", "db_operation_name, cloud_region")},
        ),
        Panel(
            "Latency of requests, p99",
            "s",
            {SENT: quantile(0.99, REQUEST, "db_operation_name, cloud_region")},
        ),
        Panel(
            "Capacity units a second",
            "short",
            {"RCU": rate(f"{CALL}_rcu_total"), "WCU": rate(f"{CALL}_wcu_total")},
        ),
    ],
    "Caches": [
        Panel(
            "Answered by caches",
            "percentunit",
            {
                "LRU cache, {{chalk_namespace}}": (
                    f"{rate(f'{OURS}_cache_hits_total', 'chalk_namespace')} / "
                    f"({rate(f'{OURS}_cache_hits_total', 'chalk_namespace')} + "
                    f"{rate(f'{OURS}_cache_misses_total', 'chalk_namespace')})"
                ),
                "shared cache": (
                    f"{rate(f'{OURS}_shared_cache_hits_total')} / "
                    f"({rate(f'{OURS}_shared_cache_hits_total')} + "
                    f"{rate(f'{OURS}_shared_cache_misses_total')})"
                ),
            },
        ),
        Panel(
            "Reads that the Bloom filter spared",
            "ops",
            {"{{chalk_namespace}}": rate(f"{OURS}_bloom_skips_total", "chalk_namespace")},
        ),
        Panel(
            "False positives of the Bloom filter",
            "percentunit",
            {
                "{{chalk_namespace}}": latest(
                    f"{OURS}_bloom_empirical_false_positive_rate", "chalk_namespace"
                )
            },
        ),
    ],
    "Regions": [
        Panel(
            "Processes by a region's state",
            "short",
            {
                "{{cloud_region}} {{chalk_region_state}}": latest(
                    f"{OURS}_region_state", "cloud_region, chalk_region_state", "sum"
                )
            },
        ),
        Panel(
            "Replication, behind",
            "s",
            {
                "{{cloud_region}} of {{chalk_source_region}}": latest(
                    f"{OURS}_region_replication_lag_seconds", "cloud_region, chalk_source_region"
                )
            },
        ),
        Panel(
            "Hedges and failovers",
            "reqps",
            {
                "hedges to {{cloud_region}}": rate(f"{OURS}_region_hedges_total", "cloud_region"),
                "failovers to {{cloud_region}}": rate(
                    f"{OURS}_region_failovers_total", "cloud_region"
                ),
            },
        ),
    ],
    "Persistence writers": [
        Panel(
            "Rows accepted and written",
            "ops",
            {
                "accepted": rate(f"{OURS}_writer_accepted_total"),
                "written": rate(f"{OURS}_writer_written_total"),
            },
        ),
        Panel(
            "Waiting",
            "short",
            {
                "pending": latest(f"{OURS}_writer_pending", "job", "sum"),
                "records in spools": latest(f"{OURS}_writer_spool_records", "job", "sum"),
                "seconds of the oldest": latest(f"{OURS}_writer_oldest_seconds", "job"),
            },
        ),
        Panel(
            "Dead letters, retries",
            "ops",
            {
                "dead": rate(f"{OURS}_writer_dead_total"),
                "retries": rate(f"{OURS}_writer_retries_total"),
                "damaged in spools": rate(f"{OURS}_writer_spool_damaged_total"),
            },
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """What Grafana imports."""
    return {
        "title": "chalk-online-store",
        "uid": "chalk-online-store",
        "tags": ["dynamodb", "features"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_source(), _job()]},
        "panels": _panels(),
    }


def _source() -> dict[str, Any]:
    return {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _job() -> dict[str, Any]:
    return {
        "name": "job",
        "label": "Job",
        "type": "query",
        "datasource": SOURCE,
        "query": f"label_values({CALL}_duration_seconds_count, job)",
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
        "refresh": 2,
    }


def _panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    numbers, top = count(1), 0
    for title, panels in ROWS.items():
        place = {"x": 0, "y": top, "w": WIDTH * ACROSS, "h": 1}
        found.append({"id": next(numbers), "type": "row", "title": title, "gridPos": place})
        for number, panel in enumerate(panels):
            place = {"x": number * WIDTH, "y": top + 1, "w": WIDTH, "h": HEIGHT}
            found.append({"id": next(numbers), "gridPos": place, **_panel(panel)})
        top += 1 + HEIGHT
    return found


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["last"]}},
        "targets": [
            {"refId": chr(ord("A") + place), "expr": query, "legendFormat": legend}
            for place, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text())
