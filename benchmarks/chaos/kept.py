"""What the last run of each scenario found, as JSON, and the page and image made of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks import results
from benchmarks.chaos import plot, report
from benchmarks.chaos.scenarios import SCENARIOS, Scenario
from benchmarks.chaos.settings import A_SECOND, TIMEOUT, Pace, RoutingOptions
from benchmarks.report import setting
from benchmarks.server import ROOT

PART = "chaos"
TIMELINES = results.RESULTS / "chaos-timelines.json"
PAGE = ROOT / "docs" / "failover-runs.md"


def keep(
    scenario: Scenario, pace: Pace, lines: Sequence[Mapping[str, Any]], timeline: Mapping[str, Any]
) -> None:
    """Keep one scenario's run in place of its last one."""
    others = [line for line in _lines() if line["scenario"] != scenario.name]
    results.save(
        PART,
        _in_order([*others, *lines]),
        pace=asdict(pace),
        routing=asdict(RoutingOptions()),
        calls_a_second=A_SECOND,
        timeout=TIMEOUT,
    )
    others = [line for line in _timelines() if line["scenario"] != scenario.name]
    drawn = [json.dumps(results.rounded(line)) for line in _in_order([*others, timeline])]
    TIMELINES.write_text("[\n" + ",\n".join(drawn) + "\n]\n")


def publish() -> None:
    """Put what is kept into the page and the image."""
    kept = results.load()[PART]
    tables = report.tables(kept["results"]) | {"chaos setting": setting(kept["setting"])}
    PAGE.write_text(results.insert(PAGE.read_text(), tables))
    plot.draw(_timelines())


def _lines() -> list[dict[str, Any]]:
    return list(results.load().get(PART, {}).get("results", []))


def _timelines() -> list[dict[str, Any]]:
    return list(json.loads(TIMELINES.read_text())) if TIMELINES.exists() else []


def _in_order(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    order = list(SCENARIOS)
    known = [line for line in lines if line["scenario"] in SCENARIOS]
    return sorted(known, key=lambda line: order.index(line["scenario"]))
