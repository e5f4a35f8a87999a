"""What a run's calls say. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.chaos.calls import WRITE, Call, Change, Usage, entity_of

QUIET = 1.0
"""Traffic has moved when no call had to do with the ill region for so many seconds."""

BUCKET = 0.5
_BACK = 0.8
"""Traffic is back when the region answers so much of it, from then on."""

Values = Mapping[int, int]


class Window(NamedTuple):
    """Calls that were due in a part of the run."""

    since: float
    until: float

    def of(self, calls: Iterable[Call]) -> list[Call]:
        return [call for call in calls if self.since <= call.due < self.until]


def percentile(values: Iterable[float], share: float) -> float | None:
    """The least value that `share` of them do not exceed; None where there are none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def latencies(calls: Sequence[Call]) -> dict[str, float | None]:
    """Percentiles in milliseconds, failed calls included."""
    took = [call.took * 1e3 for call in calls]
    shares = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {name: percentile(took, share) for name, share in shares.items()}


def summary(calls: Sequence[Call], windows: Mapping[str, Window]) -> dict[str, Any]:
    """Counts and latencies of calls of one kind, by window."""
    return {
        "calls": len(calls),
        "errors": dict(Counter(call.error for call in calls if call.error)),
        "latency": {name: latencies(window.of(calls)) for name, window in windows.items()},
        "failed": {name: _failed(window.of(calls)) for name, window in windows.items()},
    }


def _failed(calls: Sequence[Call]) -> int:
    return sum(bool(call.error) for call in calls)


def had_to_do_with(call: Call, region: str) -> bool:
    """Whether a call was answered by a region, or noticed that it was not well."""
    return region in call.regions or bool(call.failovers or call.retries or call.error)


def moved_after(calls: Iterable[Call], region: str, window: Window) -> float | None:
    """Seconds until calls no longer had to do with a region; None where that never came.

    0 where none had. Calls count by when they were made.
    """
    made = sorted(
        call.began - window.since
        for call in calls
        if window.since <= call.began < window.until and had_to_do_with(call, region)
    )
    last = 0.0
    for at in [*made, window.until - window.since]:
        if at - last >= QUIET:
            return last
        last = at
    return None


def returned_after(calls: Sequence[Call], region: str, window: Window) -> float | None:
    """Seconds until a region answered most calls, from then on; None where it does not."""
    buckets = int((window.until - window.since) / BUCKET)
    for place in reversed(range(buckets)):
        since = window.since + place * BUCKET
        if share_of(Window(since, since + BUCKET).of(calls), region) < _BACK:
            return None if place == buckets - 1 else (place + 1) * BUCKET
    return 0.0


def share_of(calls: Sequence[Call], region: str) -> float:
    """The part of calls that a region has answered."""
    return sum(region in call.regions for call in calls) / max(1, len(calls))


def marked_after(changes: Iterable[Change], region: str, window: Window) -> dict[str, Any] | None:
    """When a store first saw that a region is not well, and why."""
    for change in changes:
        ill = change.state in {"slow", "down"}
        if change.region == region and ill and window.since <= change.at < window.until:
            after = change.at - window.since
            return {"after": after, "state": change.state, "reason": change.reason}
    return None


def cpu_a_call(usage: Sequence[Usage], calls: Sequence[Call], window: Window) -> float | None:
    """Microseconds of the load's process for each call of a window, its own work included."""
    within = [used for used in usage if window.since <= used.at < window.until]
    if len(within) < 2:
        return None
    first, last = within[0], within[-1]
    made = len(Window(first.at, last.at).of(calls))
    return (last.cpu - first.cpu) / max(1, made) * 1e6


# --- what was lost -------------------------------------------------------------------------


def acknowledged(calls: Iterable[Call], mode: str, before: float = math.inf) -> dict[int, int]:
    """The newest number of each entity whose write was acknowledged before a time."""
    newest: dict[int, int] = {}
    for call in calls:
        if call.kind == WRITE and not call.error and call.ended < before:
            key = entity_of(mode, call.number)
            newest[key] = max(newest.get(key, call.number), call.number)
    return newest


def lost(newest: Values, held: Values) -> int:
    """How many entities are held with an older number than was acknowledged, or not at all."""
    return sum(held.get(key, -1) < number for key, number in newest.items())


def differing(held: Sequence[Values]) -> int:
    """How many entities are not the same in all regions."""
    keys = {key for values in held for key in values}
    return sum(len({values.get(key) for values in held}) > 1 for key in keys)


# --- what it cost --------------------------------------------------------------------------


def requests_a_call(
    requests: Sequence[tuple[float, int]], calls: Sequence[Call], window: Window
) -> float | None:
    """Requests that the proxies saw, probes included, for each call of a window.

    `requests` are how many had been seen by when.
    """
    within = [seen for seen in requests if window.since <= seen[0] < window.until]
    if len(within) < 2:
        return None
    (since, first), (until, last) = within[0], within[-1]
    return (last - first) / max(1, len(Window(since, until).of(calls)))


# --- over time -----------------------------------------------------------------------------


def timeline(calls: Sequence[Call], regions: Sequence[str], end: float) -> dict[str, Any]:
    """Answers of each region, failures and the p99, for each half second, a second."""
    starts = [place * BUCKET for place in range(int(end / BUCKET))]
    windows = [Window(since, since + BUCKET) for since in starts]
    return {
        "at": starts,
        "reads": _traffic([w.of(c for c in calls if c.is_read) for w in windows], regions),
        "writes": _traffic([w.of(c for c in calls if not c.is_read) for w in windows], regions),
    }


def _traffic(buckets: Sequence[Sequence[Call]], regions: Sequence[str]) -> dict[str, Any]:
    return {
        "regions": {
            name: [sum(_answer(call) == name for call in calls) / BUCKET for calls in buckets]
            for name in regions
        },
        "failed": [_failed(calls) / BUCKET for calls in buckets],
        "p99": [percentile((call.took * 1e3 for call in calls), 0.99) for calls in buckets],
    }


def _answer(call: Call) -> str:
    """The region that a good call's answer came from, the last one of several."""
    return call.regions[-1] if call.regions and not call.error else ""
