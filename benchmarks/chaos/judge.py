"""From what a run left to the lines that are kept. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.chaos import measure, promises
from benchmarks.chaos.calls import Call
from benchmarks.chaos.measure import Window
from benchmarks.chaos.run import Found
from benchmarks.chaos.scenarios import Scenario
from benchmarks.chaos.settings import PREFERRED, STANDBY, Pace

_ON_ITS_WAY = 0.5
"""Seconds for which a write may be on its way to the other region, beside the lag."""


def lines(scenario: Scenario, pace: Pace, found: Found) -> list[dict[str, Any]]:
    """A line for each store."""
    return [_line(scenario, pace, found, mode) for mode in found.outcomes]


def timeline(scenario: Scenario, pace: Pace, found: Found) -> dict[str, Any]:
    """Both stores together, over time."""
    regions = (PREFERRED, STANDBY)
    fault = {"fault": [found.steps[0], found.steps[-1]], "steps": found.steps}
    named = {"scenario": scenario.name, "title": scenario.title}
    return named | fault | measure.timeline(_all_calls(found), regions, pace.end)


def _all_calls(found: Found) -> list[Call]:
    return [call for outcome in found.outcomes.values() for call in outcome.calls]


def _windows(pace: Pace, found: Found) -> dict[str, Window]:
    begun, healed = found.steps[0], found.steps[-1]
    return {
        "before": Window(0.0, begun),
        "during": Window(begun, healed),
        "after": Window(healed, pace.end),
    }


def _line(scenario: Scenario, pace: Pace, found: Found, mode: str) -> dict[str, Any]:
    windows = _windows(pace, found)
    outcome = found.outcomes[mode]
    measured = [call for call in outcome.calls if call.due >= 0]
    reads = [call for call in measured if call.is_read]
    writes = [call for call in measured if not call.is_read]
    line = {
        "scenario": scenario.name,
        "title": scenario.title,
        "store": mode,
        "reads": _kind(scenario, reads, windows),
        "writes": _kind(scenario, writes, windows),
        "marked": measure.marked_after(outcome.changes, scenario.ill, windows["during"]),
        "left": measure.marked_after(outcome.changes, scenario.regions[0], windows["during"]),
        "changes": [change for change in outcome.changes if change.at >= 0],
        "hedges": _hedges(outcome.calls),
        "cpu_us": {n: measure.cpu_a_call(outcome.usage, measured, w) for n, w in windows.items()},
        "behind": {n: _behind(w.of(reads)) for n, w in windows.items()},
        **_load(found, windows),
        **_losses(scenario, found, mode),
    }
    return line | {"promises": list(promises.check(scenario, line))}


def _kind(scenario: Scenario, calls: Sequence[Call], windows: dict[str, Window]) -> dict[str, Any]:
    ill, during, after = scenario.ill, windows["during"], windows["after"]
    return measure.summary(calls, windows) | {
        "longest": max(call.ended - call.began for call in calls),
        "hedges": {name: sum(c.hedges for c in w.of(calls)) for name, w in windows.items()},
        "failovers": sum(call.failovers for call in calls),
        "retries": sum(call.retries for call in calls),
        "invented": sum(call.invented for call in calls),
        "concerned": measure.share_of(windows["before"].of(calls), ill) > 0.5,
        "moved": measure.moved_after(calls, ill, during),
        "touched": sum(measure.had_to_do_with(call, ill) for call in during.of(calls)),
        "returned": measure.returned_after(calls, ill, after),
    }


def _hedges(calls: Sequence[Call]) -> dict[str, int]:
    """All hedges, those of the warming too, and of how many reads' requests."""
    reads = [call for call in calls if call.is_read]
    sent = sum(call.hedges for call in reads)
    return {"sent": sent, "of": sum(call.requests for call in reads) - sent}


def _behind(calls: Sequence[Call]) -> float | None:
    return max((call.behind for call in calls if call.behind is not None), default=None)


def _load(found: Found, windows: dict[str, Window]) -> dict[str, Any]:
    """What the proxies saw of both stores together."""
    seen = [(look.at, sum(look.requests.values())) for look in found.looks]
    calls = _all_calls(found)
    looks = {n: [x for x in found.looks if w.since <= x.at < w.until] for n, w in windows.items()}
    return {
        "requests_a_call": {
            name: measure.requests_a_call(seen, calls, window) for name, window in windows.items()
        },
        "connections": {
            name: max((sum(look.connections.values()) for look in within), default=0)
            for name, within in looks.items()
        },
    }


def _losses(scenario: Scenario, found: Found, mode: str) -> dict[str, Any]:
    calls = found.outcomes[mode].calls
    newest = measure.acknowledged(calls, mode)
    by_then = measure.acknowledged(calls, mode, found.standby_at - scenario.lag - _ON_ITS_WAY)
    mine = [{k: v for k, v in held.items() if k in newest} for held in found.final.values()]
    return {
        "written": len(newest),
        "away": measure.lost(by_then, found.standby),
        "lost": max(measure.lost(newest, held) for held in found.final.values()),
        "differing": measure.differing(mine),
    }
